"""The contract of a store: conflicts, refusals, operations, and writers that race."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from fan.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
)
from fan.stores.base import LIMIT, Change, Plan, Store, View, new_op
from fan.testing.contracts.store_harness import (
    OpenStore,
    StoreHarness,
    bodies,
    plan,
    soon,
    write,
)


class Commits(StoreHarness):
    """A commit is made as planned, once, or refused for good."""

    def test_a_moved_pin_is_a_conflict_that_names_its_generation(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        write(a, x="2")
        stale = Plan(changes=(Change(object="config/x", body=b"9", from_rev=1),), verb="set")
        with pytest.raises(Aborted) as caught:
            a.commit(stale, deadline=soon())
        assert caught.value.reason == "conflict"
        assert caught.value.details == {"object": "config/x", "gen": 2, "rev": 2, "expected": 1}
        assert "config x was changed in generation 2" in str(caught.value)
        assert bodies(a) == {"x": "2"}

    def test_a_change_to_something_else_is_no_conflict(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        write(a, y="1")
        fine = Plan(changes=(Change(object="config/x", body=b"2", from_rev=1),), verb="set")
        assert a.commit(fine, deadline=soon()).gen == 3

    def test_a_moved_head_is_a_conflict_where_one_asks(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        asking = plan(x="2")
        asking.if_gen = 0
        with pytest.raises(Aborted) as caught:
            a.commit(asking, deadline=soon())
        assert caught.value.reason == "conflict"
        asking.if_gen = 1
        assert a.commit(asking, deadline=soon()).gen == 2

    def test_one_conflict_changes_nothing_of_the_plan(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        half = (Change(object="config/y", body=b"1"), Change(object="config/x", from_rev=9))
        with pytest.raises(Aborted):
            a.commit(Plan(changes=half, verb="set"), deadline=soon())
        assert bodies(a) == {"x": "1"}

    def test_a_retry_of_an_operation_is_applied_once(self, store: OpenStore) -> None:
        a = store()
        op = str(new_op(a.head(deadline=soon())))
        first = a.commit(plan(x="1"), op=op, deadline=soon())
        write(a, x="2")
        again = store().commit(plan(x="1"), op=op, deadline=soon())
        assert (first.gen, first.op, first.was_applied) == (1, op, False)
        assert (again.gen, again.op, again.was_applied) == (1, op, True)
        assert bodies(a) == {"x": "2"}

    def test_an_operation_is_known_before_conflicts_are_looked_for(self, store: OpenStore) -> None:
        a = store()
        mine = plan(x="1")
        mine.if_gen = 0
        op = str(new_op(a.head(deadline=soon())))
        a.commit(mine, op=op, deadline=soon())
        assert a.commit(mine, op=op, deadline=soon()).was_applied

    def test_an_operation_serves_one_plan(self, store: OpenStore) -> None:
        a = store()
        op = str(new_op(a.head(deadline=soon())))
        a.commit(plan(x="1"), op=op, deadline=soon())
        with pytest.raises(AlreadyExists) as caught:
            a.commit(plan(x="2"), op=op, deadline=soon())
        assert caught.value.reason == "duplicate_id"

    def test_a_refusal_is_final(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        op = str(new_op(a.head(deadline=soon())))
        stale = Plan(changes=(Change(object="config/y", body=b"2"),), verb="set", if_gen=7)
        with pytest.raises(Aborted) as first:
            a.commit(stale, op=op, deadline=soon())
        stale.if_gen = None
        with pytest.raises(Aborted) as again:
            store().commit(stale, op=op, deadline=soon())
        assert again.value.details == first.value.details
        assert str(again.value) == str(first.value)

    def test_what_changed_nothing_stays_so(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        op = str(new_op(a.head(deadline=soon())))
        a.commit(plan(x="1"), op=op, deadline=soon())
        write(a, x="2")
        again = a.commit(plan(x="1"), op=op, deadline=soon())
        assert (again.gen, again.is_changed, again.was_applied) == (1, False, True)
        assert bodies(a) == {"x": "2"}

    @pytest.mark.parametrize("op", ["x", "a:b:c", "a:1:", "a:1:b c", "::"])
    def test_a_malformed_operation_is_refused(self, store: OpenStore, op: str) -> None:
        with pytest.raises(InvalidArgument):
            store().commit(plan(x="1"), op=op, deadline=soon())

    def test_an_operation_of_another_epoch_has_an_unknown_outcome(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        with pytest.raises(Unavailable) as caught:
            a.commit(plan(x="2"), op="elsewhere:1:abc", deadline=soon())
        assert (caught.value.reason, caught.value.executed) == ("outcome_unknown", "maybe")

    def test_a_check_sees_the_state_to_come_and_refuses_it(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1", y="1", z="1")
        seen: list[object] = []

        def check(view: View) -> None:
            seen.append((list(view.names("config/")), view.get("config/x"), view.get("config/z")))
            seen.append((view.get("config/y"), view.get("config/none")))
            raise FailedPrecondition("not like this", reason="broken")

        mine = plan(x="2", y=None, new="1")
        mine.check = check
        with pytest.raises(FailedPrecondition, match="not like this"):
            a.commit(mine, deadline=soon())
        assert seen == [(["config/new", "config/x", "config/z"], b"2", b"1"), (None, None)]
        assert bodies(a) == {"x": "1", "y": "1", "z": "1"}

    def test_a_check_that_breaks_leaves_nothing_behind(self, store: OpenStore) -> None:
        def check(view: View) -> None:
            raise ZeroDivisionError

        a, mine = store(), plan(x="1")
        mine.check = check
        with pytest.raises(ZeroDivisionError):
            a.commit(mine, deadline=soon())
        assert write(a, x="2").gen == 1

    def test_too_large_a_plan_is_refused(self, store: OpenStore) -> None:
        a = store()
        with pytest.raises(InvalidArgument) as caught:
            write(a, x="x" * (LIMIT // 2), y="y" * (LIMIT // 2))
        assert caught.value.reason == "payload_too_large"
        assert write(a, x="x" * (LIMIT - 100)).gen == 1

    def test_a_plan_names_an_object_once(self, store: OpenStore) -> None:
        twice = (Change(object="config/x", body=b"1"), Change(object="config/x", body=b"2"))
        with pytest.raises(InvalidArgument):
            store().commit(Plan(changes=twice, verb="set"), deadline=soon())

    def test_a_past_deadline_does_nothing(self, store: OpenStore) -> None:
        a, past = store(), time.monotonic() - 1
        asks: Sequence[Callable[[], object]] = (
            lambda: a.head(deadline=past),
            lambda: a.commit(plan(x="1"), deadline=past),
            lambda: a.put("kind", "name", b"", deadline=past),
        )
        for ask in asks:
            with pytest.raises(DeadlineExceeded) as caught:
                ask()
            assert caught.value.executed == "no"
        assert bodies(a) == {}

    def test_writers_that_race_lose_nothing(self, store: OpenStore) -> None:
        writers, rounds = 4, 25

        def run(a: Store, i: int) -> None:
            for n in range(rounds):
                write(a, **{f"w{i}": str(n), "shared": f"{i}-{n}"})

        threads = [threading.Thread(target=run, args=(store(), i)) for i in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        entries = store().log(0, deadline=soon())
        assert [e.gen for e in entries] == list(range(1, writers * rounds + 1))
        assert [e.prev for e in entries[1:]] == [e.op for e in entries[:-1]]
        assert all(bodies(store())[f"w{i}"] == str(rounds - 1) for i in range(writers))

    def test_increments_under_from_rev_are_not_lost(self, store: OpenStore) -> None:
        def run(a: Store) -> None:
            for _ in range(10):
                while True:
                    found = a.read(["config/n"], deadline=soon()).objects.get("config/n")
                    count = int(found.body or b"0") if found else 0
                    change = Change(
                        object="config/n",
                        body=str(count + 1).encode(),
                        from_rev=found.rev if found else 0,
                    )
                    with contextlib.suppress(Aborted):
                        a.commit(Plan(changes=(change,), verb="set"), deadline=soon())
                        break

        threads = [threading.Thread(target=run, args=(store(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bodies(store()) == {"n": "30"}
