"""The first and the last moments of the program, in which a signal must not end in a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import variables

if TYPE_CHECKING:
    from tests.cli.conftest import Demo, Fan, Ran

#: Sends a signal to the program as it imports something for the nth time since its first line ran;
#: with LOST from within a destructor, where Python ignores what is raised.
SITE = """
import os, signal, sys

class Fragile:
    def __del__(self):
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        for _ in range(1000):
            pass

def hook(event, args, seen=[]):
    if event != "import" or not (seen or args[0] == "fancli.main"):
        return
    seen.append(args[0])
    if len(seen) == int(os.environ["AT"]):
        if "LOST" in os.environ:
            Fragile()
        else:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sys.addaudithook(hook)
"""


@pytest.fixture
def struck(fan: Fan, private: Path) -> Callable[..., Ran]:
    """Run the program and send it a signal at its nth import."""
    (private / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join(filter(None, (str(private), variables().get("PYTHONPATH"))))

    def run(at: int, number: int, *args: str, **vars: str) -> Ran:
        return fan(*args, PYTHONPATH=path, AT=str(at), SIGNAL=str(number), **vars)

    return run


CALL = ("call", "greeter.slow", "s=40", "--timeout", "45s")


@pytest.mark.parametrize(("number", "status"), [(2, 130), (15, 143)])
@pytest.mark.parametrize("at", [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 120])
def test_a_signal_during_the_start_is_no_traceback(
    struck: Callable[..., Ran], demo: Demo, at: int, number: int, status: int
) -> None:
    assert struck(at, number, *CALL) == (status, "", "")


@pytest.mark.parametrize(("number", "status"), [(2, 130), (15, 143)])
@pytest.mark.parametrize("at", [21, 55, 89])
def test_a_signal_that_falls_into_a_destructor_is_not_lost(
    struck: Callable[..., Ran], demo: Demo, at: int, number: int, status: int
) -> None:
    assert struck(at, number, *CALL, LOST="1") == (status, "", "")
