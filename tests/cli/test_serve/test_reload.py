"""`fan serve --reload`."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fan import App
from tests.cli.test_serve.conftest import GREETER, HANG, instances
from tests.lives import until

pytestmark = pytest.mark.usefixtures("registry_url")


def test_reload_serves_what_the_source_says_now(folder: Path, start_fan: Any, app: App) -> None:
    served = start_fan("serve", "greeter", "--reload", cwd=folder)
    served.wait_for("ready")
    assert app.call("greeter.hello") == "Hello World"
    replace(folder / "greeter.py", GREETER.replace("Hello", "Howdy").replace("1.0.0", "1.1.0"))
    served.wait_for("reloading: greeter.py changed")
    served.wait_for("ready")
    with App(settings=app.settings) as fresh:
        assert fresh.call("greeter.hello") == "Howdy World"
    served.send(signal.SIGTERM)
    assert served.wait() == 143
    assert instances(app) == []


def test_reload_waits_for_a_broken_source_to_be_mended(
    folder: Path, start_fan: Any, app: App
) -> None:
    (folder / "greeter.py").write_text("def f(:\n")
    served = start_fan("serve", "greeter", "--reload", cwd=folder)
    served.wait_for("SyntaxError")
    served.wait_for("waiting for a change")
    replace(folder / "greeter.py", GREETER)
    served.wait_for("ready")
    assert app.call("greeter.hello") == "Hello World"
    served.send(signal.SIGINT)
    assert served.wait() == 130


def test_the_child_of_reload_dies_with_it(folder: Path, start_fan: Any, app: App) -> None:
    served = start_fan("serve", "greeter", "--reload", cwd=folder)
    served.wait_for("ready")
    (instance,) = instances(app)
    assert instance.pid != served.pid
    served.send(signal.SIGKILL)
    until(lambda: instances(app) == [], app)
    wait_for_end(instance.pid)


def replace(path: Path, text: str) -> None:
    """Write a file at once, as editors do: half of it is no change of its own."""
    (path.parent / "new.txt").write_text(text)
    (path.parent / "new.txt").replace(path)


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    import select

    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            assert select.select([fd], [], [], HANG)[0]
        finally:
            os.close(fd)
