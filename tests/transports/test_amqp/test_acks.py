"""Acknowledgements that are told of together: as few as can be, and of nothing but what is done."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fan.transports.amqp_acks import Acks
from tests.transports.test_amqp.conftest import bare

pytestmark = pytest.mark.rabbitmq


class Channel:
    """Notes what it is told."""

    is_open = True

    def __init__(self) -> None:
        self.told: list[tuple[int, bool]] = []

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        self.told.append((tag, multiple))

    def basic_nack(self, tag: int, requeue: bool) -> None:
        assert requeue


class Turn:
    """A turn of the loop, which the test ends."""

    def __init__(self) -> None:
        self._jobs: list[Callable[[], None]] = []

    def __call__(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)

    def end(self) -> None:
        """Run what was left for its end."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job()


def hand(channel: Any, count: int) -> tuple[Acks, Turn]:
    """A hand with the messages 1, 2 and so on in it."""
    turn = Turn()
    acks = Acks(channel, turn)
    for tag in range(1, count + 1):
        acks.came(tag)
    return acks, turn


def test_those_that_are_one_behind_the_other_are_told_of_in_one() -> None:
    channel = Channel()
    acks, turn = hand(channel, 5)
    for tag in (3, 1, 2):
        acks.ack(tag)
    assert channel.told == []
    turn.end()
    assert channel.told == [(3, True)]


def test_one_in_hand_parts_those_behind_it_from_those_before_it() -> None:
    channel = Channel()
    acks, turn = hand(channel, 5)
    for tag in (1, 2, 4, 5):
        acks.ack(tag)
    turn.end()
    assert channel.told == [(2, True), (4, False), (5, False)]
    acks.ack(3)
    turn.end()
    assert channel.told[3:] == [(3, False)]  # the broker knows nothing more of the others


def test_what_went_back_is_not_waited_for() -> None:
    channel = Channel()
    acks, turn = hand(channel, 3)
    acks.ack(3)
    acks.give_back(1)
    acks.ack(2)
    turn.end()
    assert channel.told == [(3, True)]


def test_nothing_is_told_over_a_channel_that_has_closed() -> None:
    channel = Channel()
    acks, turn = hand(channel, 1)
    acks.ack(1)
    channel.is_open = False
    turn.end()
    assert channel.told == []


@pytest.fixture
def queue(rabbitmq_server: Any) -> Iterator[tuple[str, str]]:
    """The URL of the run's RabbitMQ and a queue of the test's own."""
    with bare(rabbitmq_server.url) as channel:
        name = channel.queue_declare("", durable=True).method.queue
        yield rabbitmq_server.url, name
        channel.queue_delete(name)


@pytest.mark.parametrize("seed", range(8))
def test_a_broker_forgets_what_is_done_and_keeps_the_rest(
    queue: tuple[str, str], seed: int
) -> None:
    url, name = queue
    chance = random.Random(seed)
    with bare(url) as channel:
        for n in range(40):
            channel.basic_publish("", name, str(n).encode())
        acks, turn = hand(channel, 0)
        bodies, done = {}, set()
        for _ in range(30):
            method, _, body = channel.basic_get(name)
            bodies[method.delivery_tag] = body
            acks.came(method.delivery_tag)
            for tag in chance.sample(sorted(bodies), chance.randrange(min(4, len(bodies)) + 1)):
                body = bodies.pop(tag)
                if chance.random() < 0.2:
                    acks.give_back(tag)
                else:
                    acks.ack(tag)
                    done.add(body)
            turn.end()
    with bare(url) as channel:
        left = set()
        while (got := channel.basic_get(name, auto_ack=True))[0] is not None:
            left.add(got[2])
    assert left == {str(n).encode() for n in range(40)} - done
