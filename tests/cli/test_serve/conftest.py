"""A service to be served, and an App that sees what becomes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fan import App, load_settings

#: Seconds after which a test that waits has failed.
HANG = 30.0

GREETER = """
import sys, threading, time
from fan import Service, rpc

class Greeter(Service):
    name = "greeter"
    version = "1.0.0"

    @rpc
    def hello(self, name: str = "World") -> str:
        return f"Hello {name}"

    @rpc
    def work(self, n: int) -> int:
        time.sleep(0.02)
        return n

    @rpc
    def hang(self) -> None:
        print("hanging", file=sys.stderr, flush=True)
        threading.Event().wait()
"""

GREETER2 = """
class Greeter2(Greeter):
    version = "2.0.0"

    @rpc
    def hello(self, name: str = "World") -> str:
        return f"Hi {name}"
"""


@pytest.fixture
def folder(private: Path) -> Path:
    """A folder with `greeter.py` in it."""
    path = private / "project"
    path.mkdir()
    (path / "greeter.py").write_text(GREETER)
    return path


@pytest.fixture
def app() -> Iterator[App]:
    """An App that sees the registry of the served processes."""
    with App(settings=load_settings().settings) as app:
        yield app


def instances(app: App, service: str = "greeter") -> list[Any]:
    found = [info for info in app.discovery.services() if info.name == service]
    return list(found[0].instances) if found else []


def sockets() -> list[str]:
    folder = load_settings().settings.runtime_dir
    return os.listdir(folder) if os.path.isdir(folder) else []
