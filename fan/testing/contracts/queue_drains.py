"""Behaviour 28 over a broker: what a worker that drains leaves to others, and what it still
runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from fan.app import App
from fan.model import QueueName
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import World
from fan.testing.contracts.probe import BOUND
from fan.testing.contracts.queue_harness import PUSHES, QueueHarness, until
from fan.testing.contracts.queue_probe import ALL, SHARED, Inbox, Seen, inbox

Face = Callable[[Any], Caller]
Tell = Callable[[str, Any], None]

both = pytest.mark.parametrize("topic", ["", SHARED], ids=["push", "event"])

#: Seconds that a message stays with a worker that shows no sign of life: what such a one keeps
#: comes to nobody while a test runs.
LONG = 600.0
#: Drains of one test, each at another moment.
ROUNDS = 8


class Drains(QueueHarness):
    """A worker that drains for as long as the test wants: a push in hand keeps it from its end."""

    def busy(self, world: World, sender: Caller, **settings: Any) -> tuple[App, Inbox]:
        """A worker with `held` in hand."""
        service = inbox()
        app = world.serve(service, lease=LONG, **settings)
        sender.push("inbox.keep", "held")
        assert service.wait_seen() == Seen("keep", "held", 0)
        return app, service

    @pytest.fixture
    def tell(self, client: App, face: Face) -> Tell:
        """Pushes to `inbox.take`, or publishes to a topic."""
        sender = self.sender_of(face, client)

        def tell(topic: str, tag: Any) -> None:
            if topic:
                face(client).publish(topic, tag)
            else:
                sender.push("inbox.take", tag)

        return tell

    @pytest.fixture
    def sender(self, client: App, face: Face) -> Caller:
        return self.sender_of(face, client)

    @both
    def test_a_drained_worker_leaves_what_it_did_not_begin_to_others_at_once(
        self, client: App, world: World, sender: Caller, tell: Tell, topic: str
    ) -> None:
        app, leaving = self.busy(world, sender, workers=1, deliveries=1)
        for n in range(5):
            tell(topic, n)
        assert app.drain(0.0) is False
        staying = inbox()
        world.serve(staying, lease=LONG, deliveries=1)
        until(lambda: taken(leaving) + taken(staying) >= 5)  # the other one is still there
        seen = {one.wait_seen() for one in (leaving, staying) for _ in range(taken(one))}
        assert seen == {Seen("share" if topic else "take", n, 0) for n in range(5)}
        assert topic or not taken(leaving)  # an event may find a place beside a push
        leaving.release()
        app.stop(BOUND)
        self.settle(client)
        assert taken(leaving) + taken(staying) == 5

    @both
    @pytest.mark.parametrize("room", [{}, {"bulkhead_requests": 1}], ids=["room", "no-room"])
    def test_a_drain_at_any_moment_keeps_nothing_from_others(
        self,
        client: App,
        world: World,
        sender: Caller,
        tell: Tell,
        topic: str,
        room: dict[str, int],
    ) -> None:
        for turn in range(ROUNDS):
            app, leaving = self.busy(world, sender, workers=1 + turn % 4, **room)
            telling = threading.Thread(target=tell_all, args=(tell, topic, 10))
            telling.start()
            telling.join(turn % 5 * 0.004)  # the moment itself
            assert app.drain(0.0) is False
            telling.join(BOUND)
            staying = inbox()
            other = world.serve(staying, lease=LONG)
            until(lambda a=leaving, b=staying: taken(a) + taken(b) >= 10)  # type: ignore[misc]
            tags = leaving.wait_tags(taken(leaving)) + staying.wait_tags(taken(staying))
            assert sorted(tags) == list(range(10))
            assert not room or not taken(leaving)
            leaving.release()
            app.stop(BOUND)
            for name in (PUSHES, QueueName(topic=topic, group="inbox"))[: 1 + bool(topic)]:
                self.settle(client, name)
            other.stop(BOUND)
            assert taken(leaving) + taken(staying) == 10

    def test_an_event_for_each_that_a_drained_worker_did_not_begin_is_not_run_by_it(
        self, world: World, sender: Caller, tell: Tell
    ) -> None:
        app, leaving = self.busy(world, sender, workers=1)
        tell(ALL, "early")
        assert app.drain(0.0) is False
        tell(ALL, "late")
        leaving.release()
        app.stop(BOUND)
        assert leaving.wait_tags(leaving.runs["hear"]) in ([], ["early"])

    @both
    def test_no_handler_begins_once_its_service_has_stopped(
        self, world: World, tell: Tell, topic: str
    ) -> None:
        ran: list[Any] = []
        for turn in range(2 * ROUNDS):
            service = Leaving()
            app = world.serve(service, lease=LONG, workers=1 + turn % 4)
            tell(topic, turn)
            app.stop(BOUND)
            assert service.told.get(timeout=BOUND) == service.happened
            assert service.happened.pop() == "stopped"
            ran += service.happened
        last = inbox()
        world.serve(last, lease=LONG)
        until(lambda: len(ran) + taken(last) >= 2 * ROUNDS)
        assert sorted([*ran, *last.wait_tags(taken(last))]) == list(range(2 * ROUNDS))


class Leaving(Inbox):
    """Notes what it takes, and in `told` what that was when it stopped."""

    name = "inbox"
    version = "1.0.0"

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[Any] = []

    def _see(self, method: str, tag: Any) -> int:
        self.happened.append(tag)
        return super()._see(method, tag)

    def service_stop(self) -> None:
        """Note it."""
        self.happened.append("stopped")
        self.told.put([*self.happened])


def tell_all(tell: Tell, topic: str, n: int) -> None:
    """So many of them."""
    for tag in range(n):
        tell(topic, tag)


def taken(service: Inbox) -> int:
    """How many pushes and events reached it, but for `held`."""
    return service.runs["take"] + service.runs["share"]
