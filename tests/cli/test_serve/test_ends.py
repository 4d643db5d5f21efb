"""`fan serve` ends: by real signals, under load, and by force."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from fan import App, FanError, Unavailable
from tests.cli.test_serve.conftest import HANG, instances, sockets
from tests.lives import until

pytestmark = pytest.mark.usefixtures("registry_url")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_it_in_good_order(
    folder: Path, start_fan: Any, app: App, number: int, status: int
) -> None:
    served = start_fan("serve", "greeter", cwd=folder)
    served.wait_for("ready")
    served.send(number)
    assert served.wait() == status
    assert instances(app) == []
    assert sockets() == []
    assert "Traceback" not in "".join(served.stderr)


class Load:
    """Threads that call `greeter.work` until they are told to stop, or a call fails."""

    def __init__(self, app: App, **options: Any) -> None:
        self.answered = 0
        self.errors: list[FanError] = []
        self._client = app.using(timeout=HANG, **options)
        self._stop = threading.Event()
        self._warm = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(8)]
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            assert self._warm.acquire(timeout=HANG)

    def _run(self, n: int) -> None:
        while not self._stop.is_set():
            try:
                assert self._client.call("greeter.work", n) == n
            except FanError as exc:
                self.errors.append(exc)
                self._warm.release()
                return
            self.answered += 1
            self._warm.release()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(HANG)
            assert not thread.is_alive()


@pytest.mark.parametrize("transport", ["ipc", "http"])
def test_a_drain_under_load_fails_no_call_in_flight(
    folder: Path, start_fan: Any, app: App, transport: str
) -> None:
    args = ("-t", "ipc", "--transport", "http=127.0.0.1:0")
    served = start_fan("serve", "greeter", *args, cwd=folder)
    served.wait_for("ready")
    load = Load(app, transport=transport, retries=0)
    served.send(signal.SIGTERM)
    assert served.wait() == 143
    load.end()
    assert load.answered > 0
    # What was refused never ran: safe to repeat elsewhere. Nothing was cut off.
    assert {(exc.code, exc.executed) for exc in load.errors} <= {("unavailable", "no")}


def test_with_a_second_instance_a_drain_is_not_noticed(
    folder: Path, start_fan: Any, app: App
) -> None:
    first = start_fan("serve", "greeter", cwd=folder)
    second = start_fan("serve", "greeter", cwd=folder)
    first.wait_for("ready")
    second.wait_for("ready")
    load = Load(app)
    first.send(signal.SIGTERM)
    assert first.wait() == 143
    load.end()
    assert load.errors == []


def test_a_second_signal_ends_it_at_once(folder: Path, start_fan: Any, app: App) -> None:
    served = start_fan("serve", "greeter", cwd=folder)
    served.wait_for("ready")
    hanging = app.using(timeout=HANG, retries=0).submit("greeter.hang")
    served.wait_for("hanging")
    served.send(signal.SIGTERM)
    until(lambda: [i.state for i in instances(app)] == ["draining"], app)
    served.send(signal.SIGTERM)
    assert served.wait() == 143
    with pytest.raises(Unavailable) as caught:
        hanging.result(HANG)
    assert (caught.value.reason, caught.value.executed) == ("connection_lost", "maybe")
    assert instances(app) == []


def test_a_drain_that_takes_too_long_gives_the_calls_up(
    folder: Path, start_fan: Any, app: App
) -> None:
    served = start_fan("serve", "greeter", "--drain-timeout", "10ms", cwd=folder)
    served.wait_for("ready")
    hanging = app.using(timeout=HANG, retries=0).submit("greeter.hang")
    served.wait_for("hanging")
    served.send(signal.SIGTERM)
    served.wait_for("calls still ran after 0.01s and were given up")
    assert served.wait() == 143
    with pytest.raises(FanError):
        hanging.result(HANG)


def test_after_kill_9_the_instance_is_gone_and_its_place_can_be_taken(
    folder: Path, start_fan: Any, app: App, private: Path
) -> None:
    args = ("serve", "greeter", "--id", "greeter-a", "--transport", f"ipc={private}/g.sock")
    served = start_fan(*args, cwd=folder)
    served.wait_for("ready")
    served.send(signal.SIGKILL)
    assert served.wait() == -signal.SIGKILL
    assert instances(app) == []
    assert (private / "g.sock").exists()
    start_fan(*args, cwd=folder).wait_for("ready")
    assert app.call("greeter.hello") == "Hello World"
