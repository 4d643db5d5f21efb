"""The contract of a store: generations, their revisions, and their history."""

from __future__ import annotations

import pytest

from fan.errors import NotFound, Unavailable
from fan.stores.base import RETENTION, Change, Op, Plan, new_op
from fan.testing.contracts.store_harness import (
    OpenStore,
    StoreHarness,
    bodies,
    plan,
    repin,
    soon,
    write,
)


class Generations(StoreHarness):
    """Commits make dense generations of immutable revisions, read as of any that is kept."""

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
