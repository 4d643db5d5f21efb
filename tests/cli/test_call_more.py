"""What else `fan call` does: waits, retries, health, parts, other words, peers, the editor."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import HANG, envelope, variables

if TYPE_CHECKING:
    from tests.cli.conftest import Demo, Fan, Ran

Start = Callable[..., "subprocess.Popen[bytes]"]
Shell = Callable[..., "Ran"]

FLAKY = """
from fan import Service, current, rpc

class Flaky(Service):
    name = "flaky"
    version = "1.0.0"
    runs = 0
    keys = []

    def health(self):
        return {"disk": "full"}

    @rpc
    def third(self) -> dict:
        Flaky.runs += 1
        if Flaky.runs % 3:
            raise ValueError("not yet")
        return {"runs": Flaky.runs}

    @rpc
    def traced(self) -> str:
        return current().traceparent
"""


@pytest.fixture
def flaky(private: Path) -> str:
    """The address of a service that fails twice before it answers, and is not well."""
    (private / "flaky.py").write_text(FLAKY)
    return f"local:{private}/flaky.py"


def ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stderr is not None
    while process.stderr.readline() != b"ready\n":
        pass


# --- again ---


def test_all_errors_are_retried_only_when_asked_for(fan: Fan, flaky: str) -> None:
    ran = fan("call", "flaky.third", "-p", flaky, "--retry", "5")
    assert (ran.exit, ran.stdout) == (5, "")
    ran = fan("call", "flaky.third", "-p", flaky, "--retry", "5", "--retry-all-errors", "--json")
    found = envelope(ran)
    assert (ran.exit, found["result"], found["attempts"]) == (0, {"runs": 3}, 3)


def test_the_pause_between_attempts_is_the_one_that_is_named(fan: Fan, flaky: str) -> None:
    delay = ("--retry-all-errors", "--retry-delay", "200ms")
    began = time.monotonic()
    assert fan("call", "flaky.third", "-p", flaky, *delay).stdout == '{"runs":3}\n'
    assert time.monotonic() - began > 0.4


def test_a_retry_ends_with_the_budget(fan: Fan) -> None:
    again = ("--retry", "100", "--retry-delay", "10s", "--timeout", "1s")
    began = time.monotonic()
    assert fan("call", "a.b", "-p", "http://127.0.0.1:1", *again).exit == 6
    assert time.monotonic() - began < HANG / 5


def test_a_key_runs_once(fan: Fan, demo: Demo, start: Start, private: Path) -> None:
    (private / "flaky.py").write_text(FLAKY)
    server = start("serve", f"{private}/flaky.py")
    ready(server)
    keyed = [fan("call", "flaky.third", "--idempotency-key", "k").stderr for _ in range(3)]
    assert len(set(keyed)) == 1  # the third run of it would have gone well
    auto = [fan("call", "flaky.third", "--idempotency-key", "auto").exit for _ in range(2)]
    assert auto == [5, 0]


def test_waiting_ends_when_the_service_is_there(
    start: Start, fan: Fan, registry_url: str
) -> None:
    caller = start("call", "greeter.hello", "name=Ada", "--wait-ready=45s")
    server = start("serve", "fan.demo.v1")
    stdout, stderr = caller.communicate(timeout=HANG)
    assert (caller.returncode, stdout, stderr) == (0, b'"Hello Ada"\n', b"")
    server.terminate()


def test_waiting_for_an_address_ends_when_somebody_answers(fan: Fan, demo: Demo) -> None:
    for wait in (("--wait-ready",), ("--wait-ready", "30s"), ("--wait-ready=30s",)):
        ran = fan("call", "greeter.hello", *wait, "name=Ada", "-p", demo.url)
        assert ran == (0, '"Hello Ada"\n', "")


@pytest.mark.parametrize(
    "args",
    [
        ("ghost.x", "--wait-ready=1s"),
        ("ghost.x", "--wait-ready", "--timeout", "1s"),
        ("greeter.hello@9", "--wait-ready=1s"),
        ("a.b", "--wait-ready=1s", "-p", "http://127.0.0.1:1"),
    ],
)
def test_waiting_in_vain_is_safe_to_retry(fan: Fan, demo: Demo, args: tuple[str, ...]) -> None:
    ran = fan("call", *args)
    assert (ran.exit, ran.stdout) == (6, "")
    assert "not ready within 1s" in ran.stderr
    assert "(executed: no)" in ran.stderr


def test_a_method_that_is_missing_is_not_waited_for(fan: Fan, demo: Demo) -> None:
    assert fan("call", "greeter.helo", "--wait-ready=40s").exit == 3


def test_a_breaker_leaves_alone_what_keeps_failing_unless_it_is_left_out(
    fan: Fan, demo: Demo
) -> None:
    ran = fan("call", "greeter.boom", "-N", "8", "--json")
    reasons = [json.loads(line)["error"]["reason"] for line in ran.stdout.splitlines()]
    assert reasons == [""] * 5 + ["circuit_open"] * 3
    ran = fan("call", "greeter.boom", "-N", "8", "--json", "--no-breaker")
    assert "circuit_open" not in ran.stdout


def test_a_batch_makes_up_a_key_for_each_call(fan: Fan, start: Start, private: Path) -> None:
    (private / "flaky.py").write_text(FLAKY)
    ready(start("serve", f"{private}/flaky.py"))
    ran = fan("call", "flaky.third", "--idempotency-key", "auto", "-N", "3", "-q")
    assert ran.stdout == '{"runs":3}\n'


# --- what is shown ---


def test_health_is_0_or_5(fan: Fan, demo: Demo, flaky: str) -> None:
    assert fan("call", "greeter", "--health") == (0, '"ok"\n', "")
    assert envelope(fan("call", "greeter@2", "--health", "--json"))["version"] == "2.0.0"
    ran = fan("call", "flaky", "--health", "-p", flaky)
    assert (ran.exit, ran.stdout) == (5, "")
    assert '{"disk":"full"}' in ran.stderr
    error = envelope(fan("call", "flaky", "--health", "-p", flaky, "--json"))["error"]
    assert (error["exit"], error["reason"], error["details"]) == (5, "unhealthy", {"disk": "full"})
    assert fan("call", "ghost", "--health").exit == 3
    assert fan("call", "x", "--health", "-p", "http://127.0.0.1:1").exit == 6


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("kwargs.a.b[1]", "2"),
        (".kwargs.a", '{"b":[1,2]}'),
        ("/kwargs/a/b/0", "1"),
        ("kwargs['s']", '"x y"'),
        ("kwargs.a.b[-1]", "2"),
        (".", '{"args":[],"kwargs":{"a":{"b":[1,2]},"s":"x y"}}'),
    ],
)
def test_a_part_of_the_result(fan: Fan, demo: Demo, path: str, shown: str) -> None:
    payload = '{"a":{"b":[1,2]},"s":"x y"}'
    assert fan("call", "greeter.echo", payload, "--get", path).stdout == f"{shown}\n"


def test_a_part_is_bare_with_r_and_the_result_of_the_object(fan: Fan, demo: Demo) -> None:
    assert fan("call", "greeter.echo", "s=x y", "--get", "kwargs.s", "-r").stdout == "x y\n"
    ran = fan("call", "greeter.echo", "s=x", "--get", "kwargs.s", "--json")
    assert envelope(ran)["result"] == "x"


def test_a_part_that_is_not_there_is_3(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.echo", "--get", "kwargs.a")
    assert (ran.exit, ran.stdout) == (3, "")
    assert "the result has no kwargs.a" in ran.stderr


def test_print_shows_what_its_letters_name(fan: Fan, demo: Demo) -> None:
    masked = ("-H", "Authorization: hush", "-B", "user=7")
    ran = fan("call", "greeter.hello", "name=Ada", "--print", "HBrhbm", *masked)
    sent, body, route, reply, result, meta = ran.stdout.split("\n\n")
    assert sent.splitlines() == [
        "call greeter.hello timeout=5000ms", "authorization: ****", "baggage: user=7"
    ]  # fmt: skip
    assert body == '{"name":"Ada"}'
    assert route.startswith("version 1.0.0: ")
    assert reply.startswith("ok 1.0.0 greeter-")
    assert result == '"Hello Ada"'
    assert "total=" in meta
    assert fan("call", "greeter.hello", "--print", "b").stdout == '"Hello World"\n'
    assert fan("call", "greeter.count", "n=2", "--print", "Bb").stdout == '{"n":2}\n\n0\n1\n'


def test_what_print_shows_of_a_request_that_fails_is_talk(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.boom", "a=1", "--print", "HBb", "-H", "x: y")
    assert (ran.exit, ran.stdout) == (4, "")
    assert ran.stderr.splitlines()[:3] == [
        "> call greeter.boom timeout=5000ms", "> x: y", '> {"a":"1"}'
    ]  # fmt: skip


def test_explain_says_why_on_stderr_and_in_the_object(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.hello@2", "--explain")
    assert ran.stdout == '"Hi World"\n'
    said = ran.stderr.splitlines()
    assert [line.split()[1] for line in said] == ["version", "instance", "transport"]
    found = envelope(fan("call", "greeter.hello@2", "--explain", "--json"))
    assert found["why"] == [line.removeprefix("* ") for line in said]
    assert f"instance {found['instance']}: " in found["why"][1]


def test_a_call_in_other_words_is_the_same_call(
    fan: Fan, shell: Shell, demo: Demo, private: Path
) -> None:
    args = ("greeter.echo", "q=it's", "n:=1", "=x", "-H", "x-a: b", "-B", "u=7")
    result = fan("call", *args).stdout
    python = fan("call", *args, "--as", "python").stdout
    run = subprocess.run(
        [sys.executable, "-"], input=python.encode(), env=variables(), capture_output=True,
        timeout=HANG, check=True,
    )  # fmt: skip
    assert run.stdout.decode() == f"{json.loads(result)}\n"
    file = fan("call", *args, "--as", "file").stdout
    assert fan("call", "-f", "-", stdin=file.encode()).stdout == result
    assert file.startswith("#!/usr/bin/env -S fan call -f\n")
    curl = fan("call", *args, "--as", "curl").stdout
    words = shell(f"printf '%s\\n' {curl.removeprefix('curl ')}").stdout.splitlines()
    assert f"{demo.url}/rpc/greeter/echo" in words
    assert "x-a: b" in words
    assert json.loads(words[-1]) == {"args": ["x"], "kwargs": {"q": "it's", "n": 1}}


def test_other_words_hold_no_secret_and_send_nothing(fan: Fan, demo: Demo) -> None:
    for language in ("curl", "python", "file"):
        secret = ("greeter.boom", "password=hush", "-H", "Authorization: hush")
        ran = fan("call", *secret, "--as", language)
        assert (ran.exit, ran.stderr) == (0, "")
        assert "hush" not in ran.stdout
        assert "hush" in fan("call", *secret, "--as", language, "--show-secrets").stdout


# --- where ---


def test_peers_come_from_a_file(fan: Fan, demo: Demo, private: Path) -> None:
    host = demo.url.removeprefix("http://")
    for text in (f"# ours\n\n{demo.url}\n", host, json.dumps([demo.url]), f"- {demo.url}\n"):
        (private / "peers").write_text(text)
        ran = fan("call", "greeter.hello", "-P", f"{private}/peers")
        assert ran.stdout == '"Hello World"\n', ran
    (private / "peers").write_text(f"http://127.0.0.1:1\n{demo.url}\n")
    assert fan("call", "greeter.hello", "-P", f"{private}/peers").stdout == '"Hello World"\n'
    (private / "peers").write_text("# none\n")
    assert fan("call", "greeter.hello", "-P", f"{private}/peers").exit == 2


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """An http server that answers every GET with `body`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/peers"
        server.shutdown()
        thread.join(HANG)


def test_peers_come_from_a_url(fan: Fan, demo: Demo) -> None:
    with serving(f"{demo.url}\n".encode()) as url:
        assert fan("call", "greeter.hello", "-P", url).stdout == '"Hello World"\n'
    ran = fan("call", "greeter.hello", "-P", url)
    assert (ran.exit, ran.stdout) == (2, "")


def test_the_same_routing_key_reaches_the_same_version(fan: Fan, demo: Demo) -> None:
    served = {
        envelope(fan("call", "greeter.hello", "--rk", "ada", "--json"))["version"]
        for _ in range(3)
    }
    assert len(served) == 1


def test_the_sampled_flag_is_the_users(fan: Fan, start: Start, private: Path, demo: Demo) -> None:
    (private / "flaky.py").write_text(FLAKY)
    ready(start("serve", f"{private}/flaky.py"))
    for option, flags in (("--sample", "01"), ("--no-sample", "00")):
        ran = fan("call", "flaky.traced", option, "-r")
        assert ran.stdout.strip().endswith(f"-{flags}"), ran


# --- the editor ---


def test_the_editor_begins_with_what_the_method_takes(
    fan: Fan, demo: Demo, private: Path
) -> None:
    (private / "editor").write_text(f'cp "$1" {private}/seen; printf \'{{"a": 40, "b": 2}}\' >"$1"')
    editor = f"sh {private}/editor"
    ran = fan("call", "greeter.add", "b=1", "--edit", VISUAL="", EDITOR=editor)
    assert (ran.exit, ran.stdout) == (0, "42\n"), ran
    assert json.loads((private / "seen").read_text()) == {"a": 0, "b": 1}


def test_a_call_goes_where_the_route_leads_when_the_editor_is_closed(
    fan: Fan, demo: Demo, private: Path
) -> None:
    switch = f"{sys.executable} -P -m fancli version switch greeter=2 >/dev/null"
    (private / "editor").write_text(f'{switch}; printf \'{{"name": "Ada"}}\' >"$1"')
    try:
        ran = fan("call", "greeter.hello", "--edit", VISUAL="", EDITOR=f"sh {private}/editor")
    finally:
        fan("version", "switch", "greeter=1")
    assert (ran.exit, ran.stdout) == (0, '"Hi Ada"\n'), ran


@pytest.mark.parametrize(
    ("editor", "status", "said"),
    [("false", 4, "ended with 1"), ("truncate -s 0", 2, "nothing was sent"),
     ("sh -c 'echo [ >$0'", 2, "what was edited is in")],
)  # fmt: skip
def test_an_edit_that_comes_to_nothing_sends_nothing(
    fan: Fan, demo: Demo, editor: str, status: int, said: str, private: Path
) -> None:
    edit = ("greeter.boom", "--edit")
    folder = private / "temp"
    folder.mkdir()
    ran = fan("call", *edit, VISUAL="", EDITOR=editor, TMPDIR=str(folder))
    assert (ran.exit, ran.stdout) == (status, ""), ran
    assert said in ran.stderr
    kept = list(folder.iterdir())
    assert len(kept) == ran.stderr.count("what was edited is in"), "a draft that nobody touched"
