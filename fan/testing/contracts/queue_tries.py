"""Behaviours 18 and 26 over a broker: what counts as a delivery, and how many run at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fan.app import App
from fan.model import QueueName
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import World
from fan.testing.contracts.queue_harness import PUSHES, QueueHarness, until
from fan.testing.contracts.queue_probe import ALL, SHARED, Seen, inbox

Face = Callable[[Any], Caller]

#: Refusals after which a message would be dead, and one more, if they were deliveries.
MORE = 3


class Tries(QueueHarness):
    """Messages that are not run at once, or not in one go."""

    @pytest.mark.parametrize(("method", "topic"), [("take", ""), ("share", SHARED), ("hear", ALL)])
    def test_what_a_full_service_refuses_is_not_delivered_and_runs_once_there_is_room(
        self, client: App, world: World, face: Face, method: str, topic: str
    ) -> None:
        service = inbox()
        app = world.serve(service, bulkhead_requests=1, deliveries=MORE - 1, workers=4)
        sender = self.sender_of(face, client)
        sender.push("inbox.keep", "held")
        service.wait_seen()
        if topic:
            face(client).publish(topic, "waits")
        else:
            sender.push(f"inbox.{method}", "waits")
        until(lambda: refused(app, method) >= MORE)
        service.gate("held").set()
        assert service.wait_seen() == Seen(method, "waits", 0)
        name = QueueName(topic=topic, group="inbox") if topic == SHARED else PUSHES
        self.settle(client, name)
        assert self.letters(client, name, dead=True) == []
        assert service.runs[method] == 1

    @pytest.mark.parametrize("method", ["keep", "keep_async"])
    def test_no_more_handlers_run_at_a_time_than_there_are_workers(
        self, client: App, world: World, face: Face, method: str
    ) -> None:
        service = inbox()
        app = world.serve(service, workers=2, bulkhead_requests=2)
        sender = self.sender_of(face, client)
        for n in range(6):
            sender.push(f"inbox.{method}", n)
        begun = service.wait_tags(2)
        assert self.look(client).ready in (4, None)
        for _ in range(4):
            service.gate(begun.pop(0)).set()
            begun += service.wait_tags(1)
        service.release()
        self.settle(client)
        assert service.runs[method] == 6
        assert refused(app, method) == 0

    def test_a_plain_handler_that_does_not_come_back_keeps_neither_its_message_nor_its_place(
        self, client: App, world: World, face: Face
    ) -> None:
        service = inbox()
        world.serve(service, workers=1, deliveries=2)
        sender = self.sender_of(face, client)
        sender.push("inbox.stall", "hung")
        assert service.wait_seen() == Seen("stall", "hung", 0)
        (letter,) = self.dead(client)
        assert (letter.request.method, letter.deliveries) == ("stall", 2)
        for n in range(3):
            sender.push("inbox.take", n)
        assert service.wait_tags(3) == [0, 1, 2]
        service.gate("hung").set()
        self.settle(client)
        assert len(self.letters(client, dead=True)) == 1

    def test_a_plain_handler_that_comes_back_late_has_handled_its_message(
        self, client: App, world: World, face: Face, caplog: pytest.LogCaptureFixture
    ) -> None:
        service = inbox()
        world.serve(service, workers=1, deliveries=100)
        self.sender_of(face, client).push("inbox.stall", "slow")
        service.wait_seen()
        until(lambda: "a handler of inbox.stall has not come back" in caplog.text)
        service.gate("slow").set()
        self.settle(client)
        assert service.runs["stall"] == 1
        assert self.letters(client, dead=True) == []


def refused(app: App, method: str) -> int:
    """How many requests of a method found no room."""
    assert app.metrics is not None
    return sum(
        row.count
        for row in app.metrics.snapshot()
        if (row.side, row.method, row.code) == ("request", method, "resource_exhausted")
    )
