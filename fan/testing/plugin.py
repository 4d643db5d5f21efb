"""Fixtures for tests of services. Ask for them in a conftest::

pytest_plugins = ["fan.testing.plugin"]

def test_it_greets(fan_app):
    app = fan_app(Greeter())
    assert app.call("greeter.hello", name="Ada") == "Hello Ada"
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fan.app import App

__all__ = ["fan_app"]


@pytest.fixture
def fan_app() -> Iterator[Callable[..., App]]:
    """Makes Apps that host services, each started and closed with the test.

    `fan_app(*services, transports=(), store=None, errors=(), **settings)`: all on one registry in
    memory, so that an App without services can call the others over `transports` ("ipc", "http").
    Local calls are strict (`Settings.strict_local`): arguments and results are copied as a wire
    would, so that a test sees what a mutated argument or a value without a JSON form would do.
    """
    from fan.app import App
    from fan.settings import Settings
    from fan.stores.memory import MemoryStore

    with ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="fan-")  # short: a socket's path has 108 bytes at most
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        shared = MemoryStore("test")
        stack.callback(shared.close)

        def make(
            *services: Any,
            transports: tuple[str, ...] = (),
            store: Any = None,
            errors: tuple[type[BaseException], ...] = (),
            **settings: Any,
        ) -> App:
            usual = {"strict_local": True, "runtime_dir": f"{folder}/run"}
            app = App(
                *services,
                settings=Settings(**{**usual, **settings}),
                store=store or shared,
                errors=errors,
            )
            stack.callback(app.close)
            if services:
                app.start(transports)
                stack.callback(app.stop)
            return app

        yield make
