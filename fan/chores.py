"""What has to be done behind a change, until it went through: apart from who brought the change,
so that it holds up neither that nor anything else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from fan.errors import NO, DeadlineExceeded, FanError

T = TypeVar("T")

#: Seconds before a step that failed is tried again: the first time, and the longest.
RETRY, LONGEST_RETRY = 0.2, 5.0
#: Seconds that `close` waits for a step that is under way.
FAREWELL = 2.0


class Chore:
    """One thing to do whenever it is asked for. `step` runs in a thread of its own, which is there
    only while there is something to do; never twice at once; and again, with a growing pause, where
    it raises. Asked for several times before it begins, it runs once. `what` completes "could
    not ..." in the log, where each series of failures is told once."""

    def __init__(self, name: str, what: str, step: Callable[[], object]) -> None:
        self._name = name
        self._what = what
        self._step = step
        self._changed = threading.Condition()
        #: When it is to run next; None for nothing to do.
        self._due: float | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "idle" if self._thread is None else "at work"
        return f"<Chore {self._name} {state}>"

    def ask(self, delay: float = 0.0) -> None:
        """Have it done, from `delay` seconds on; where it is under way, once more. Returns at
        once, and does nothing once it is closed."""
        with self._changed:
            if self._is_closed:
                return
            at = time.monotonic() + delay
            if self._due is None or at < self._due:
                self._due = at
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            self._changed.notify_all()

    def _run(self) -> None:
        pause = RETRY
        while self._is_due():
            try:
                self._step()
            except Exception as exc:
                self._tell(exc, is_first=pause == RETRY)
                self.ask(pause)
                pause = min(2 * pause, LONGEST_RETRY)
            else:
                pause = RETRY

    def _is_due(self) -> bool:
        """Wait until there is something to do; False, and the thread ends, where there is
        nothing."""
        with self._changed:
            while not self._is_closed and self._due is not None:
                left = self._due - time.monotonic()
                if left <= 0:
                    self._due = None
                    return True
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            self._thread = None
            return False

    def _tell(self, exc: Exception, *, is_first: bool) -> None:
        import logging  # a one-shot command has nothing to log

        log = logging.getLogger("fan")
        if not isinstance(exc, FanError) and is_first:
            log.error("could not %s", self._what, exc_info=exc)
        else:
            (log.warning if is_first else log.debug)("could not %s yet: %s", self._what, exc)

    def close(self, timeout: float = FAREWELL) -> None:
        """Begin nothing any more, and wait for what is under way. Twice does no harm."""
        with self._changed:
            self._is_closed = True
            self._due = None
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


def within(job: Callable[[], T], seconds: float) -> T:
    """What `job` returns, run in a thread of its own, with the context variables of who asks. One
    that does not come back in its time is left to itself. Raises DeadlineExceeded then."""
    from concurrent.futures import Future, wait
    from contextvars import copy_context

    outcome: Future[T] = Future()
    variables = copy_context()

    def run() -> None:
        try:
            outcome.set_result(variables.run(job))
        except BaseException as exc:
            outcome.set_exception(exc)

    try:
        threading.Thread(target=run, name="fan-within", daemon=True).start()
    except RuntimeError:  # the machine gives no thread: it has this one
        run()
    if wait([outcome], seconds).not_done:
        raise DeadlineExceeded(f"it did not end within {seconds:.1f} s")
    return outcome.result()


class Lockable(Protocol):
    """A lock of `threading`."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...

    def release(self) -> None: ...


@contextmanager
def held(lock: Lockable, deadline: float) -> Iterator[None]:
    """A lock that is held meanwhile. Raises DeadlineExceeded, executed no, where another has it
    until `deadline`."""
    left = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
    if not lock.acquire(timeout=left):
        raise DeadlineExceeded(
            "the registry was not read in time: another reading is under way",
            reason="client_timer",
            executed=NO,
        )
    try:
        yield
    finally:
        lock.release()
