"""`fan queue`: what waits, what is dead, and what can be done about it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.brokers import BROKERS, NOWHERE, Shop
from tests.cli.conftest import HANG, PROGRAM, envelope, variables

if TYPE_CHECKING:
    from tests.cli.conftest import Fan, Ran

pytestmark = pytest.mark.usefixtures("registry_url", "broker")
over_every_broker = pytest.mark.parametrize("broker", BROKERS, indirect=True)


def push(fan: Fan, shop: Shop, *items: str) -> None:
    assert fan("push", f"{shop.service}.order", *items, "-t", shop.broker) == (0, "", "")


def rows(ran: Ran) -> list[dict[str, Any]]:
    assert ran.exit == 0, ran
    return [json.loads(line) for line in ran.stdout.splitlines()]


def until_dead(fan: Fan, shop: Shop, count: int) -> None:
    """Serve until so many are dead; a look takes a process, so that this does not spin."""
    process = shop.serve(FAN_DELIVERIES="1")
    for _ in range(200):
        row = shop.queue()
        if row["dead"] == count and not row["ready"] and not row["in_flight"]:
            break
    else:
        raise AssertionError(row)
    process.send(2)
    assert process.wait() == 130


@over_every_broker
def test_the_list_says_what_waits(fan: Fan, shop: Shop) -> None:
    shop.register()
    push(fan, shop, "item=apple")
    push(fan, shop, "item=pear")
    row = shop.queue()
    assert row["oldest"] is None or 0 <= row.pop("oldest") < HANG
    row.pop("oldest", None)
    assert row.pop("address").startswith(f"{shop.broker}:")
    assert row.pop("in_flight") in (0, None)
    assert row == {
        "queue": shop.service, "kind": "push", "transport": shop.broker,
        "ready": 2, "dead": 0, "consumers": 0,
    }  # fmt: skip
    events = shop.queue(f"{shop.topic}/{shop.service}")
    assert (events["kind"], events["ready"]) == ("event", 0)
    shown = fan("queue", "list", "-t", shop.broker, "--headers").stdout.splitlines()
    assert shown[0].split("\t") == [
        "queue", "transport", "ready", "in_flight", "dead", "consumers", "oldest",
    ]  # fmt: skip
    assert [line.split("\t")[1:3] for line in shown if line.startswith(f"{shop.service}\t")] == [
        [shop.broker, "2"]
    ]
    process = shop.serve()
    shop.said(process, 2)
    assert shop.queue()["consumers"] == 1


@over_every_broker
def test_a_message_that_waits_can_be_seen_and_stays(fan: Fan, shop: Shop) -> None:
    shop.register()
    push(fan, shop, "item=apple", "-H", "authorization: hush", "-H", "x-team: blue")
    push(fan, shop, "item=pear")
    for _ in range(2):
        first, second = rows(fan("queue", "show", shop.service, "--json"))
        assert first["body"] == {"item": "apple"}
        assert first["target"] == f"{shop.service}.order"
        assert first["headers"] == {"authorization": "****", "x-team": "blue"}
        assert (first["kind"], first["caller"], first["deliveries"]) == ("push", "fan", 0)
        assert first["at"].endswith("Z")
        assert second["body"] == {"item": "pear"}
    assert "hush" in fan("queue", "show", shop.service, "--show-secrets", "--json").stdout
    shown = fan("queue", "show", shop.service, "-t", shop.broker).stdout.splitlines()
    assert [line.split("\t")[3:] for line in shown] == [
        [f"{shop.service}.order", '{"item":"apple"}'],
        [f"{shop.service}.order", '{"item":"pear"}'],
    ]
    assert len(rows(fan("queue", "show", shop.service, "-N", "1", "--json"))) == 1
    process = shop.serve()
    assert shop.said(process, 2) == {"order apple 1", "order pear 1"}


@over_every_broker
def test_a_dead_letter_says_why_and_can_be_put_back(fan: Fan, shop: Shop) -> None:
    shop.register()
    push(fan, shop, "item=poison")
    push(fan, shop, "item=poison", "count=2")
    until_dead(fan, shop, 2)
    letters = rows(fan("queue", "dead", shop.service, "--json"))
    assert [letter["error"] for letter in letters] == ["unknown: it is poison"] * 2
    assert [letter["deliveries"] for letter in letters] == [1, 1]
    assert {letter["body"].get("count") for letter in letters} == {None, 2}

    dry = envelope(fan("queue", "requeue", shop.service, "--dry-run", "--json"))
    assert (dry["requeued"], dry["changed"], dry["dry_run"]) == (2, False, True)
    one = envelope(fan("queue", "requeue", shop.service, letters[1]["id"], "--json"))
    assert one == {
        "v": 1, "ok": True, "queue": shop.service, "transport": shop.broker,
        "address": one["address"], "changed": True, "requeued": 1,
    }  # fmt: skip
    assert (shop.queue()["ready"], shop.queue()["dead"]) == (1, 1)
    ran = fan("queue", "requeue", shop.service, "-t", shop.broker)
    assert ran == (0, "", "1 requeued\n")
    assert (shop.queue()["ready"], shop.queue()["dead"]) == (2, 0)
    again = envelope(fan("queue", "requeue", shop.service, "--json"))
    assert (again["changed"], again["requeued"]) == (False, 0)


@over_every_broker
def test_a_push_that_came_too_late_is_a_dead_letter(fan: Fan, shop: Shop) -> None:
    shop.register()
    push(fan, shop, "item=apple", "--ttl", "1ms")
    until_dead(fan, shop, 1)
    (letter,) = rows(fan("queue", "dead", shop.service, "--json"))
    assert letter["error"].startswith("deadline_exceeded/expired_in_queue")


@over_every_broker
def test_a_purge_throws_away_what_waits_or_what_is_dead(fan: Fan, shop: Shop) -> None:
    shop.register()
    push(fan, shop, "item=poison")
    until_dead(fan, shop, 1)
    push(fan, shop, "item=apple")
    args = ("queue", "purge", shop.service, "-t", shop.broker)
    assert fan(*args, "--dry-run") == (0, "1 would be purged\n", "")
    assert fan(*args) == (0, "", "1 purged\n")
    assert (shop.queue()["ready"], shop.queue()["dead"]) == (0, 1)
    purged = envelope(fan("queue", "purge", shop.service, "--dead", "--json"))
    assert (purged["purged"], purged["changed"]) == (1, True)
    assert shop.queue()["dead"] == 0


def typed_at(text: str, *args: str) -> bytes:
    """What the program says on a terminal where somebody types `text`; it ends well."""
    ours, theirs = pty.openpty()
    os.write(ours, text.encode())
    process = subprocess.run(
        [*PROGRAM, *args], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=variables(),
        timeout=HANG, check=False,
    )  # fmt: skip
    os.close(theirs)
    said = os.read(ours, 65536)
    os.close(ours)
    assert process.returncode == 0
    return said


@pytest.mark.parametrize(("typed", "left"), [("n\n", 1), ("\n", 1), ("y\n", 0)])
def test_on_a_terminal_a_purge_asks_first(fan: Fan, shop: Shop, typed: str, left: int) -> None:
    shop.register()
    push(fan, shop, "item=apple")
    said = typed_at(typed, "queue", "purge", shop.service)
    assert b"throw away the messages of" in said
    assert shop.queue()["ready"] == left
    assert fan("queue", "purge", shop.service, "-y").exit == 0


@over_every_broker
def test_a_queue_that_nobody_takes_from_is_deleted_with_all_that_is_in_it(
    fan: Fan, shop: Shop
) -> None:
    shop.register()
    push(fan, shop, "item=poison")
    until_dead(fan, shop, 1)
    push(fan, shop, "item=apple")
    args = ("queue", "delete", shop.service, "-t", shop.broker)
    told = f"{shop.service} would be deleted (messages in it: 2)\n"
    assert fan(*args, "--dry-run") == (0, told, "")
    assert (shop.queue()["ready"], shop.queue()["dead"]) == (1, 1)
    assert fan(*args, "-y") == (0, "", f"{shop.service} deleted (messages in it: 2)\n")
    check_missing(fan(*args, "--json"))
    push(fan, shop, "item=pear")
    assert shop.queue()["ready"] == 1
    events = f"{shop.topic}/{shop.service}"
    deleted = envelope(fan("queue", "delete", events, "-t", shop.broker, "--json"))
    assert (deleted["queue"], deleted["changed"], deleted["messages"]) == (events, True, 0)


@over_every_broker
def test_a_queue_that_somebody_takes_from_is_not_deleted(fan: Fan, shop: Shop) -> None:
    process = shop.serve()
    args = ("queue", "delete", shop.service, "-t", shop.broker, "--json")
    for more in ((), ("--dry-run",)):
        ran = fan(*args, *more)
        error = envelope(ran)["error"]
        assert (ran.exit, error["code"], error["reason"]) == (
            4, "failed_precondition", "queue_in_use",
        )  # fmt: skip
    push(fan, shop, "item=apple")
    process.send(2)
    assert process.wait() == 130


@pytest.mark.parametrize(("typed", "is_gone"), [("n\n", False), ("\n", False), ("y\n", True)])
def test_on_a_terminal_a_deletion_asks_first(
    fan: Fan, shop: Shop, typed: str, is_gone: bool
) -> None:
    shop.register()
    push(fan, shop, "item=apple")
    said = typed_at(typed, "queue", "delete", shop.service)
    assert b"delete the queue" in said
    assert b"(messages in it: 1)? [y/N]" in said
    assert (b"nothing deleted" in said) is not is_gone
    assert (fan("queue", "show", shop.service).exit == 3) is is_gone


def test_dead_letters_that_are_not_there(fan: Fan, shop: Shop) -> None:
    shop.register()
    push(fan, shop, "item=poison")
    until_dead(fan, shop, 1)
    ran = fan("queue", "requeue", shop.service, "4711")
    assert (ran.exit, ran.stdout) == (3, "")
    assert f"{shop.service} has no dead letter 4711" in ran.stderr
    (letter,) = rows(fan("queue", "dead", shop.service, "--json"))
    ran = fan("queue", "requeue", shop.service, letter["id"], "4711")
    assert ran.exit == 9
    assert "1 of the 2 dead letters are not there" in ran.stderr


def check_missing(ran: Ran) -> None:
    assert ran.exit == 3
    error = envelope(ran)["error"]
    assert (error["code"], error["reason"], error["executed"]) == (
        "not_found", "no_such_queue", "no",
    )  # fmt: skip


@over_every_broker
def test_a_queue_that_was_never_made_is_not_found(fan: Fan, shop: Shop, broker: str) -> None:
    for where in ((), ("-t", broker)):
        check_missing(fan("queue", "show", shop.service, *where, "--json"))


@pytest.mark.parametrize("verb", ["list", "dead", "requeue", "purge", "delete"])
def test_no_verb_takes_a_queue_that_was_never_made(fan: Fan, verb: str) -> None:
    check_missing(fan("queue", verb, "mail", "--json"))


def test_a_name_that_is_nearly_right_is_suggested(fan: Fan, shop: Shop) -> None:
    shop.register()
    ran = fan("queue", "show", f"{shop.service}s")
    assert ran.exit == 3
    assert f"hint: did you mean {shop.service}? fan queue list" in ran.stderr


@pytest.mark.parametrize("verb", ["list", "show", "dead", "requeue", "purge", "delete"])
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_named_and_cannot_be_reached_is_unavailable(
    fan: Fan, verb: str, scheme: str
) -> None:
    name = () if verb == "list" else ("mail",)
    for where in (("-t", scheme), ("-p", NOWHERE[f"FAN_{scheme.upper()}_URL"])):
        ran = fan("queue", verb, *name, *where)
        assert (ran.exit, ran.stdout) == (6, "")
        assert f"cannot connect to {scheme}://127.0.0.1:1/" in ran.stderr


def test_brokers_that_are_set_and_cannot_be_reached_are_left_out(fan: Fan, shop: Shop) -> None:
    shop.register()
    ran = fan("queue", "list", "--format", "name")
    assert ran.exit == 0
    assert shop.service in ran.stdout.splitlines()
    assert "fan: amqp is left out: " in ran.stderr
    assert "fan: redis is left out: " in ran.stderr


def test_nothing_is_an_empty_list(fan: Fan, private: Path) -> None:
    assert fan("queue", "list", "-t", "database") == (0, "", "")
    assert not (private / "queues.db").exists()  # looking makes no file


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("list", "-t", "ipc"), "-t ipc: ipc has no queues"),
        (("list", "-p", "http://127.0.0.1:1"), "-p http://127.0.0.1:1: http has no queues"),
        (("list", "-p", "mqtt://127.0.0.1"), "-p mqtt: unknown scheme"),
        (("show", "@1.0.0"), "QUEUE '@1.0.0' is no queue"),
        (("show",), "missing argument 'QUEUE'"),
        (("purge", "mail", "-N", "1"), "no such option: -N"),
        (("lst",), "no such command: lst"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    fan: Fan, args: tuple[str, ...], said: str
) -> None:
    ran = fan("queue", *args)
    assert (ran.exit, ran.stdout) == (2, "")
    assert said in ran.stderr


@pytest.mark.redis
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_queue_of_several_brokers_has_to_be_told_apart(
    fan: Fan, shop: Shop, start_fan: Callable[..., Any]
) -> None:
    shop.register()
    push(fan, shop, "item=apple")
    assert fan("push", f"{shop.service}.order", "item=pear", "-t", "database").exit == 0
    ran = fan("queue", "show", shop.service)
    assert ran.exit == 2
    assert f"QUEUE {shop.service}: there is one on database and redis" in ran.stderr
    (letter,) = rows(fan("queue", "show", shop.service, "-t", "redis", "--json"))
    assert letter["body"] == {"item": "apple"}
