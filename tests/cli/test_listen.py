"""`fan listen`: events as they come, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.brokers import BROKERS, NOWHERE, Shop
from tests.cli.conftest import HANG, PROGRAM, variables

if TYPE_CHECKING:
    from tests.cli.conftest import Fan, Ran

pytestmark = pytest.mark.usefixtures("registry_url", "broker")
over_every_broker = pytest.mark.parametrize("broker", BROKERS, indirect=True)


@pytest.fixture
def listen(start_fan: Callable[..., Any]) -> Callable[..., Any]:
    """Start `fan listen ARGS`, and wait until it listens."""

    def start(*args: str, **vars: str) -> Any:
        process = start_fan("listen", *args, **vars)
        process.wait_for("listening")
        return process

    return start


def tell(fan: Fan, topic: str, *items: str) -> None:
    ran = fan("push", "--topic", topic, *items)
    assert ran.exit == 0, ran


@over_every_broker
def test_events_come_in_their_order_a_line_each(
    fan: Fan, shop: Shop, listen: Callable[..., Any]
) -> None:
    listeners = [listen(shop.topic, "-N", "3") for _ in range(2)]
    for n in range(4):
        tell(fan, shop.topic, f"n:={n}", "tags[]=x")
    for listener in listeners:
        assert listener.wait() == 0
        assert listener.stdout == [f'{{"n":{n},"tags":["x"]}}' for n in range(3)]


@over_every_broker
def test_json_tells_all_that_is_known_of_an_event(
    fan: Fan, shop: Shop, listen: Callable[..., Any]
) -> None:
    args = (shop.topic, "--json", "-N", "1")
    plain, shown = listen(*args), listen(*args, "--show-secrets")
    options = ("-H", "X-Token: hush", "-H", "X-Team: blue", "-B", "user=7", "--caller", "crm")
    tell(fan, shop.topic, "item=apple", *options, "--ttl", "1h")
    assert plain.wait() == shown.wait() == 0
    (event,) = map(json.loads, plain.stdout)
    assert event["v"] == 1
    assert event["ok"] is True
    assert (event["topic"], event["transport"]) == (shop.topic, shop.broker)
    assert event["body"] == {"item": "apple"}
    assert event["headers"] == {"x-token": "****", "x-team": "blue"}
    assert event["baggage"] == {"user": "7"}
    assert (event["caller"], event["attempt"], event["ttl_ms"]) == ("crm", 0, 3_600_000)
    assert event["id"]
    assert event["at"].endswith("Z")
    assert json.loads(shown.stdout[0])["headers"]["x-token"] == "hush"


@over_every_broker
def test_a_group_shares_and_keeps_what_comes_while_nobody_is_there(
    fan: Fan, shop: Shop, listen: Callable[..., Any]
) -> None:
    first = listen(shop.topic, "--group", "audit", "-N", "1")
    tell(fan, shop.topic, "n:=0")
    assert first.wait() == 0
    for n in range(1, 4):
        tell(fan, shop.topic, f"n:={n}")
    # What the first leaves is there for the second: nothing is fetched that is not printed.
    for n in range(1, 4):
        ran = fan("listen", shop.topic, "--group", "audit", "-N", "1")
        assert (ran.exit, ran.stdout) == (0, f'{{"n":{n}}}\n')
    assert shop.queue(f"{shop.topic}/audit")["ready"] == 0


def test_several_topics_are_heard_at_once(
    fan: Fan, broker: str, listen: Callable[..., Any]
) -> None:
    process = listen("a.b", "c.d", "a.b", "--json", "-N", "2")
    tell(fan, "a.b", "x=1")
    tell(fan, "c.d", "x=2")
    assert process.wait() == 0
    assert [json.loads(line)["topic"] for line in process.stdout] == ["a.b", "c.d"]


def test_a_listener_of_a_terminal_shows_it_readable(
    fan: Fan, listen: Callable[..., Any], on_terminal: Callable[..., Ran]
) -> None:
    group = listen("a.b", "--group", "g")  # which is there from now on
    group.send(signal.SIGINT)
    assert group.wait() == 130
    tell(fan, "a.b", "x:=1")
    ran = on_terminal("listen", "a.b", "--group", "g", "-N", "1", NO_COLOR="1")
    assert (ran.exit, ran.stdout) == (0, '{\n  "x": 1\n}\n')


@over_every_broker
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_without_a_traceback(
    shop: Shop, listen: Callable[..., Any], number: int, status: int
) -> None:
    process = listen(shop.topic)
    process.send(number)
    assert process.wait() == status
    assert process.stdout == []
    assert len(process.stderr) == 1


def test_a_reader_that_goes_ends_it_though_nothing_comes(broker: str) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "listen", "a.b"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=variables(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stderr as talk:
        try:
            assert talk.readline().startswith(b"listening")
            process.stdout.close()
            assert process.wait(HANG) == 141
            assert talk.read() == b""
        finally:
            process.kill()


def test_what_could_not_be_printed_is_left_to_the_group(
    fan: Fan, shop: Shop, listen: Callable[..., Any]
) -> None:
    group = listen(shop.topic, "--group", "audit")  # which is there from now on
    group.send(signal.SIGINT)
    assert group.wait() == 130
    tell(fan, shop.topic, "n:=1")
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [*PROGRAM, "listen", shop.topic, "--group", "audit"], stdin=subprocess.DEVNULL,
            stdout=full, stderr=subprocess.PIPE, env=variables(), timeout=HANG, check=False,
        )  # fmt: skip
    assert process.returncode == 1
    ran = fan("listen", shop.topic, "--group", "audit", "-N", "1")
    assert ran.stdout == '{"n":1}\n'


@over_every_broker
def test_a_command_that_fails_gets_the_event_again(
    fan: Fan, shop: Shop, listen: Callable[..., Any], private: Path
) -> None:
    line = (
        f'echo "$FAN_TOPIC $FAN_ATTEMPT $FAN_BODY" >> {private}/said; cat >> {private}/stdin;'
        f" test $FAN_ATTEMPT -ge 1"
    )
    process = listen(shop.topic, "--group", "audit", "--exec", line, "-N", "1", "--json")
    tell(fan, shop.topic, "n:=1")
    assert process.wait() == 0
    assert (private / "said").read_text() == "".join(
        f'{shop.topic} {attempt} {{"n":1}}\n' for attempt in range(2)
    )
    given = (private / "stdin").read_text().splitlines()
    assert [json.loads(each) for each in given] == [json.loads(each) for each in process.stdout]
    assert "ended with 1; the event is delivered again" in "".join(process.stderr)


@pytest.mark.redis
def test_it_goes_on_when_its_broker_comes_back(
    fan: Fan, new_redis: Callable[..., Any], listen: Callable[..., Any], monkeypatch: Any
) -> None:
    server = new_redis()
    monkeypatch.setenv("FAN_REDIS_URL", server.url)
    monkeypatch.setenv("FAN_QUEUE", "redis")
    process = listen("a.b", "--group", "audit")
    tell(fan, "a.b", "n:=1")
    assert process.wait_for("n", "stdout") == '{"n":1}'
    server.kill()
    server.start()
    tell(fan, "a.b", "n:=2")
    assert process.wait_for("n", "stdout") == '{"n":2}'
    process.send(signal.SIGTERM)
    assert process.wait() == 143


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "missing argument"),
        (("no topic",), "TOPIC 'no topic': 'no topic' is no name"),
        (("a.b", "--group", "no group"), "--group 'no group'"),
        (("a.b", "-t", "ipc"), "-t ipc: ipc carries no events"),
        (("a.b", "-p", "http://127.0.0.1:1"), "http carries no events"),
        (("a.b", "-t", "redis", "-p", "redis://127.0.0.1:1"), "-t and -p: one of them"),
        (("a.b", "-N", "0"), "0 is not in the range"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    fan: Fan, args: tuple[str, ...], said: str
) -> None:
    ran = fan("listen", *args)
    assert (ran.exit, ran.stdout) == (2, "")
    assert said.partition(": one")[0] in ran.stderr


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_cannot_be_reached_is_said_at_once(fan: Fan, scheme: str) -> None:
    ran = fan("listen", "a.b", "-p", NOWHERE[f"FAN_{scheme.upper()}_URL"])
    assert (ran.exit, ran.stdout) == (6, "")
    assert ran.stderr.startswith("fan: unavailable: a.b: cannot connect to ")
    assert "hint: is the broker running?" in ran.stderr
