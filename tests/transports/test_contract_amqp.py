"""The contracts of a transport and of queues, held against amqp and a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pika
import pytest

from fan.app import App
from fan.errors import DeadlineExceeded, RemoteError, Unavailable, Unimplemented
from fan.model import QueueName
from fan.testing.contracts import QueueContract, TransportContract
from fan.testing.contracts.bare import answering
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.faults import Process
from fan.testing.contracts.harness import World
from fan.testing.contracts.probe import Probe, probe
from fan.testing.contracts.queue_harness import soon, until

pytestmark = pytest.mark.rabbitmq


#: What needs an ability that amqp does not have, and why not.
LACKING = {
    "stream": "a queue keeps no credit between one reader and one generator",
    "cancel": "the broker does not tell a caller who took its call",
    "ledger": "RabbitMQ has no place to keep an answer under a key",
}


def gates_of(contract: type) -> dict[str, str]:
    """The tests of a contract that need what is lacking."""
    needed = {
        name: getattr(getattr(contract, name), "__fan_needs__", frozenset())
        for name in dir(contract)
        if name.startswith("test_")
    }
    return {
        name: why
        for name, abilities in needed.items()
        for ability, why in LACKING.items()
        if ability in abilities
    }


#: The services that the contract of a transport may push to.
_PUSHED = ("probe", "alpha", "beta", "gamma", "front", "back", "self", "loop", "above", "below")


def delete_pushes(url: str) -> None:
    """Leave no push to the next world on the same virtual host."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for name in _PUSHED:
            channel.queue_delete(f"fan.push.{name}")
            channel.queue_delete(f"fan.dead.push.{name}")


class TestAmqp(TransportContract):
    scheme: ClassVar[str] = "amqp"
    #: The beginning of `Connection.Start`.
    drip: ClassVar[bytes] = b"\x01\x00\x00\x00\x00\x01\xf7\x00\x0a\x00\x0a" + b"\x00" * 400
    gates: ClassVar[dict[str, str]] = {
        **gates_of(TransportContract),
        "test_an_open_breaker_of_one_instance_leaves_the_others": (
            "who calls a queue does not know the instance, so breakers are keyed by version"
        ),
    }

    @pytest.fixture(autouse=True)
    def _server(self, shared_vhost: str) -> None:
        self.url = shared_vhost

    def broker(self, world: World) -> dict[str, Any]:
        world.on_close(lambda: delete_pushes(self.url))
        return {"amqp_url": self.url}

    def test_a_push_with_arguments_that_do_not_fit_is_refused(
        self, caller: Caller, served: Probe
    ) -> None:
        caller.push("probe.add", "no number")  # a queue takes it, and the dead letters say why
        transport = caller.client.transport("amqp")
        queues = transport.queues(transport.home())
        letters = until(lambda: queues.letters(QueueName("probe"), dead=True, deadline=soon()))
        assert letters[0].error.startswith("invalid_argument/bad_signature")
        assert served.runs["add"] == 0

    def test_an_open_breaker_of_one_version_leaves_the_other(
        self, world: World, face: Callable[[Any], Caller]
    ) -> None:
        for version in ("1.0.0", "2.0.0"):
            world.serve(probe(version=version))
        caller = face(world.client(breaker_failures=3, breaker_reset=1000.0, retries=0))
        for _ in range(3):
            caller.failure("probe.fail@1.0.0")
        opened = caller.failure("probe.fail@1.0.0")
        assert isinstance(opened, Unavailable)
        assert (opened.reason, opened.executed) == ("circuit_open", "no")
        assert isinstance(caller.failure("probe.fail@2.0.0"), RemoteError)
        assert caller.call("probe.add@1.0.0", 1) == 2

    def test_a_request_for_a_service_that_is_not_here_is_answered(
        self, world: World, served: Probe, caller: Caller
    ) -> None:
        transport = caller.client.transport("amqp")
        with pytest.raises(Unavailable) as info:  # there is no queue, so nobody answers
            transport.call(transport.home(), world.request("other.add"))
        assert (info.value.reason, info.value.executed) == ("unroutable", "no")

    def test_a_killed_server_is_unavailable_until_another_comes(
        self, start: Callable[[], Process], outside: Caller
    ) -> None:
        server = start()
        assert outside.call("probe.add", 1) == 2
        server.kill()
        while True:  # the broker learns of it a moment later, and so may have given it a call
            failure = outside.failure("probe.add", 1)
            assert isinstance(failure, Unavailable)
            if failure.executed == "no":
                break
            assert (failure.reason, failure.executed) == ("connection_lost", "maybe")
        again = start()
        assert outside.call("probe.whoami")["instance"] == again.instance_id

    def test_a_reply_that_drips_in_is_deadline_exceeded(self, world: World, caller: Caller) -> None:
        listener, address = self.listen(world)
        dripping = caller.using(peers=(address.url,), timeout=0.5, retries=0)
        with listener, answering(listener, self.drip, gap=0.02):
            failure = dripping.failure("probe.add", 1)
        assert isinstance(failure, DeadlineExceeded)
        # A broker greets first: as long as it has not, nothing was sent to it.
        assert (failure.reason, failure.executed) == ("client_timer", "no")

    def test_a_stream_is_refused_as_unsupported(self, caller: Caller) -> None:
        with pytest.raises(Unimplemented) as info:
            caller.stream("probe.count", 3).rest()
        assert info.value.reason == "streaming_unsupported"


class TestAmqpQueues(QueueContract):
    scheme: ClassVar[str] = "amqp"
    gates: ClassVar[dict[str, str]] = gates_of(QueueContract)

    @pytest.fixture(autouse=True)
    def _server(self, new_vhost: Callable[[], str]) -> None:
        self.vhost = new_vhost

    def broker(self, world: World) -> dict[str, Any]:
        return {"amqp_url": self.vhost()}

    def spoil(self, world: World, client: App, name: QueueName) -> None:
        queue = f"fan.event.{name}" if name.topic else f"fan.push.{name}"
        with pika.BlockingConnection(pika.URLParameters(world.broker["amqp_url"])) as connection:
            connection.channel().basic_publish("", queue, b"\x00 garbage \xff")
