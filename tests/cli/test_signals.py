"""A signal ends what waits, whichever of its threads the kernel gives it to."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import HANG

if TYPE_CHECKING:
    from tests.cli.conftest import Demo

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads of Linux")

#: Commands that wait for longer than a test may take.
WAITING = [
    "bench greeter.hello name=Ada --duration 10m --rps 1",
    "call greeter.slow s=590 --timeout 10m",
    "call greeter.slow s=590 --timeout 10m -t http",
    "call greeter.hello name=Ada --interval 10m",
    "call greeter.slow s=590 --fanout --timeout 10m",
    "call nobody.hello --wait-ready=10m",
    "config watch orders/",
    "discover list --watch",
    "discover register bare --version 1.0.0 --addr http://127.0.0.1:9 -- sleep 600",
    "discover watch",
    "listen orders.created -t database",
    "mock quiet.hello --reply 1",
    "run --env orders/ -- sleep 600",
    "serve fan.demo.v1:Greeter",
    "version status --watch",
]


def threads(process: subprocess.Popen[bytes]) -> list[int]:
    """The ids of its threads, the main one first."""
    return sorted(map(int, os.listdir(f"/proc/{process.pid}/task")))


def wait_until_it_waits(process: subprocess.Popen[bytes]) -> None:
    """Until it minds signals itself, and its threads have nothing to do for a while."""
    spent, since, until = -1.0, time.monotonic(), time.monotonic() + HANG
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        now = catches_alarms(process) and processor_time(process)
        if now != spent:
            spent, since = now, time.monotonic()
        elif now and time.monotonic() - since > 0.3:
            return
        time.sleep(0.02)
    pytest.fail("it never came to rest")


def catches_alarms(process: subprocess.Popen[bytes]) -> bool:
    with open(f"/proc/{process.pid}/status") as status:
        caught = next(line.split()[1] for line in status if line.startswith("SigCgt"))
    return bool(int(caught, 16) & 1 << (signal.SIGALRM - 1))


def processor_time(process: subprocess.Popen[bytes]) -> int:
    with open(f"/proc/{process.pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def send(process: subprocess.Popen[bytes], number: int) -> None:
    """Give a signal to the thread of a process that began last; one may have ended since."""
    libc = ctypes.CDLL(None, use_errno=True)
    while libc.tgkill(process.pid, threads(process)[-1], number):
        assert ctypes.get_errno() == errno.ESRCH, os.strerror(ctypes.get_errno())


@pytest.mark.parametrize("line", WAITING)
def test_a_signal_that_another_thread_gets_ends_it(
    demo: Demo, start: Callable[..., subprocess.Popen[bytes]], line: str
) -> None:
    process = start(*line.split())
    wait_until_it_waits(process)
    send(process, signal.SIGINT)
    process.wait(HANG)
    assert process.returncode == 130, process.communicate()
