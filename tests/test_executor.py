"""The context in threads."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from fan.context import Context, current
from fan.executor import Executor, wrap

variable: ContextVar[int] = ContextVar("variable", default=0)


def test_a_task_runs_in_the_context_of_its_submission():
    with Executor(2) as pool:
        with Context.at(service="shop") as context:
            inside = pool.submit(current)
        outside = pool.submit(current)
        assert inside.result() is context
        assert outside.result() is None


def test_map_carries_the_context_too():
    with Executor(2) as pool, Context() as context:
        assert list(pool.map(lambda _: current(), range(4))) == [context] * 4


def test_arguments_and_results_pass():
    with Executor(1) as pool:
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        assert pool.submit(dict, fn=1, self=2).result() == {"fn": 1, "self": 2}


def test_an_exception_passes():
    with Executor(1) as pool, pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()


def test_what_a_task_sets_stays_with_it():
    with Executor(1) as pool:
        pool.submit(variable.set, 5).result()
        assert pool.submit(variable.get).result() == 0
        assert variable.get() == 0


def test_a_wrapped_function_keeps_the_context_of_its_wrapping():
    with Context.at(service="shop") as context:
        carried = wrap(current)
    assert carried() is context
    assert carried.__name__ == "current"


def test_a_wrapped_function_runs_in_several_threads_at_once():
    gate, seen = threading.Barrier(3), []

    def work():
        gate.wait(30)
        seen.append(current())

    with Context() as context:
        carried = wrap(work)
    threads = [threading.Thread(target=carried) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [context] * 3
