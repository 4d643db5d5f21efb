"""Behaviours 20, 26 and 28 over a broker: what becomes of a push."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fan import push
from fan.app import App
from fan.context import new_id
from fan.errors import NotFound, ResourceExhausted, Unimplemented
from fan.message import JSON
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import World
from fan.testing.contracts.probe import BOUND
from fan.testing.contracts.queue_harness import QueueHarness, until
from fan.testing.contracts.queue_probe import Inbox, Seen, inbox

Face = Callable[[Any], Caller]


class Pushes(QueueHarness):
    """One service, one queue, and who takes from it."""

    def test_a_push_returns_once_accepted_and_is_handled_once(
        self, client: App, sender: Caller, box: Inbox
    ) -> None:
        sender.push("inbox.keep", "kept")  # returns though the handler waits
        assert box.wait_seen() == Seen("keep", "kept", 0)
        box.gate("kept").set()
        self.settle(client)
        assert box.runs["keep"] == 1

    @pytest.mark.parametrize("method", ["take", "take_async"])
    def test_plain_and_async_handlers_are_pushed_to(
        self, client: App, sender: Caller, box: Inbox, method: str
    ) -> None:
        for n in range(10):
            sender.push(f"inbox.{method}", n)
        assert sorted(box.wait_tags(10)) == list(range(10))
        self.settle(client)
        assert box.runs[method] == 10

    @pytest.mark.parametrize("method", ["refuse", "refuse_async"])
    def test_a_push_that_always_fails_is_delivered_n_times_and_then_a_dead_letter(
        self, client: App, sender: Caller, box: Inbox, method: str
    ) -> None:
        sender.push(f"inbox.{method}", "tea")
        (letter,) = self.dead(client)
        assert [box.wait_seen().attempt for _ in range(3)] == [0, 1, 2]
        assert box.runs[method] == 3
        assert (letter.request.service, letter.request.method) == ("inbox", method)
        assert letter.request.body == b'["tea"]'
        assert letter.deliveries == 3
        assert letter.error.startswith("unknown")
        assert "there is no place for tea" in letter.error

    def test_a_dead_letter_stands_in_the_log(
        self, client: App, sender: Caller, box: Inbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        sender.push("inbox.refuse", "bad")
        (letter,) = self.dead(client)
        (told,) = [r.getMessage() for r in caplog.records if "is dead after" in r.getMessage()]
        assert told.endswith(f"is dead after 3 deliveries: {letter.error}")

    def test_a_push_that_fails_at_first_is_handled_in_the_end(
        self, client: App, sender: Caller, box: Inbox
    ) -> None:
        sender.push("inbox.falter", "tea", failures=2)
        assert [box.wait_seen().attempt for _ in range(3)] == [0, 1, 2]
        self.settle(client)
        assert self.letters(client, dead=True) == []
        assert box.runs["falter"] == 3

    def test_a_push_that_fails_does_not_keep_the_others(
        self, client: App, sender: Caller, box: Inbox
    ) -> None:
        sender.push("inbox.refuse", "bad")
        for n in range(20):
            sender.push("inbox.take", n)
        seen = [box.wait_seen() for _ in range(23)]
        assert sorted(one.tag for one in seen if one.method == "take") == list(range(20))
        assert [one.attempt for one in seen if one.method == "refuse"] == [0, 1, 2]
        assert [letter.request.method for letter in self.dead(client)] == ["refuse"]

    def test_a_handler_that_takes_longer_than_its_time_has_failed(
        self, client: App, sender: Caller, box: Inbox
    ) -> None:
        sender.push("inbox.overrun", "slow")
        (letter,) = self.dead(client)
        assert [box.wait_seen().attempt for _ in range(3)] == [0, 1, 2]
        assert letter.error.startswith("deadline_exceeded")

    def test_a_push_that_nobody_can_handle_is_a_dead_letter(
        self, client: App, sender: Caller, box: Inbox
    ) -> None:
        sender.push("inbox.falter", "no failures")
        (letter,) = self.dead(client)
        assert letter.error.startswith("invalid_argument/bad_signature")
        assert box.runs["falter"] == 0

    def test_a_push_of_which_nobody_knows_the_method_any_more_is_a_dead_letter(
        self, client: App, world: World, box: Inbox
    ) -> None:
        transport = client.transport(self.scheme)
        request = world.request("inbox.nothing", b"[]", id=new_id(), kind="push")
        assert transport.send(transport.home(), request).code == "ok"
        (letter,) = self.dead(client)
        assert letter.error.startswith("unimplemented/unknown_method")

    @pytest.mark.parametrize("is_up", [True, False])
    def test_a_push_to_a_method_that_the_service_does_not_have_is_refused_and_not_sent(
        self, client: App, world: World, face: Face, is_up: bool
    ) -> None:
        service = inbox()
        app, sender = world.serve(service), self.sender_of(face, client)
        sender.push("inbox.take")  # the queue is there
        service.wait_seen()  # what is in hand only would be left to others
        self.settle(client)
        if not is_up:
            app.stop(BOUND)
        with pytest.raises(Unimplemented, match="did you mean take") as info:
            sender.push("inbox.tak")
        assert (info.value.reason, info.value.executed) == ("unknown_method", "no")
        assert info.value.target == "inbox.tak"
        queue = self.look(client)
        assert (queue.ready, queue.in_flight or 0, queue.dead) == (0, 0, 0)

    def test_a_method_that_came_with_the_routed_version_can_be_pushed_to(
        self, client: App, world: World, face: Face
    ) -> None:
        old, new = inbox(version="1.0.0"), inbox(version="2.0.0")
        type(new).added = push(_added)  # type: ignore[attr-defined]
        former = world.serve(old)
        app, sender = world.serve(new), self.sender_of(face, client)
        with pytest.raises(Unimplemented):
            sender.push("inbox.added", "early")
        former.stop(BOUND)
        app.discovery.adopt("inbox", "2.0.0", force=True)
        sender.push("inbox.added", "now")  # what is known of the route may be old: it looks again
        assert new.wait_seen().tag == "now"

    def test_what_is_known_of_an_accepted_push_has_the_generation_of_its_route(
        self, client: App, box: Inbox
    ) -> None:
        sender = client.using(transport=self.scheme)
        result = sender.request("inbox", "take", JSON, b'["known"]', kind="push")
        assert box.wait_seen().tag == "known"
        assert result.gen == client.discovery.gen > 0

    def test_a_push_to_a_service_that_is_down_waits_until_it_is_up(
        self, client: App, world: World, face: Face
    ) -> None:
        gone = inbox()
        world.serve(gone).stop(BOUND)
        sender = self.sender_of(face, client)
        for n in range(3):
            sender.push("inbox.take", n)
        assert self.look(client).ready == 3
        back = inbox()
        world.serve(back)
        assert sorted(back.wait_tags(3)) == [0, 1, 2]
        assert gone.runs["take"] == 0

    def test_a_push_to_a_service_that_was_never_there_is_not_found(self, sender: Caller) -> None:
        with pytest.raises(NotFound) as info:
            sender.push("nobody.take", 1)
        assert info.value.reason == "no_such_service"

    def test_pushes_begin_in_the_order_in_which_they_were_accepted(
        self, client: App, world: World, face: Face
    ) -> None:
        service = inbox()
        app = world.serve(service, workers=1)
        app.stop(BOUND)
        sender = self.sender_of(face, client)
        for n in range(20):
            sender.push("inbox.take", n)
        again = inbox()
        world.serve(again, workers=1)
        assert again.wait_tags(20) == list(range(20))

    def test_pushes_run_at_the_same_time(self, sender: Caller, box: Inbox) -> None:
        box.barrier = threading.Barrier(4)
        for n in range(4):
            sender.push("inbox.gather", n)
        assert sorted(box.wait_tags(4)) == [0, 1, 2, 3]

    def test_only_the_routed_version_takes_pushes(
        self, client: App, world: World, face: Face
    ) -> None:
        old, new = inbox(version="1.0.0"), inbox(version="2.0.0")
        world.serve(old)
        app = world.serve(new)
        sender = self.sender_of(face, client)
        for n in range(20):
            sender.push("inbox.take", n)
        assert sorted(old.wait_tags(20)) == list(range(20))
        assert new.runs["take"] == 0
        app.discovery.adopt("inbox", "2.0.0", force=True)
        push_until_all_go_to(new, old, sender)
        assert new.runs["take"] >= 20

    def test_of_two_versions_in_one_process_the_routed_one_takes_pushes(
        self, client: App, world: World, face: Face
    ) -> None:
        old, new = inbox(version="1.0.0"), inbox(version="2.0.0")
        world.serve(new, old).discovery.adopt("inbox", "1.0.0", force=True)
        sender = self.sender_of(face, client)
        push_until_all_go_to(old, new, sender)
        before = old.runs["take"], new.runs["take"]
        for n in range(20):
            sender.push("inbox.take", n)
        until(lambda: old.runs["take"] + new.runs["take"] == sum(before) + 20)
        assert new.runs["take"] == before[1]

    def test_each_push_is_handled_by_one_of_several_instances(
        self, client: App, world: World, face: Face
    ) -> None:
        boxes = [inbox() for _ in range(3)]
        for box in boxes:
            world.serve(box, workers=2)
        sender = self.sender_of(face, client)
        for n in range(60):
            sender.push("inbox.take", n)
        self.settle(client)
        until(lambda: sum(box.runs["take"] for box in boxes) == 60)
        tags = [tag for box in boxes for tag in box.wait_tags(box.runs["take"])]
        assert sorted(tags) == list(range(60))

    def test_a_push_that_is_older_than_its_ttl_never_runs_and_is_a_dead_letter(
        self, client: App, world: World, face: Face
    ) -> None:
        world.serve(inbox()).stop(BOUND)
        sender = self.sender_of(face, client)
        sender.using(ttl=0.05).push("inbox.take", "old")
        sender.using(ttl=60.0).push("inbox.take", "fresh")
        threading.Event().wait(0.1)  # the ttl itself
        service = inbox()
        world.serve(service)
        assert service.wait_seen().tag == "fresh"
        (letter,) = self.dead(client)
        assert letter.request.body == b'["old"]'
        assert letter.error.startswith("deadline_exceeded/expired_in_queue")
        assert service.runs["take"] == 1

    def test_a_push_has_the_time_of_its_delivery_not_of_its_sender(
        self, client: App, world: World, face: Face
    ) -> None:
        world.serve(inbox()).stop(BOUND)
        self.sender_of(face, client).using(timeout=5.0).push("inbox.tell")
        service = inbox()
        world.serve(service, push_timeout=70.0)
        assert service.told.get(timeout=2 * BOUND)["remaining"] > 60.0

    def test_a_handler_knows_who_pushed_and_why(self, sender: Caller, box: Inbox) -> None:
        options = {"headers": {"x-one": "1"}, "baggage": {"who": "Ada"}, "key": "the-key"}
        sender.using(caller="till", **options).push("inbox.tell")
        told = box.told.get(timeout=2 * BOUND)
        assert told["headers"] == {"x-one": "1"}
        assert told["baggage"] == {"who": "Ada"}
        assert (told["caller"], told["key"], told["attempt"]) == ("till", "the-key", 0)
        assert len(told["trace_id"]) == 32

    def test_a_push_that_is_too_large_is_refused_before_it_is_sent(
        self, world: World, box: Inbox, face: Face
    ) -> None:
        sender = self.sender_of(face, world.client(max_body=1000))
        with pytest.raises(ResourceExhausted) as info:
            sender.push("inbox.take", "x" * 2000)
        assert (info.value.reason, info.value.executed) == ("payload_too_large", "no")
        sender.push("inbox.take", "small")
        assert box.wait_seen().tag == "small"

    def test_the_same_key_runs_once_in_one_process(
        self, client: App, world: World, box: Inbox
    ) -> None:
        transport = client.transport(self.scheme)
        for n in range(3):
            key = {"id": new_id(), "key": "once", "kind": "push"}
            request = world.request("inbox.take", b'["once"]', **key)
            assert transport.send(transport.home(), request).code == "ok"
            other = msgspec.structs.replace(request, id=new_id(), key="", body=b"[%d]" % n)
            assert transport.send(transport.home(), other).code == "ok"
        seen = Counter(box.wait_tags(4))
        self.settle(client)
        assert seen == {"once": 1, 0: 1, 1: 1, 2: 1}
        assert box.runs["take"] == 4

    def test_a_stop_under_load_loses_no_push_and_runs_none_twice(
        self, client: App, world: World, face: Face
    ) -> None:
        leaving, staying = inbox(), inbox()
        app = world.serve(leaving, workers=4)
        world.serve(staying, workers=4)
        sender = self.sender_of(face, client)
        sender.push("inbox.take", -1)
        stopping = threading.Thread(target=app.stop, args=(4 * BOUND,))
        for n in range(300):
            sender.push("inbox.take", n)
            if n == 100:
                stopping.start()
        stopping.join(4 * BOUND)
        until(lambda: leaving.runs["take"] + staying.runs["take"] >= 301)
        self.settle(client)
        done = Counter(leaving.wait_tags(leaving.runs["take"]))
        done.update(staying.wait_tags(staying.runs["take"]))
        assert done == Counter(range(-1, 300))

    def test_a_stop_waits_for_a_push_in_hand(self, client: App, world: World, face: Face) -> None:
        leaving, staying = inbox(), inbox()
        app = world.serve(leaving)
        sender = self.sender_of(face, client)
        sender.push("inbox.keep", "held")
        leaving.wait_seen()
        world.serve(staying)
        stopping = threading.Thread(target=app.stop, args=(4 * BOUND,))
        stopping.start()
        sender.push("inbox.take", "later")
        until(lambda: leaving.runs["take"] + staying.runs["take"])
        leaving.gate("held").set()
        stopping.join(4 * BOUND)
        self.settle(client)
        assert (leaving.runs["keep"], staying.runs["keep"]) == (1, 0)

    def test_a_push_that_outlasts_a_stop_goes_to_another_instance(
        self, client: App, world: World, face: Face
    ) -> None:
        leaving, staying = inbox(), inbox()
        app = world.serve(leaving)
        sender = self.sender_of(face, client)
        sender.push("inbox.keep", "stuck")
        leaving.wait_seen()
        world.serve(staying)
        app.stop(0.1)
        assert staying.wait_seen().tag == "stuck"
        leaving.release()  # its late end is no acknowledgement of the other's delivery
        assert self.look(client).in_flight in (1, None)
        staying.release()
        self.settle(client)
        assert self.letters(client, dead=True) == []

    def test_a_thousand_pushes_need_no_more_threads_or_descriptors(
        self, client: App, world: World, face: Face
    ) -> None:
        service = inbox()
        world.serve(service, workers=4)
        sender = self.sender_of(face, client)
        counts = []
        sender.loop.fill()
        _fill(client)
        service.barrier = threading.Barrier(4)  # threads that start when they are needed are there
        for i in range(4):
            sender.push("inbox.gather", i)
        service.wait_tags(4)
        for n in (200, 1000):
            for i in range(n):
                sender.push("inbox.take", i)
            service.wait_tags(n)
            self.settle(client)
            counts.append((sorted(thread.name for thread in threading.enumerate()), _descriptors()))
        (names, files), (names_after, files_after) = counts
        assert len(names_after) <= len(names), f"{names_after} after {names}"
        assert files_after <= files


def push_until_all_go_to(routed: Inbox, other: Inbox, sender: Caller) -> None:
    """Push until all follow the route: twenty in a row went there. Each is waited for where it
    runs, since not every broker says what is in hand. Bounded by the test's time limit."""
    in_a_row = 0
    while in_a_row < 20:
        before = routed.runs["take"], other.runs["take"]
        sender.push("inbox.take", "moved")
        until(lambda b=before: routed.runs["take"] + other.runs["take"] > sum(b))  # type: ignore[misc]
        in_a_row = in_a_row + 1 if other.runs["take"] == before[1] else 0


def _added(self: Inbox, tag: Any = None) -> None:
    self._see("added", tag)


def _fill(app: App) -> None:
    """Have every thread of its pool there: it begins another one where the last has told its
    outcome and not yet come back for more, which is a matter of moments."""
    barrier = threading.Barrier(app.settings.workers)
    waiting = [app.pool.submit(barrier.wait, BOUND) for _ in range(app.settings.workers)]
    for each in waiting:
        each.result(BOUND)


def _descriptors() -> int:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return len(os.listdir(folder))
