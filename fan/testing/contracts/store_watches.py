"""The contract of a store: watches."""

from __future__ import annotations

import threading

from fan.errors import FanError
from fan.stores.base import HEAD, Hint
from fan.testing.contracts.store_harness import (
    PATIENCE,
    Eventually,
    OpenStore,
    StoreHarness,
    names,
    soon,
    write,
)


class Watches(StoreHarness):
    """A watch calls at once, and misses no last change."""

    def test_a_watch_calls_at_once(self, store: OpenStore) -> None:
        a = store()
        seen = Eventually(lambda: a.head(deadline=soon()).gen)
        a.watch(HEAD, seen)
        assert seen.sees(0)
        assert set(seen.hints) == {"changed"}

    def test_a_watch_sees_the_commits_of_others(self, store: OpenStore) -> None:
        a, b = store(), store()
        seen = Eventually(lambda: a.head(deadline=soon()).gen)
        a.watch(HEAD, seen)
        for gen in range(1, 6):
            write(b, x=str(gen))
            assert seen.sees(gen)

    def test_a_watch_misses_no_last_change(self, store: OpenStore) -> None:
        a, b = store(), store()
        seen = Eventually(lambda: a.head(deadline=soon()).gen)
        a.watch(HEAD, seen)
        for i in range(100):
            write(b, x=str(i))
        assert seen.sees(100)

    def test_a_watch_sees_its_own_handles_commits(self, store: OpenStore) -> None:
        a = store()
        seen = Eventually(lambda: a.head(deadline=soon()).gen)
        a.watch(HEAD, seen)
        write(a, x="1")
        assert seen.sees(1)

    def test_a_watch_of_records_sees_them_come_and_go(self, store: OpenStore) -> None:
        a, b = store(), store()
        seen = Eventually(lambda: names(a, "inst"))
        a.watch("inst", seen)
        assert seen.sees([])
        session = b.open_session(deadline=soon())
        b.put("inst", "x", b"", session=session, deadline=soon())
        assert seen.sees(["x"])
        b.put("inst", "y", b"", session=session, deadline=soon())
        assert seen.sees(["x", "y"])
        b.delete("inst", "x", deadline=soon())
        assert seen.sees(["y"])

    def test_a_watch_of_records_sees_them_change(self, store: OpenStore) -> None:
        a, b = store(), store()
        session = b.open_session(deadline=soon())
        for name in ("x/1", "x"):
            b.put("inst", name, b"1", session=session if name == "x/1" else None, deadline=soon())
        seen = Eventually(lambda: [r.body for r in a.list("inst", deadline=soon())])
        a.watch("inst", seen)
        assert seen.sees([b"1", b"1"])
        b.put("inst", "x/1", b"2", session=session, deadline=soon())
        assert seen.sees([b"1", b"2"])
        b.put("inst", "x", b"2", deadline=soon())
        assert seen.sees([b"2", b"2"])
        session.close()
        assert seen.sees([b"2"])

    def test_a_watch_sees_a_session_end(self, store: OpenStore) -> None:
        a, b = store(), store()
        session = b.open_session(deadline=soon())
        b.put("inst", "x", b"", session=session, deadline=soon())
        seen = Eventually(lambda: len(names(a, "inst")))
        a.watch("inst", seen)
        assert seen.sees(1)
        session.close()
        assert seen.sees(0)

    def test_a_closed_watch_is_silent(self, store: OpenStore) -> None:
        a = store()
        quiet, seen = Eventually(lambda: None), Eventually(lambda: a.head(deadline=soon()).gen)
        watch = a.watch(HEAD, quiet)
        assert quiet.sees(None)
        watch.close()
        watch.close()
        a.watch(HEAD, seen)
        assert seen.sees(0)
        told = len(quiet.hints)
        write(a, x="1")
        assert seen.sees(1)
        assert len(quiet.hints) == told

    def test_a_watch_may_be_closed_in_its_call(self, store: OpenStore) -> None:
        a = store()
        ready, ended = threading.Event(), threading.Event()

        def callback(hint: Hint) -> None:
            ready.wait(PATIENCE)
            watch.close()
            ended.set()

        watch = a.watch(HEAD, callback)
        ready.set()
        assert ended.wait(PATIENCE)

    def test_a_callback_that_raises_is_called_again(self, store: OpenStore) -> None:
        a = store()
        calls = threading.Semaphore(0)

        def callback(hint: Hint) -> None:
            calls.release()
            raise FanError("on purpose")

        a.watch(HEAD, callback)
        assert calls.acquire(timeout=PATIENCE)
        write(a, x="1")
        assert calls.acquire(timeout=PATIENCE)

    def test_a_watcher_follows_dense_generations(self, store: OpenStore) -> None:
        a, b = store(), store()
        gens: list[int] = []

        def follow() -> int:
            gens.extend(e.gen for e in a.log(gens[-1] if gens else 0, deadline=soon()))
            return len(gens)

        seen = Eventually(follow)
        a.watch(HEAD, seen)
        for i in range(50):
            write(b, x=str(i))
        assert seen.sees(50)
        assert gens == list(range(1, 51))
