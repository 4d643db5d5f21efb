"""What every store must do: subclass `StoreContract` in your tests and give it your store.

::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, server) -> Iterator[OpenStore]:
            with handles(lambda namespace: MyStore(server.url, namespace)) as open_store:
                yield open_store

The fixture `store` is a function: each `store()` is a new handle on one and the same namespace that
was empty when the test began, as another process would have it; `store("other")` is one on another
namespace of the same storage. `handles` closes them all.

A store that can give up a session by itself may override `lose`; the tests of that are skipped
otherwise. `retention` is False where a thousand commits take too long.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import pytest

from fan.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from fan.stores.base import (
    HEAD,
    LIMIT,
    RETENTION,
    Change,
    Committed,
    Hint,
    Op,
    Plan,
    Session,
    Store,
    View,
    new_op,
)

#: Seconds after which something that should happen counts as never happening.
PATIENCE = 20.0


class OpenStore(Protocol):
    """Opens handles on the storage of one test."""

    def __call__(self, namespace: str = "default") -> Store: ...


@contextlib.contextmanager
def handles(make: Callable[[str], Store]) -> Iterator[OpenStore]:
    """An `OpenStore` whose handles are closed at the end, the newest first."""
    with contextlib.ExitStack() as stack:

        def open_store(namespace: str = "default") -> Store:
            store = make(namespace)
            stack.callback(store.close)
            return store

        yield open_store


def soon() -> float:
    """A deadline that a working store does not reach."""
    return time.monotonic() + PATIENCE


def write(store: Store, **bodies: str | None) -> Committed:
    """Commit one generation that sets `config/<name>` to each body, None deleting it."""
    return store.commit(plan(**bodies), deadline=soon())


def plan(**bodies: str | None) -> Plan:
    """What `write` commits."""
    changes = [
        Change(object=f"config/{name}", body=None if body is None else body.encode())
        for name, body in bodies.items()
    ]
    return Plan(changes=tuple(changes), verb="set", who="ada", reason="because")


def repin(name: str, rev: int, from_rev: int | None = None) -> Plan:
    """A plan that pins an old revision of `config/<name>` again."""
    change = Change(object=f"config/{name}", to_rev=rev, from_rev=from_rev)
    return Plan(changes=(change,), verb="rollback")


def bodies(store: Store, gen: int | None = None) -> dict[str, str]:
    """What is pinned, without `config/`."""
    cut = store.read(prefix="config/", gen=gen, deadline=soon())
    return {
        name.removeprefix("config/"): revision.body.decode()
        for name, revision in cut.objects.items()
        if revision.body is not None
    }


def names(store: Store, kind: str, prefix: str = "") -> list[str]:
    """The names of the live records of a kind."""
    return [record.name for record in store.list(kind, prefix, deadline=soon())]


class Eventually:
    """A watch callback: waits until what the store says in a call is as expected."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self.hints: list[Hint] = []
        self._ask = ask
        self._answers: list[object] = []
        self._news = threading.Condition()

    def __call__(self, hint: Hint) -> None:
        answer = self._ask()
        with self._news:
            self.hints.append(hint)
            self._answers.append(answer)
            self._news.notify_all()

    def sees(self, expected: object) -> bool:
        """Whether a call saw `expected` in the end."""
        with self._news:
            return self._news.wait_for(lambda: expected in self._answers, PATIENCE)


class StoreContract:
    """The behaviour of `fan.stores.base.Store`. See the module on how to use it."""

    #: Whether the test of trimming (a thousand commits) runs.
    retention = True

    @pytest.fixture
    def store(self) -> Iterator[OpenStore]:
        """Override: the handles on an empty storage."""
        raise NotImplementedError("give StoreContract a fixture named store")

    def lose(self, store: Store, session: Session) -> None:
        """Override: make the store give up a session without its owner's doing."""
        pytest.skip("this store does not say how to lose a session")

    # Generations

    def test_a_namespace_that_nobody_wrote_to_is_empty(self, store: OpenStore) -> None:
        head = store().head(deadline=soon())
        assert (head.gen, head.op, head.floor) == (0, "", 0)
        assert bodies(store()) == {}

    def test_a_commit_makes_the_next_generation(self, store: OpenStore) -> None:
        a = store()
        assert [write(a, x="1").gen, write(a, x="2").gen, write(a, y="1").gen] == [1, 2, 3]
        assert store().head(deadline=soon()).gen == 3

    def test_another_handle_reads_what_was_committed(self, store: OpenStore) -> None:
        write(store(), x="1", y="2")
        assert bodies(store()) == {"x": "1", "y": "2"}

    def test_the_epoch_stays(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        epoch = a.head(deadline=soon()).epoch
        write(a, x="2")
        assert epoch
        assert store().head(deadline=soon()).epoch == epoch

    def test_namespaces_are_apart(self, store: OpenStore) -> None:
        write(store(), x="1")
        other = store("other")
        assert bodies(other) == {}
        assert write(other, x="9").gen == 1
        assert bodies(store()) == {"x": "1"}

    def test_a_revision_has_the_number_of_its_generation(self, store: OpenStore) -> None:
        a = store()
        write(a, y="1")
        write(a, x="1")
        write(a, x="2")
        pinned = a.read(["config/x"], deadline=soon()).objects["config/x"]
        assert (pinned.rev, pinned.parent, pinned.who, pinned.body) == (3, 2, "ada", b"2")
        assert a.revision("config/x", 2, deadline=soon()).body == b"1"

    def test_an_equal_body_makes_no_generation(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        again = write(a, x="1")
        assert (again.gen, again.is_changed, again.was_applied) == (1, False, False)
        assert a.head(deadline=soon()).gen == 1

    def test_only_what_changes_is_in_the_log(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1", y="1")
        write(a, x="1", y="2")
        (entry,) = a.log(1, deadline=soon())
        assert [(d.object, d.before, d.after) for d in entry.diff] == [("config/y", 1, 2)]

    def test_a_log_entry_says_who_and_why_and_what_was_before(self, store: OpenStore) -> None:
        a = store()
        first, second = write(a, x="1"), write(a, x="2")
        one, two = a.log(0, deadline=soon())
        assert (one.op, two.op) == (Op.parse(first.op).id, Op.parse(second.op).id)
        assert (one.prev, two.prev) == ("", one.op)
        assert (two.gen, two.verb, two.who, two.reason) == (2, "set", "ada", "because")
        assert two.at.endswith("Z")
        assert a.head(deadline=soon()).op == two.op

    def test_the_log_is_cut_at_both_ends(self, store: OpenStore) -> None:
        a = store()
        for i in range(4):
            write(a, x=str(i))
        assert [e.gen for e in a.log(1, 3, deadline=soon())] == [2, 3]
        assert a.log(4, deadline=soon()) == []

    def test_a_delete_leaves_a_tombstone(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        assert write(a, x=None).gen == 2
        cut = a.read(["config/x"], deadline=soon())
        assert (cut.objects, cut.deleted) == ({}, {"config/x": 2})
        assert a.revision("config/x", 2, deadline=soon()).body is None
        assert write(a, x=None).is_changed is False

    def test_what_was_deleted_can_be_made_again(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        write(a, x=None)
        again = Change(object="config/x", body=b"2", from_rev=0)
        assert a.commit(Plan(changes=(again,), verb="set"), deadline=soon()).gen == 3
        assert a.revision("config/x", 3, deadline=soon()).parent == 2

    def test_an_old_revision_is_pinned_again_as_it_was(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        write(a, x="2")
        assert a.commit(repin("x", 1, from_rev=2), deadline=soon()).gen == 3
        pinned = a.read(["config/x"], deadline=soon()).objects["config/x"]
        assert (pinned.rev, pinned.body, pinned.pinned_at) == (1, b"1", 3)

    def test_a_tombstone_is_pinned_again(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        write(a, x=None)
        write(a, x="2")
        a.commit(repin("x", 2), deadline=soon())
        assert a.read(prefix="config/", deadline=soon()).deleted == {"config/x": 2}

    def test_a_pin_is_removed_without_a_trace(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        gone = Plan(changes=(Change(object="config/x", unpin=True),), verb="rollback")
        assert a.commit(gone, deadline=soon()).gen == 2
        cut = a.read(["config/x"], deadline=soon())
        assert (cut.objects, cut.deleted) == ({}, {})
        assert a.commit(gone, deadline=soon()).is_changed is False

    def test_a_missing_revision_is_not_found(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1")
        with pytest.raises(NotFound) as caught:
            a.revision("config/x", 7, deadline=soon())
        assert caught.value.reason == "no_such_revision"
        with pytest.raises(NotFound) as caught:
            a.commit(repin("x", 7), deadline=soon())
        assert caught.value.reason == "compacted"

    def test_a_past_generation_is_read_as_it_was(self, store: OpenStore) -> None:
        a = store()
        write(a, x="1", y="1")
        write(a, x="2")
        write(a, y=None, z="1")
        a.commit(repin("x", 1), deadline=soon())
        assert bodies(a, 0) == {}
        assert bodies(a, 1) == {"x": "1", "y": "1"}
        assert bodies(a, 2) == {"x": "2", "y": "1"}
        assert bodies(a, 3) == {"x": "2", "z": "1"}
        assert bodies(a, 4) == bodies(a) == {"x": "1", "z": "1"}
        cut = a.read(["config/y", "config/none"], gen=2, deadline=soon())
        assert list(cut.objects) == ["config/y"]
        assert (cut.head.gen, cut.head.op) == (2, a.log(1, 2, deadline=soon())[0].op)

    def test_a_generation_to_come_is_not_found(self, store: OpenStore) -> None:
        with pytest.raises(NotFound) as caught:
            store().read(gen=1, deadline=soon())
        assert caught.value.reason == "no_such_generation"

    def test_a_prefix_is_not_a_pattern(self, store: OpenStore) -> None:
        a = store()
        write(a, **{"a%/x": "1", "a_/x": "2", "ä": "3", "A": "4"})
        assert list(a.read(prefix="config/a_", deadline=soon()).objects) == ["config/a_/x"]
        assert len(a.read(prefix="config/", deadline=soon()).objects) == 4

    def test_history_is_trimmed_and_what_is_pinned_stays(self, store: OpenStore) -> None:
        if not self.retention:
            pytest.skip("a thousand commits take too long here")
        a = store()
        first = new_op(a.head(deadline=soon()))
        a.commit(plan(kept="1", x="0"), op=str(first), deadline=soon())
        for i in range(1, RETENTION + 2):
            write(a, x=str(i))
        head = a.head(deadline=soon())
        assert (head.gen, head.floor) == (RETENTION + 2, 2)
        assert [e.gen for e in a.log(0, deadline=soon())] == list(range(3, RETENTION + 3))
        assert bodies(a, 2) == {"kept": "1", "x": "1"}
        assert a.revision("config/kept", 1, deadline=soon()).body == b"1"
        with pytest.raises(NotFound) as caught:
            a.revision("config/x", 1, deadline=soon())
        assert caught.value.reason == "compacted"
        with pytest.raises(NotFound) as caught:
            a.read(gen=1, deadline=soon())
        assert caught.value.reason == "compacted"
        with pytest.raises(Unavailable) as lost:
            a.commit(plan(kept="1", x="0"), op=str(first), deadline=soon())
        assert (lost.value.reason, lost.value.executed) == ("outcome_unknown", "maybe")

    # Conflicts, refusals, operations

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

    # Records and sessions

    def test_a_record_is_listed_by_name_and_prefix(self, store: OpenStore) -> None:
        a = store()
        for name in ("b/1", "a/2", "a/1"):
            a.put("kind", name, name.encode(), deadline=soon())
        a.put("other", "a/3", b"", deadline=soon())
        assert names(store(), "kind") == ["a/1", "a/2", "b/1"]
        (record, _) = store().list("kind", "a/", deadline=soon())
        assert (record.kind, record.name, record.body, record.session) == (
            "kind",
            "a/1",
            b"a/1",
            "",
        )

    def test_records_are_apart_from_generations(self, store: OpenStore) -> None:
        a = store()
        a.put("kind", "a", b"", deadline=soon())
        assert a.head(deadline=soon()).gen == 0
        assert names(store("other"), "kind") == []

    def test_a_persistent_record_outlives_its_writer(self, store: OpenStore) -> None:
        a = store()
        keeper = store()
        keeper.head(deadline=soon())
        a.put("iface", "greeter/1.0.0", b"{}", deadline=soon())
        a.close()
        assert names(keeper, "iface") == ["greeter/1.0.0"]

    def test_a_persistent_record_is_overwritten_and_deleted(self, store: OpenStore) -> None:
        a = store()
        a.put("kind", "a", b"1", deadline=soon())
        store().put("kind", "a", b"2", deadline=soon())
        assert a.list("kind", deadline=soon())[0].body == b"2"
        assert store().delete("kind", "a", deadline=soon()) is True
        assert a.delete("kind", "a", deadline=soon()) is False

    def test_a_new_record_does_not_replace_a_persistent_one(self, store: OpenStore) -> None:
        a = store()
        a.put("kind", "a", b"1", is_new=True, deadline=soon())
        with pytest.raises(AlreadyExists) as caught:
            a.put("kind", "a", b"2", is_new=True, deadline=soon())
        assert caught.value.reason == "duplicate_id"

    def test_a_closed_session_takes_its_records_along(self, store: OpenStore) -> None:
        a = store()
        session = a.open_session(deadline=soon())
        a.put("inst", "a", b"", session=session, deadline=soon())
        a.put("iface", "a", b"", deadline=soon())
        (record,) = store().list("inst", deadline=soon())
        assert record.session == session.id
        session.close()
        session.close()
        assert names(store(), "inst") == []
        assert names(store(), "iface") == ["a"]

    def test_a_closed_store_ends_its_sessions(self, store: OpenStore) -> None:
        a, b = store(), store()
        a.put("inst", "a", b"", session=a.open_session(deadline=soon()), deadline=soon())
        assert names(b, "inst") == ["a"]
        a.close()
        a.close()
        assert names(b, "inst") == []

    def test_two_sessions_cannot_hold_one_name(self, store: OpenStore) -> None:
        a, b = store(), store()
        one, two = a.open_session(deadline=soon()), b.open_session(deadline=soon())
        a.put("inst", "a", b"1", session=one, is_new=True, deadline=soon())
        for is_new in (True, False):
            with pytest.raises(AlreadyExists) as caught:
                b.put("inst", "a", b"2", session=two, is_new=is_new, deadline=soon())
            assert caught.value.reason == "duplicate_id"
            with pytest.raises(AlreadyExists):
                b.put("inst", "a", b"2", is_new=is_new, deadline=soon())
        assert a.list("inst", deadline=soon())[0].body == b"1"

    def test_a_session_overwrites_its_own_record(self, store: OpenStore) -> None:
        a = store()
        session = a.open_session(deadline=soon())
        a.put("inst", "a", b"1", session=session, is_new=True, deadline=soon())
        a.put("inst", "a", b"2", session=session, is_new=True, deadline=soon())
        a.put("inst", "a", b"3", session=session, deadline=soon())
        assert a.list("inst", deadline=soon())[0].body == b"3"

    def test_a_name_is_free_once_its_session_ended(self, store: OpenStore) -> None:
        a, b = store(), store()
        one, two = a.open_session(deadline=soon()), b.open_session(deadline=soon())
        a.put("inst", "a", b"1", session=one, deadline=soon())
        one.close()
        b.put("inst", "a", b"2", session=two, is_new=True, deadline=soon())
        assert b.list("inst", deadline=soon())[0].session == two.id

    def test_a_session_deletes_only_its_own(self, store: OpenStore) -> None:
        a = store()
        one, two = a.open_session(deadline=soon()), a.open_session(deadline=soon())
        a.put("inst", "a", b"", session=one, deadline=soon())
        assert a.delete("inst", "a", session=two, deadline=soon()) is False
        assert a.delete("inst", "a", session=one, deadline=soon()) is True
        assert names(a, "inst") == []

    def test_an_ended_session_writes_no_more(self, store: OpenStore) -> None:
        a = store()
        session = a.open_session(deadline=soon())
        was_alive = session.is_alive
        session.close()
        assert (was_alive, session.is_alive) == (True, False)
        with pytest.raises(Unavailable) as caught:
            a.put("inst", "a", b"", session=session, deadline=soon())
        assert caught.value.reason == "session_lost"

    def test_a_lost_session_is_told_once_and_its_records_go(self, store: OpenStore) -> None:
        a, b = store(), store()
        told = threading.Event()
        session = a.open_session(on_lost=told.set, deadline=soon())
        a.put("inst", "a", b"", session=session, deadline=soon())
        self.lose(a, session)
        assert told.wait(PATIENCE)
        assert not session.is_alive
        assert names(b, "inst") == []

    def test_too_large_a_record_is_refused(self, store: OpenStore) -> None:
        with pytest.raises(InvalidArgument) as caught:
            store().put("kind", "a", b"x" * (LIMIT + 1), deadline=soon())
        assert caught.value.reason == "payload_too_large"

    # Watches

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
