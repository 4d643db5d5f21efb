"""The contract of a store: records outside of the generations, and sessions."""

from __future__ import annotations

import threading

import pytest

from fan.errors import AlreadyExists, InvalidArgument, Unavailable
from fan.stores.base import LIMIT
from fan.testing.contracts.store_harness import PATIENCE, OpenStore, StoreHarness, names, soon


class Records(StoreHarness):
    """Records are there until they are deleted, or their session is over."""

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
