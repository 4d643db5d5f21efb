"""`fan push`: messages to services that are down, and events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.brokers import BROKERS, NOWHERE, Shop
from tests.cli.conftest import envelope

if TYPE_CHECKING:
    from tests.cli.conftest import Fan

over_every_broker = pytest.mark.parametrize("broker", BROKERS, indirect=True)


@over_every_broker
def test_a_push_to_a_service_that_is_down_waits_for_it(fan: Fan, shop: Shop) -> None:
    shop.register()
    target = f"{shop.service}.order"
    assert fan("push", target, "item=apple", "count=3", "-t", shop.broker) == (0, "", "")
    accepted = envelope(fan("push", target, "item=pear", "-t", shop.broker, "--json"))
    assert accepted["ok"] is accepted["accepted"] is True
    assert (accepted["target"], accepted["transport"]) == (target, shop.broker)
    assert (accepted["version"], accepted["instance"]) == (None, None)
    assert shop.queue()["ready"] == 2
    process = shop.serve()
    assert shop.said(process, 2) == {"order apple 3", "order pear 1"}


@over_every_broker
def test_what_is_accepted_has_the_generation_of_its_route(fan: Fan, shop: Shop) -> None:
    shop.register()
    target = f"{shop.service}.order"
    accepted = envelope(fan("push", target, "item=apple", "-t", shop.broker, "--json"))
    process = shop.serve()
    direct = envelope(fan("push", target, "item=pear", "-t", "ipc", "--json"))
    assert shop.said(process, 2) == {"order apple 1", "order pear 1"}
    assert accepted["gen"] == direct["gen"] > 0


@over_every_broker
def test_a_push_to_a_method_that_nobody_has_is_refused_as_a_call_is(fan: Fan, shop: Shop) -> None:
    shop.register()
    ran = fan("push", f"{shop.service}.ordre", "-t", shop.broker, "--json")
    error = envelope(ran)["error"]
    assert (ran.exit, error["code"], error["reason"], error["executed"]) == (
        3, "unimplemented", "unknown_method", "no",
    )  # fmt: skip
    assert "did you mean order" in error["message"]
    assert (shop.queue()["ready"], shop.queue()["dead"]) == (0, 0)


@over_every_broker
def test_an_event_reaches_all_who_subscribed(fan: Fan, shop: Shop) -> None:
    process = shop.serve()
    ran = fan("push", "--topic", shop.topic, "item=apple", "count=2", "--json")
    accepted = envelope(ran)
    assert (accepted["topic"], accepted["transport"]) == (shop.topic, shop.broker)
    assert accepted["accepted"] is True
    # Its handler takes a number: the text became one by its schema.
    assert shop.said(process, 2) == {"restock apple 2", "price apple"}
    # RabbitMQ does not tell how many got it.
    assert accepted["groups"] == (None if shop.broker == "amqp" else 2)


def test_an_event_that_nobody_hears_is_accepted(fan: Fan, shop: Shop) -> None:
    assert fan("push", "--topic", shop.topic, '{"item":"apple"}') == (0, "", "")


def test_an_event_takes_every_kind_of_payload(fan: Fan, shop: Shop) -> None:
    process = shop.serve()
    for payload in (["-d", '{"item":"a"}'], ['{"item":"b"}'], ["[", "--item", "c", "]"], ["=d"]):
        assert fan("push", "--topic", shop.topic, *payload).exit == 0
    lines = {process.wait_for("price", "stdout") for _ in range(4)}
    assert lines == {"price a", "price b", "price c", "price d"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "TARGET or --topic TOPIC is needed"),
        (("shop.order", "--topic", "x"), "TARGET shop.order and --topic"),
        (("--topic", "no topic"), "--topic 'no topic': 'no topic' is no name"),
        (("--topic", "x", "-t", "ipc"), "-t ipc: ipc carries no events"),
        (("--topic", "x", "-t", "amqqp"), "-t amqqp: unknown transport"),
        (("--topic", "x", "-p", "http://127.0.0.1:1"), "http carries no events"),
        (("--topic", "x", "--instance", "a"), "--topic and --instance"),
        (("--topic", "x", "a=1", "name"), "'name' is no item"),
        (("shop.order", "-p", "mqtt://127.0.0.1"), "-p mqtt: unknown scheme"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    fan: Fan, broker: str, args: tuple[str, ...], said: str
) -> None:
    ran = fan("push", *args)
    assert (ran.exit, ran.stdout) == (2, "")
    assert said in ran.stderr


def test_a_service_that_nobody_ever_saw_is_not_found(fan: Fan, registry_url: str) -> None:
    ran = fan("push", "nobody.order", "-t", "database", "--json")
    assert ran.exit == 3
    assert envelope(ran)["error"]["reason"] == "no_such_service"


@pytest.mark.parametrize("transport", ["redis", "amqp"])
@pytest.mark.parametrize("what", [("shop.order",), ("--topic", "stock")])
def test_a_broker_that_cannot_be_reached_is_safe_to_try_again(
    fan: Fan, broker: str, transport: str, what: tuple[str, ...]
) -> None:
    url = NOWHERE[f"FAN_{transport.upper()}_URL"]
    ran = fan("push", *what, "-p", url, "--json")
    error = envelope(ran)["error"]
    assert ran.exit == 6
    assert (error["code"], error["reason"], error["executed"]) == (
        "unavailable", "connect_failed", "no",
    )  # fmt: skip


def test_an_event_needs_no_registry(fan: Fan, private: Path, broker: str) -> None:
    (private / "broken.db").write_bytes(b"no database" * 1000)
    url = f"sqlite:{private}/broken.db"
    queues = f"sqlite:{private}/queues.db"
    ran = fan("push", "--topic", "a.b", "x=1", FAN_REGISTRY=url, FAN_DATABASE_URL=queues)
    assert ran == (0, "", "")


def test_a_push_to_a_peer_asks_no_registry(fan: Fan, private: Path, broker: str) -> None:
    peer = f"database:{private}/mine.db"
    (private / "mine.db").touch()
    assert fan("push", "mail.send", "to=ada", "-p", peer) == (0, "", "")
    ran = fan("queue", "show", "mail", "-p", peer, "--json")
    assert json.loads(ran.stdout)["body"] == {"to": "ada"}


@pytest.mark.parametrize("how", ["--dry-run", "-v"])
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_brokers_password_is_never_shown(fan: Fan, broker: str, scheme: str, how: str) -> None:
    peer = f"{scheme}://ada:hush/@hush@127.0.0.1:1/0"
    for what in (("shop.order",), ("--topic", "stock")):
        ran = fan("push", *what, "-p", peer, "--json", how)
        assert "hush" not in ran.stdout + ran.stderr
        assert "127.0.0.1:1" in ran.stdout + ran.stderr
        shown = fan("push", *what, "-p", peer, "--json", how, "--show-secrets")
        assert "hush" in shown.stdout + shown.stderr


def test_a_dry_run_says_where_it_would_go_and_sends_nothing(fan: Fan, shop: Shop) -> None:
    shop.register()
    args = ("--dry-run", "-H", "authorization: hush")
    push = envelope(fan("push", f"{shop.service}.order", "item=a", "-t", "database", *args))
    assert (push["transport"], push["request"]["kind"]) == ("database", "push")
    assert push["why"] == [f"the queue of {shop.service}"]
    event = envelope(fan("push", "--topic", shop.topic, "item=a", *args))
    assert (event["topic"], event["request"]["kind"]) == (shop.topic, "event")
    assert event["why"] == ["transport database: the setting queue"]
    for told in (push, event):
        assert told["address"].endswith("/queues.db")
        assert told["request"]["headers"] == {"authorization": "****"}
        assert told["request"]["body"] == {"item": "a"}
    assert shop.queue()["ready"] == shop.queue(f"{shop.topic}/{shop.service}")["ready"] == 0


def test_the_envelope_of_an_event_can_be_seen(fan: Fan, broker: str, registry_url: str) -> None:
    ran = fan("push", "--topic", "stock", "item=a", "-vvv")
    assert ran.exit == 0
    sent = next(line for line in ran.stderr.splitlines() if line.startswith("> {"))
    assert json.loads(sent[2:])["topic"] == "stock"


def test_what_is_pushed_and_heard_is_described(fan: Fan, shop: Shop) -> None:
    shop.register()
    text = fan("discover", "describe", shop.service).stdout
    assert "      to be pushed\n" in text
    assert f"      hears {shop.topic}, one of group {shop.service}\n" in text
    assert f"      hears {shop.topic}, every instance\n" in text
    one = fan("discover", "describe", f"{shop.service}.order").stdout
    assert "version 1.0.0, to be pushed\n" in one
    shown = envelope(fan("discover", "show", shop.service, "--json"))
    assert shown["pushes"] == ["order"]
    assert shown["topics"] == [f"{shop.topic}/", f"{shop.topic}/{shop.service}"]
    shop.serve()
    assert "database,ipc" in fan("discover", "list").stdout
