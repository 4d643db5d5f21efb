"""Many calls: one after the other or several at once, their answers in order or as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from fancli.exits import Exit

if TYPE_CHECKING:
    from fancli.calling import Answer

#: Answers that wait for an earlier one, for each worker: beyond, nothing new is begun.
WINDOW = 64

#: Makes one call, on whichever thread.
Job = Callable[[], "Answer"]


def run_all(
    jobs: Iterable[Job],
    emit: Callable[[int, Answer], None],
    *,
    workers: int = 1,
    in_order: bool = True,
    fail_fast: bool = False,
    wake: Callable[[], None] = lambda: None,
) -> Exit:
    """Run the jobs, `workers` of them at once, and `emit` each answer with its place, from this
    thread. With `fail_fast` nothing is begun after a failure, and what was begun is emitted; `wake`
    ends the wait for a further job. The status says whether some failed."""
    source = _Source(jobs, workers * WINDOW if workers > 1 else 0, wake)
    answers = _one_by_one(source) if workers == 1 else _at_once(source, workers)
    has_failed = False
    try:
        for place, answer in _ordered(answers) if in_order and workers > 1 else answers:
            emit(place, answer)
            source.emitted()
            if not answer.is_ok:
                has_failed = True
                if fail_fast:
                    source.stop()
    finally:
        source.stop()
    return Exit.PARTIAL if has_failed else Exit.OK


class _Source:
    """Hands out the jobs, each with its place, until there are none or it is stopped."""

    def __init__(self, jobs: Iterable[Job], window: int, wake: Callable[[], None]) -> None:
        self._jobs = iter(jobs)
        self._wake = wake
        self._lock = threading.Lock()
        self._place = 0
        self._is_stopped = False
        self._free = threading.Semaphore(window) if window else None

    def take(self) -> tuple[int, Job] | None:
        """The next job, once the answers do not lag too far behind."""
        if self._free is not None:
            self._free.acquire()
        with self._lock:
            job = None if self._is_stopped else next(self._jobs, None)
            if job is None or self._is_stopped:
                self._is_stopped = True
                return None
            self._place += 1
            return self._place - 1, job

    def emitted(self) -> None:
        """One answer is out."""
        if self._free is not None:
            self._free.release()

    def stop(self) -> None:
        """Hand out no more, and let nobody wait for one."""
        self._is_stopped = True
        self._wake()
        if self._free is not None:
            self._free.release(1000)


def _one_by_one(source: _Source) -> Iterator[tuple[int, Answer]]:
    while (taken := source.take()) is not None:
        place, job = taken
        yield place, job()


def _at_once(source: _Source, workers: int) -> Iterator[tuple[int, Answer]]:
    """The answers as they come. The threads end with the jobs; none outlives the process, since a
    call that is in the middle of it cannot be waited for once the user has left."""
    from queue import SimpleQueue

    done: SimpleQueue[tuple[int, Answer | BaseException] | None] = SimpleQueue()

    def work() -> None:
        try:
            while (taken := source.take()) is not None:
                place, job = taken
                done.put((place, job()))
        except BaseException as exc:  # noqa: BLE001  it is raised where the answers are read
            source.stop()
            done.put((-1, exc))
        finally:
            done.put(None)

    threads = [threading.Thread(target=work, name=f"fan-{n}", daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    running = workers
    while running:
        found = done.get()
        if found is None:
            running -= 1
        elif isinstance(found[1], BaseException):
            raise found[1]
        else:
            yield found[0], found[1]
    for thread in threads:
        thread.join()


def _ordered(answers: Iterator[tuple[int, Answer]]) -> Iterator[tuple[int, Answer]]:
    waiting: dict[int, Answer] = {}
    due = 0
    for place, answer in answers:
        waiting[place] = answer
        while due in waiting:
            yield due, waiting.pop(due)
            due += 1
