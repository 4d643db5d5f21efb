"""The contracts of a transport and of queues, held against amqp and a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pika
import pytest

from fan.app import App
from fan.errors import DeadlineExceeded
from fan.model import QueueName
from fan.testing.contracts import QueueContract, TransportContract
from fan.testing.contracts.bare import answering
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import World

pytestmark = pytest.mark.rabbitmq


class OnRabbitMQ:
    """A virtual host for each world."""

    scheme: ClassVar[str] = "amqp"
    vhost: Callable[[], str]

    @pytest.fixture(autouse=True)
    def _server(self, new_vhost: Callable[[], str]) -> None:
        self.vhost = new_vhost

    def broker(self, world: World) -> dict[str, Any]:
        return {"amqp_url": self.vhost()}


class TestAmqp(OnRabbitMQ, TransportContract):
    #: The beginning of `Connection.Start`.
    drip: ClassVar[bytes] = b"\x01\x00\x00\x00\x00\x01\xf7\x00\x0a\x00\x0a" + b"\x00" * 400
    gates: ClassVar[dict[str, str]] = {}

    def test_a_reply_that_drips_in_is_deadline_exceeded(self, world: World, caller: Caller) -> None:
        listener, address = self.listen(world)
        dripping = caller.using(peers=(address.url,), timeout=0.5, retries=0)
        with listener, answering(listener, self.drip, gap=0.02):
            failure = dripping.failure("probe.add", 1)
        assert isinstance(failure, DeadlineExceeded)
        # A broker greets first: as long as it has not, nothing was sent to it.
        assert (failure.reason, failure.executed) == ("client_timer", "no")


class TestAmqpQueues(OnRabbitMQ, QueueContract):
    gates: ClassVar[dict[str, str]] = {}

    def spoil(self, world: World, client: App, name: QueueName) -> None:
        queue = f"fan.event.{name}" if name.topic else f"fan.push.{name}"
        with pika.BlockingConnection(pika.URLParameters(world.broker["amqp_url"])) as connection:
            connection.channel().basic_publish("", queue, b"\x00 garbage \xff")
