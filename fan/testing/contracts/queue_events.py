"""Behaviour 27 over a broker: who hears of an event."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from fan.app import App
from fan.model import QueueName
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import World
from fan.testing.contracts.probe import BOUND
from fan.testing.contracts.queue_harness import QueueHarness, until
from fan.testing.contracts.queue_probe import ALL, REFUSED, SHARED, Ear, Inbox, inbox

Face = Callable[[Any], Caller]

#: Settings of whoever hears of an event that fails.
THRICE = {"deliveries": 3}


class Events(QueueHarness):
    """Topics, their groups, and subscribers without one."""

    @pytest.fixture
    def teller(self, client: App, face: Face) -> Caller:
        """Publishes to the broker of the settings."""
        return face(client)

    def test_one_member_of_each_group_gets_an_event(self, world: World, teller: Caller) -> None:
        shops = [inbox("shop"), inbox("shop")]
        other = inbox("accounts")
        for service in (*shops, other):
            world.serve(service)
        for n in range(30):
            teller.publish(SHARED, n)
        assert sorted(other.wait_tags(30)) == list(range(30))
        until(lambda: sum(shop.runs["share"] for shop in shops) >= 30)
        for group in ("shop", "accounts"):
            self.settle(teller.client, QueueName(topic=SHARED, group=group))
        tags = [tag for shop in shops for tag in shop.wait_tags(shop.runs["share"])]
        assert sorted(tags) == list(range(30))

    def test_a_broadcast_reaches_every_instance(self, world: World, teller: Caller) -> None:
        services = [inbox("shop"), inbox("shop"), inbox("accounts")]
        for service in services:
            world.serve(service)
        for n in range(10):
            teller.publish(ALL, n)
        for service in services:
            assert sorted(service.wait_tags(10)) == list(range(10))

    def test_an_event_that_nobody_listens_to_is_accepted(self, teller: Caller) -> None:
        teller.publish("contract.nobody", 1)
        teller.publish("contract.nobody", 2)

    def test_a_subscription_hears_what_is_published_once_it_is_there(
        self, world: World, teller: Caller
    ) -> None:
        listener = world.client()
        for n in range(10):
            ear, topic = Ear(), f"contract.topic{n}"
            with listener.subscribe(topic, ear, group="g" if n % 2 else ""):
                teller.publish(topic, n)
                assert ear.wait() == n

    def test_a_closed_subscription_hears_nothing_more(self, world: World, teller: Caller) -> None:
        listener, closed, open_ = world.client(), Ear(), Ear()
        with listener.subscribe("contract.news", open_):
            with listener.subscribe("contract.news", closed):
                teller.publish("contract.news", 1)
                assert (closed.wait(), open_.wait()) == (1, 1)
            teller.publish("contract.news", 2)
            assert open_.wait() == 2
        assert closed.heard.empty()

    def test_a_function_hears_of_its_topic_alone(self, world: World, teller: Caller) -> None:
        listener, ear = world.client(), Ear()
        with listener.subscribe("contract.news", ear, group="readers"):
            for topic in ("contract.new", "contract.news.more", "contract", "Contract.news"):
                teller.publish(topic, topic)
            teller.publish("contract.news", "mine")
            assert ear.wait() == "mine"
        assert ear.heard.empty()

    def test_an_async_function_hears_too(self, world: World, teller: Caller) -> None:
        listener, ear = world.client(), Ear()
        with listener.subscribe("contract.news", ear.awaited):
            teller.publish("contract.news", "awaited")
            assert ear.wait() == "awaited"

    def test_several_functions_of_one_app_each_hear(self, world: World, teller: Caller) -> None:
        listener, ears = world.client(), [Ear() for _ in range(4)]
        with ExitStack() as stack:
            for ear, group in zip(ears, ("", "", "one", "two"), strict=True):
                subscriber = listener.subscribe("contract.news", ear, group=group)
                stack.enter_context(subscriber)
            for n in range(5):
                teller.publish("contract.news", n)
            for ear in ears:
                assert sorted(ear.wait() for _ in range(5)) == list(range(5))

    def test_a_group_keeps_what_comes_while_nobody_is_there(
        self, world: World, teller: Caller
    ) -> None:
        listener, first, later = world.client(), Ear(), Ear()
        listener.subscribe("contract.news", first, group="readers").close()
        for n in range(3):
            teller.publish("contract.news", n)
        with world.client().subscribe("contract.news", later, group="readers"):
            assert sorted(later.wait() for _ in range(3)) == [0, 1, 2]
        assert first.heard.empty()

    def test_a_subscriber_without_a_group_misses_what_comes_while_it_is_away(
        self, world: World, teller: Caller
    ) -> None:
        listener, ear = world.client(), Ear()
        listener.subscribe("contract.news", ear).close()
        teller.publish("contract.news", "missed")
        with listener.subscribe("contract.news", ear):
            teller.publish("contract.news", "heard")
            assert ear.wait() == "heard"
        assert ear.heard.empty()

    def test_a_service_keeps_the_events_that_come_while_it_is_down(
        self, world: World, teller: Caller
    ) -> None:
        world.serve(inbox()).stop(BOUND)
        teller.publish(SHARED, "kept")
        back = inbox()
        world.serve(back)
        assert back.wait_seen()[:2] == ("share", "kept")

    def test_only_the_routed_version_hears_of_events(self, world: World, teller: Caller) -> None:
        old, new = inbox(version="1.0.0"), inbox(version="2.0.0")
        world.serve(old)
        world.serve(new)
        for topic in (SHARED, ALL):
            teller.publish(topic, topic)
            assert old.wait_seen().tag == topic
        self.settle(teller.client, QueueName(topic=SHARED, group="inbox"))
        assert new.seen.empty()

    def test_of_two_versions_in_one_process_the_routed_one_hears_of_events(
        self, world: World, teller: Caller
    ) -> None:
        new, old = inbox(version="2.0.0"), inbox(version="1.0.0")
        app = world.serve(new, old)
        for routed, other in ((old, new), (new, old)):
            app.discovery.adopt("inbox", routed.version, force=True)
            in_a_row = 0
            while in_a_row < 5:  # once it follows the route; bounded by the test's time limit
                before = other.runs["share"]
                teller.publish(SHARED, "told")
                until(lambda: not (new.seen.empty() and old.seen.empty()))
                for one in (new, old):
                    while not one.seen.empty():
                        one.wait_seen()
                in_a_row = in_a_row + 1 if other.runs["share"] == before else 0

    def test_an_event_that_fails_is_delivered_n_times_and_then_a_dead_letter(
        self, world: World, teller: Caller
    ) -> None:
        service = inbox()
        world.serve(service, **THRICE)
        teller.publish(REFUSED, "tea")
        (letter,) = self.dead(teller.client, 1, QueueName(topic=REFUSED, group="inbox"))
        assert [box.attempt for box in (service.wait_seen() for _ in range(3))] == [0, 1, 2]
        assert service.runs["refuse_event"] == 3
        assert (letter.request.topic, letter.request.body) == (REFUSED, b'["tea"]')
        assert letter.deliveries == 3
        assert "there is no place for tea" in letter.error

    def test_one_group_that_fails_does_not_disturb_another(
        self, world: World, teller: Caller
    ) -> None:
        failing, sound = Ear(lambda attempt: attempt < 2), Ear()
        listener, other = world.client(**THRICE), world.client(**THRICE)
        with (
            listener.subscribe("contract.news", failing, group="failing"),
            other.subscribe("contract.news", sound, group="sound"),
        ):
            teller.publish("contract.news", 1)
            assert [failing.wait_heard().attempt for _ in range(3)] == [0, 1, 2]
            assert sound.wait() == 1
            for group in ("failing", "sound"):
                self.settle(teller.client, QueueName(topic="contract.news", group=group))
        assert sound.heard.empty()

    def test_a_subscriber_without_a_group_is_told_again_too(
        self, world: World, teller: Caller
    ) -> None:
        ear = Ear(lambda attempt: attempt < 1)
        with world.client(**THRICE).subscribe("contract.news", ear):
            teller.publish("contract.news", 1)
            assert [ear.wait_heard().attempt for _ in range(2)] == [0, 1]

    def test_an_event_that_is_older_than_its_ttl_is_not_heard(
        self, world: World, teller: Caller
    ) -> None:
        world.client().subscribe("contract.news", Ear(), group="readers").close()
        teller.using(ttl=0.05).publish("contract.news", "old")
        teller.publish("contract.news", "fresh")
        threading.Event().wait(0.1)  # the ttl itself
        ear = Ear()
        with world.client().subscribe("contract.news", ear, group="readers"):
            assert ear.wait() == "fresh"
            name = QueueName(topic="contract.news", group="readers")
            (letter,) = self.dead(teller.client, 1, name)
        assert letter.error.startswith("deadline_exceeded/expired_in_queue")
        assert ear.heard.empty()

    def test_what_a_member_leaves_goes_to_the_others(self, world: World, teller: Caller) -> None:
        leaving, staying = Ear(), Ear()
        first = world.client().subscribe("contract.news", leaving, group="readers")
        with world.client().subscribe("contract.news", staying, group="readers"):
            for n in range(60):
                teller.publish("contract.news", n)
                if n == 30:
                    first.close(BOUND)
            self.settle(teller.client, QueueName(topic="contract.news", group="readers"))
            until(lambda: leaving.heard.qsize() + staying.heard.qsize() >= 60)
        heard = Counter(ear.wait() for ear in (leaving, staying) for _ in range(ear.heard.qsize()))
        assert heard == Counter(range(60))

    def test_a_handler_knows_the_topic_and_who_published(
        self, world: World, teller: Caller
    ) -> None:
        known: list[Any] = []
        done = threading.Event()

        def hear(*args: Any, **kwargs: Any) -> None:
            import fan

            context = fan.current()
            assert context is not None
            assert context.request is not None
            known.append((context.request.topic, dict(context.headers), context.caller, args))
            done.set()

        with world.client().subscribe("contract.news", hear, group="readers"):
            told = teller.using(headers={"x-one": "1"}, caller="press")
            told.publish("contract.news", "a", "b")
            assert done.wait(BOUND)
        assert known == [("contract.news", {"x-one": "1"}, "press", ("a", "b"))]

    def test_a_stopped_service_hears_nothing_more(self, world: World, teller: Caller) -> None:
        leaving, staying = inbox(), inbox("accounts")
        app = world.serve(leaving)
        world.serve(staying)
        app.stop(BOUND)
        teller.publish(ALL, "late")
        assert staying.wait_seen().tag == "late"
        assert leaving.seen.empty()

    def test_a_service_hears_and_is_pushed_to_over_one_broker(
        self, client: App, box: Inbox, face: Face
    ) -> None:
        self.sender_of(face, client).push("inbox.take", "pushed")
        face(client).publish(SHARED, "told")
        assert {tuple(box.wait_seen()[:2]) for _ in range(2)} == {
            ("take", "pushed"), ("share", "told"),
        }  # fmt: skip
