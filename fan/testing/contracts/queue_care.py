"""A broker's queues as `Transport.queues` shows them, and what `Transport.ledger` remembers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from fan.app import App
from fan.errors import FailedPrecondition, NotFound
from fan.model import QueueName
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import World, needs
from fan.testing.contracts.probe import BOUND
from fan.testing.contracts.queue_harness import PUSHES, QueueHarness, soon, until
from fan.testing.contracts.queue_probe import SHARED, Ear, Inbox, inbox

Face = Callable[[Any], Caller]

NOBODY = QueueName("nobody")
READERS = QueueName(topic="contract.news", group="readers")


class Care(QueueHarness):
    """Listing, looking, putting back, throwing away. None of it needs the async face."""

    @pytest.fixture
    def waiting(self, world: World, client: App) -> App:
        """Three pushes wait: 0, 1, 2."""
        world.serve(inbox()).stop(BOUND)
        for n in range(3):
            client.using(transport=self.scheme).push("inbox.take", n)
        return client

    @pytest.fixture
    def refused(self, client: App, box: Inbox) -> App:
        """Three pushes are dead letters: 0, 1, 2."""
        for n in range(3):
            client.using(transport=self.scheme).push("inbox.falter", n, failures=3)
        self.dead(client, 3)
        return client

    def test_a_queue_is_listed_with_what_waits_in_it(self, waiting: App) -> None:
        queue = self.look(waiting)
        assert (queue.name, queue.ready, queue.dead) == (PUSHES, 3, 0)
        assert queue.in_flight in (0, None)
        assert queue.consumers in (0, None)
        assert queue.oldest is None or 0 <= queue.oldest < 10 * BOUND

    def test_what_is_in_hand_is_not_what_waits(self, client: App, box: Inbox) -> None:
        client.using(transport=self.scheme).push("inbox.keep", "held")
        box.wait_seen()
        queue = self.look(client)
        assert queue.ready == 0
        assert queue.in_flight in (1, None)
        assert queue.consumers is None or queue.consumers >= 1
        box.gate("held").set()
        self.settle(client)

    def test_dead_letters_are_counted(self, refused: App) -> None:
        queue = self.look(refused)
        assert (queue.ready, queue.dead) == (0, 3)

    def test_queues_that_exist_are_listed_and_others_are_not(self, client: App, box: Inbox) -> None:
        client.using(transport=self.scheme).push("inbox.take", 1)
        box.wait_seen()
        wanted = [PUSHES, NOBODY, QueueName(topic=SHARED, group="inbox")]
        found = [queue.name for queue in self.queues(client).list(wanted, deadline=soon())]
        assert PUSHES in found
        assert wanted[2] in found
        assert NOBODY not in found
        assert found == sorted(found, key=str)

    def test_letters_show_what_waits_and_leave_it(self, waiting: App) -> None:
        for _ in range(2):
            letters = self.letters(waiting)
            assert [letter.request.body for letter in letters] == [b"[0]", b"[1]", b"[2]"]
            assert len({letter.number for letter in letters}) == 3
            assert {(one.request.service, one.request.method) for one in letters} == {
                ("inbox", "take")
            }
            assert {letter.error for letter in letters} == {""}
        assert self.look(waiting).ready == 3

    def test_no_more_letters_are_shown_than_asked_for(self, waiting: App) -> None:
        letters = self.queues(waiting).letters(PUSHES, limit=2, deadline=soon())
        assert [letter.request.body for letter in letters] == [b"[0]", b"[1]"]
        assert self.look(waiting).ready == 3

    def test_dead_letters_are_delivered_anew_once_they_are_put_back(
        self, refused: App, box: Inbox
    ) -> None:
        box.wait_tags(9)
        assert self.queues(refused).requeue(PUSHES, deadline=soon()) == 3
        attempts = sorted(tuple(box.wait_seen()) for _ in range(9))
        assert attempts == [("falter", n, attempt) for n in range(3) for attempt in range(3)]
        self.dead(refused, 3)

    def test_one_dead_letter_can_be_put_back(self, refused: App, box: Inbox) -> None:
        box.wait_tags(9)
        chosen = self.letters(refused, dead=True)[1]
        assert self.queues(refused).requeue(PUSHES, [chosen.number], deadline=soon()) == 1
        tag = msgspec.json.decode(chosen.request.body)["args"][0]
        assert {box.wait_seen().tag for _ in range(3)} == {tag}
        until(lambda: len(self.letters(refused, dead=True)) == 3)
        assert self.queues(refused).requeue(PUSHES, ["12345-6"], deadline=soon()) == 0

    def test_what_waits_can_be_thrown_away(self, world: World, waiting: App) -> None:
        assert self.queues(waiting).purge(PUSHES, deadline=soon()) == 3
        assert self.look(waiting).ready == 0
        service = inbox()
        world.serve(service)
        waiting.using(transport=self.scheme).push("inbox.take", "after")
        assert service.wait_seen().tag == "after"

    def test_dead_letters_can_be_thrown_away(self, refused: App) -> None:
        assert self.queues(refused).purge(PUSHES, deadline=soon()) == 0
        assert self.queues(refused).purge(PUSHES, dead=True, deadline=soon()) == 3
        assert self.letters(refused, dead=True) == []
        assert self.look(refused).dead == 0

    def test_events_of_a_group_are_looked_after_alike(self, world: World, client: App) -> None:
        listener, ear = world.client(deliveries=2), Ear(lambda attempt: True)
        with listener.subscribe("contract.news", ear, group="readers"):
            client.publish("contract.news", "bad")
            (letter,) = self.dead(client, 1, READERS)
        assert letter.request.topic == "contract.news"
        client.publish("contract.news", "waits")
        queue = self.look(client, READERS)
        assert (queue.ready, queue.dead) == (1, 1)
        assert [one.request.body for one in self.letters(client, READERS)] == [b'["waits"]']
        assert self.queues(client).requeue(READERS, deadline=soon()) == 1
        sound = Ear()
        with listener.subscribe("contract.news", sound, group="readers"):
            assert {sound.wait() for _ in range(2)} == {"bad", "waits"}
        self.settle(client, READERS)
        assert self.queues(client).purge(READERS, deadline=soon()) == 0

    def test_a_queue_ends_with_what_is_in_it(self, world: World, waiting: App) -> None:
        assert self.queues(waiting).delete(PUSHES, deadline=soon()) == 3
        assert PUSHES not in self._names(waiting, PUSHES)
        service = inbox()
        world.serve(service)
        waiting.using(transport=self.scheme).push("inbox.take", "after")
        assert service.wait_seen().tag == "after"

    def test_a_queue_ends_with_its_dead_letters(self, world: World, client: App) -> None:
        listener, ear = world.client(deliveries=1), Ear(lambda attempt: True)
        with listener.subscribe(READERS.topic, ear, group=READERS.group):
            client.publish(READERS.topic, "bad")
            self.dead(client, 1, READERS)
        self._wait_left(client, READERS)
        assert self.queues(client).delete(READERS, deadline=soon()) == 1
        assert READERS not in self._names(client, READERS)
        with listener.subscribe(READERS.topic, Ear(), group=READERS.group):
            assert self.letters(client, READERS, dead=True) == []

    def test_a_group_that_ended_costs_no_other_its_events(self, world: World, client: App) -> None:
        others = QueueName(topic=READERS.topic, group="others")
        for name in (READERS, others):
            world.client().subscribe(name.topic, Ear(), group=name.group).close()
            self._wait_left(client, name)
        client.publish(READERS.topic, "before")
        until(lambda: self.look(client, others).ready == 1)
        assert self.queues(client).delete(READERS, deadline=soon()) == 1
        client.publish(READERS.topic, "after")
        assert READERS not in self._names(client, READERS)
        ear = Ear()
        with world.client().subscribe(others.topic, ear, group=others.group):
            assert {ear.wait(), ear.wait()} == {"before", "after"}

    def test_a_queue_does_not_end_while_somebody_takes_from_it(
        self, client: App, box: Inbox
    ) -> None:
        for name in (PUSHES, QueueName(topic=SHARED, group="inbox")):
            with pytest.raises(FailedPrecondition) as info:
                self.queues(client).delete(name, deadline=soon())
            assert (info.value.reason, info.value.executed) == ("queue_in_use", "no")
            assert str(name) in info.value.message
        client.using(transport=self.scheme).push("inbox.take", "still")
        assert box.wait_seen().tag == "still"

    def _names(self, client: App, name: QueueName) -> list[QueueName]:
        return [queue.name for queue in self.queues(client).list([name], deadline=soon())]

    def _wait_left(self, client: App, name: QueueName) -> None:
        until(lambda: not self.look(client, name).consumers)

    def test_a_queue_that_was_never_made_is_not_found(self, client: App, box: Inbox) -> None:
        queues = self.queues(client)
        for name in (NOBODY, QueueName(topic="contract.nobody", group="none")):
            for ask in (queues.letters, queues.requeue, queues.purge, queues.delete):
                with pytest.raises(NotFound) as info:
                    ask(name, deadline=soon())
                assert info.value.reason == "no_such_queue"
                assert str(name) in info.value.message


class Answers(QueueHarness):
    """The ledger: one holder makes an answer, all others find it."""

    @needs("ledger")
    def test_one_of_all_claims_a_key(self, world: World, client: App) -> None:
        ledgers = [self._ledger(client), self._ledger(world.client())]
        answers: list[Any] = []
        start = threading.Barrier(8)

        def claim(n: int) -> None:
            start.wait(BOUND)
            ledger = ledgers[n % 2]
            answers.append(ledger.claim("a-key", f"holder-{n}", ttl=60.0, deadline=soon()))

        threads = [threading.Thread(target=claim, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND)
        assert sorted(answers, key=str) == [*[None] * 7, b""]

    @needs("ledger")
    def test_an_answer_is_found_by_all_others(self, world: World, client: App) -> None:
        mine, other = self._ledger(client), self._ledger(world.client())
        assert mine.claim("a-key", "me", ttl=60.0, deadline=soon()) == b""
        mine.settle("a-key", "me", b"\x00the answer\xff", ttl=60.0, deadline=soon())
        for ledger in (other, mine):
            for holder in ("you", "me"):
                found = ledger.claim("a-key", holder, ttl=60.0, deadline=soon())
                assert found == b"\x00the answer\xff"
        assert other.claim("b-key", "you", ttl=60.0, deadline=soon()) == b""

    @needs("ledger")
    def test_a_claim_that_is_given_up_is_another_s_to_make(self, client: App) -> None:
        ledger = self._ledger(client)
        assert ledger.claim("a-key", "me", ttl=60.0, deadline=soon()) == b""
        assert ledger.claim("a-key", "you", ttl=60.0, deadline=soon()) is None
        ledger.settle("a-key", "me", None, ttl=60.0, deadline=soon())
        assert ledger.claim("a-key", "you", ttl=60.0, deadline=soon()) == b""

    @needs("ledger")
    def test_a_claim_is_over_after_its_time_and_what_comes_late_changes_nothing(
        self, client: App
    ) -> None:
        ledger = self._ledger(client)
        assert ledger.claim("a-key", "me", ttl=0.05, deadline=soon()) == b""
        until(lambda: ledger.claim("a-key", "you", ttl=60.0, deadline=soon()) == b"")
        ledger.settle("a-key", "me", b"mine", ttl=60.0, deadline=soon())
        ledger.settle("a-key", "me", None, ttl=60.0, deadline=soon())
        assert ledger.claim("a-key", "third", ttl=60.0, deadline=soon()) is None
        ledger.settle("a-key", "you", b"yours", ttl=60.0, deadline=soon())
        assert ledger.claim("a-key", "third", ttl=60.0, deadline=soon()) == b"yours"

    @needs("ledger")
    def test_an_answer_is_forgotten_after_its_time(self, client: App) -> None:
        ledger = self._ledger(client)
        ledger.claim("a-key", "me", ttl=60.0, deadline=soon())
        began = time.monotonic()
        ledger.settle("a-key", "me", b"short", ttl=0.2, deadline=soon())
        until(lambda: ledger.claim("a-key", "you", ttl=60.0, deadline=soon()) == b"")
        assert time.monotonic() - began > 0.15

    def _ledger(self, client: App) -> Any:
        return client.transport(self.scheme).ledger()
