"""`fan call` more than once: --each, --repeat, --fanout and --against."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import HANG, PROGRAM, envelope, variables

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Demo, Fan, Ran

Shell = Callable[..., "Ran"]

BATCH = b'{"name":"a"}\n[1\n{"nme":1}\n"x"\n\n["z"]'


@contextmanager
def fed(*args: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program with a stdin that stays open."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*PROGRAM, *args], stdin=pipe, stdout=pipe, stderr=pipe, env=variables()
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def write(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    """Wait for the end, whatever happens to stdin, and read the rest."""
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = process.stdout.read(), process.stderr.read()
    return process.wait(HANG), stdout, stderr


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("more", [(), ("--json",), ("-c", "4"), ("-t", "http")])
def test_each_answers_a_mixed_batch_in_order_and_exits_with_9(
    fan: Fan, demo: Demo, more: tuple[str, ...]
) -> None:
    ran = fan("call", "greeter.hello", "--each", *more, stdin=BATCH)
    found = objects(ran.stdout)
    assert (ran.exit, ran.stderr) == (9, "")
    assert [(o["line"], o["ok"]) for o in found] == [
        (1, True), (2, False), (3, False), (4, False), (6, True)
    ]  # fmt: skip
    assert [o["result"] for o in found if o["ok"]] == ["Hello a", "Hello z"]
    assert [o["error"]["reason"] for o in found if not o["ok"]] == [
        "malformed", "bad_signature", "malformed"
    ]  # fmt: skip
    assert all(o["target"] == "greeter.hello" for o in found)


def pump(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes one way, to the end."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def counted(url: str) -> Iterator[tuple[str, list[int]]]:
    """An address in front of another one, and the connections to it so far."""
    port, taken = int(url.rpartition(":")[2]), []

    def serve() -> None:
        with suppress(OSError):  # until it is closed
            while True:
                near, _ = listener.accept()
                taken.append(1)
                with near, socket.create_connection(("127.0.0.1", port)) as far:
                    back = threading.Thread(target=pump, args=(far, near))
                    back.start()
                    pump(near, far)
                    back.join(HANG)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", taken
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(HANG)


def test_each_of_a_thousand_lines_goes_over_one_connection(fan: Fan, demo: Demo) -> None:
    lines = b"".join(b'{"a":%d,"b":1}\n' % n for n in range(1000))
    with counted(demo.url) as (url, taken):
        ran = fan("call", "greeter.add", "--each", "-r", "-p", url, stdin=lines)
    assert ran.stdout.split() == [str(n + 1) for n in range(1000)]
    assert (ran.exit, len(taken)) == (0, 1)


@pytest.mark.parametrize("more", [(), ("-c", "3"), ("-c", "3", "--unordered")])
def test_an_answer_is_printed_while_more_lines_may_come(
    demo: Demo, more: tuple[str, ...]
) -> None:
    with fed("call", "greeter.hello", "--each", *more) as process:
        assert process.stdout is not None
        for name in ("a", "b", "c"):
            write(process, b'{"name":"%s"}\n' % name.encode())
            assert json.loads(process.stdout.readline())["result"] == f"Hello {name}"
        assert process.stdin is not None
        process.stdin.close()
        assert ended(process) == (0, b"", b"")


def test_unordered_prints_what_is_done_first(demo: Demo) -> None:
    with fed("call", "greeter.slow", "--each", "-c", "2", "--unordered") as process:
        assert process.stdout is not None
        write(process, b'{"s":40}\n{"s":0.01}\n')
        assert json.loads(process.stdout.readline())["line"] == 2
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 143


@pytest.mark.parametrize("more", [(), ("-c", "4")])
def test_fail_fast_ends_at_the_first_failure_though_stdin_is_open(
    demo: Demo, more: tuple[str, ...]
) -> None:
    with fed("call", "greeter.boom", "--each", "--fail-fast", *more) as process:
        write(process, b"{}\n")
        status, stdout, _ = ended(process)
        assert (status, len(stdout.splitlines())) == (9, 1)


def test_each_without_a_line_is_no_failure_and_a_closed_stdin_is_one(
    fan: Fan, shell: Shell, demo: Demo
) -> None:
    assert fan("call", "greeter.hello", "--each") == (0, "", "")
    ran = shell('"$@" call greeter.hello --each <&-')
    assert (ran.exit, ran.stdout) == (2, "")
    assert "stdin is closed" in ran.stderr


def test_each_of_a_stream_answers_with_its_items(fan: Fan, demo: Demo) -> None:
    for more in ((), ("-p", demo.url)):
        ran = fan("call", "greeter.count", "--each", *more, stdin=b'{"n":2}\n{"n":0}\n')
        assert [(o["result"], o["items"]) for o in objects(ran.stdout)] == [([0, 1], 2), ([], 0)]


def test_a_part_of_each_answer_is_printed_bare_and_a_failure_is_talk(
    fan: Fan, demo: Demo
) -> None:
    ran = fan("call", "greeter.hello", "--each", "-r", stdin=BATCH)
    assert (ran.exit, ran.stdout) == (9, "Hello a\nHello z\n")
    assert "fan: line 3: invalid_argument: greeter.hello: no such parameter" in ran.stderr
    lines = b'{"a":{"b":1}}\n{"a":{}}\n'
    ran = fan("call", "greeter.echo", "--each", "--get", "kwargs.a.b", stdin=lines)
    assert (ran.exit, ran.stdout) == (9, "1\n")
    assert "line 2" in ran.stderr


def test_the_reader_of_a_batch_may_leave(shell: Shell, demo: Demo) -> None:
    ran = shell(
        'yes \'{"name":"a"}\' | "$@" call greeter.hello --each -r | head -2;'
        ' exit "${PIPESTATUS[1]}"'
    )
    assert ran == (141, "Hello a\nHello a\n", "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("more", [(), ("-c", "4")])
def test_a_signal_ends_a_batch(
    demo: Demo, number: signal.Signals, status: int, more: tuple[str, ...]
) -> None:
    with fed("call", "greeter.hello", "--each", "-r", *more) as process:
        assert process.stdout is not None
        write(process, b"{}\n")
        assert process.stdout.readline() == b"Hello World\n"
        process.send_signal(number)
        assert ended(process) == (status, b"", b"")


def test_repeat_makes_the_call_again(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.add", "a=1", "b=2", "-N", "3", "--interval", "1ms")
    assert ran == (0, "3\n3\n3\n", "")
    ran = fan("call", "greeter.add", "a=1", "b=2", "-N", "2", "--json", "-c", "2")
    assert [o["result"] for o in objects(ran.stdout)] == [3, 3]
    ran = fan("call", "greeter.boom", "-N", "2", "-q")
    assert (ran.exit, ran.stdout, ran.stderr.count("boom (executed: yes)")) == (9, "", 2)
    assert fan("call", "greeter.boom", "-N", "9", "--fail-fast").stderr.count("boom (") == 1


def test_an_interval_alone_goes_on_until_the_user_has_enough(demo: Demo) -> None:
    with fed("call", "greeter.hello", "--interval", "1ms", "-r") as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == b"Hello World\n"
        process.send_signal(signal.SIGINT)
        status, _, stderr = ended(process)
        assert (status, stderr) == (130, b"")


def test_fanout_calls_every_instance_or_those_of_a_version(fan: Fan, demo: Demo) -> None:
    found = objects(fan("call", "greeter.whoami", "--fanout").stdout)
    assert [o["version"] for o in found] == ["1.0.0", "2.0.0"]
    assert all(o["result"]["instance"] == o["instance"] for o in found)
    found = objects(fan("call", "greeter.whoami@2", "--fanout", "--json").stdout)
    assert [o["version"] for o in found] == ["2.0.0"]
    twice = ("-p", demo.url, "-p", demo.url)
    assert len(objects(fan("call", "greeter.whoami", "--fanout", *twice).stdout)) == 2


def test_a_part_of_each_answer_of_a_fanout_is_printed_bare(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.whoami", "--fanout", "--get", "version", "-r")
    assert ran == (0, "1.0.0\n2.0.0\n", "")
    ran = fan("call", "greeter.whoami", "--fanout", "--get", "nothing")
    assert (ran.exit, ran.stdout, ran.stderr.count("the result has no nothing")) == (9, "", 2)


def test_a_fanout_of_which_some_fail_exits_with_9_and_names_them(fan: Fan, demo: Demo) -> None:
    gone = "http://127.0.0.1:1"
    ran = fan("call", "greeter.hello", "--fanout", "-p", demo.url, "-p", gone)
    good, bad = objects(ran.stdout)
    assert (ran.exit, good["ok"], bad["ok"], bad["instance"]) == (9, True, False, gone)
    ran = fan("call", "greeter.boom", "--fanout")
    assert (ran.exit, [o["ok"] for o in objects(ran.stdout)]) == (9, [False, False])
    ran = fan("call", "gretter.hello", "--fanout")
    assert (ran.exit, ran.stdout) == (3, "")


def test_the_replies_of_a_fanout_are_compared(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.hello", "name=Ada", "--fanout", "--diff")
    assert ran.exit == 9
    assert ran.stdout.splitlines()[3:] == ['-"Hello Ada"', '+"Hi Ada"']
    assert fan("call", "greeter.add", "a=1", "b=2", "--fanout", "--diff", "-q") == (0, "3\n", "")
    ran = fan("call", "greeter.hello", "--fanout", "--diff", "--json")
    *answers, diff = objects(ran.stdout)
    assert (len(answers), diff["kind"], diff["same"], diff["ok"]) == (2, "diff", False, False)
    assert [group["result"] for group in diff["groups"]] == ["Hello World", "Hi World"]


def test_two_versions_are_held_against_each_other(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.hello", "--against", "@1", "@2", "name=Ada")
    assert ran.exit == 9
    lines = ran.stdout.splitlines()
    assert lines[3:] == ['-"Hello Ada"', '+"Hi Ada"']
    assert lines[0].endswith(" 1.0.0")
    assert lines[1].endswith(" 2.0.0")
    assert fan("call", "greeter.add", "a=1", "b=2", "--against", "1", "~=2.0") == (0, "3\n", "")


def test_what_differs_between_two_versions_is_in_the_object(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.hello", "--against", "@1", "@2", "--json")
    found = envelope(ran)
    assert (ran.exit, found["ok"], found["same"]) == (9, False, False)
    assert found["diff"] == [{"path": "result", "left": "Hello World", "right": "Hi World"}]
    assert [reply["version"] for reply in found["replies"]] == ["1.0.0", "2.0.0"]
    assert found["error"]["exit"] == 9
    found = envelope(fan("call", "greeter.add", "a=1", "b=2", "--against", "@1", "@2", "--json"))
    assert (found["ok"], found["same"], found["diff"]) == (True, True, [])


def test_versions_that_fail_alike_fail(fan: Fan, demo: Demo) -> None:
    ran = fan("call", "greeter.boom", "--against", "@1", "@2")
    assert (ran.exit, ran.stdout) == (5, "")
    ran = fan("call", "greeter.hello", "--against", "@1", "@9")
    assert (ran.exit, ran.stdout) == (3, "")


TWO = """
from fan import Service, rpc

class One(Service):
    name = "shop"
    version = "1.0.0"

    @rpc
    def price(self, fruit: str) -> int:
        return 30

class Two(Service):
    name = "shop"
    version = "2.0.0"

    @rpc
    def price(self, fruit: str, count: int) -> int:
        return 30 * count
"""


def test_a_version_that_refuses_the_arguments_answers_differently(
    fan: Fan, start: Callable[..., subprocess.Popen[bytes]], private: Path
) -> None:
    (private / "two.py").write_text(TWO)
    server = start("serve", f"{private}/two.py")
    assert server.stderr is not None
    while server.stderr.readline() != b"ready\n":
        pass
    ran = fan("call", "shop.price", "fruit=pear", "--against", "@1", "@2")
    assert ran.exit == 9
    assert "-30" in ran.stdout.splitlines()
    assert "bad_signature" in ran.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--each", "a=1"), "--each and a payload"),
        (("--each", "-f", "-"), "both read stdin"),
        (("--each", "-N", "2"), "--each and --repeat"),
        (("--fanout", "--dry-run"), "--fanout and --dry-run"),
        (("--diff",), "--diff goes with --fanout"),
        (("--fanout", "--diff", "--get", "a"), "--get and --diff"),
        (("--against", "@1", "@2", "--get", "a"), "--get and --against"),
        (("-c", "2"), "-c goes with --each"),
        (("-c", "0", "--each"), "-c"),
        (("-N", "0"), "--repeat"),
        (("--fail-fast",), "--fail-fast goes with"),
        (("-A", "a=b"), "-A goes with -f"),
        (("--print", "x"), "--print 'x'"),
        (("--against", "@1"), "--against"),
        (("--against", "@1", "@"), "no version behind the @"),
        (("--fanout", "-o", "x"), "-o"),
        (("--as", "cobol"), "--as"),
        (("--get", "a["), "--get"),
        (("--wait-ready=soon",), "--wait-ready"),
        (("--retry-delay", "soon"), "--retry-delay"),
        (("--record", "/does/not/exist/f"), "--record"),
        (("-P", "/does/not/exist"), "-P"),
        (("-f", "/does/not/exist"), "-f"),
    ],
)
def test_what_does_not_go_together_sends_nothing(
    fan: Fan, registry_url: str, args: tuple[str, ...], said: str
) -> None:
    ran = fan("call", "greeter.hello", *args)
    assert (ran.exit, ran.stdout) == (2, ""), ran
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) <= 2


def test_an_object_has_no_parts_to_print(fan: Fan) -> None:
    ran = fan("call", "greeter.hello", "--print", "h", "--json")
    assert (ran.exit, envelope(ran)["error"]["reason"]) == (2, "usage")


def test_a_target_is_needed(fan: Fan) -> None:
    for args in ((), ("--each",), ("--health",)):
        ran = fan("call", *args)
        assert (ran.exit, ran.stdout) == (2, "")
        assert "TARGET" in ran.stderr


def test_a_batch_goes_on_with_what_is_up_after_an_instance_has_gone(
    fan: Fan, start: Callable[..., subprocess.Popen[bytes]], registry_url: str
) -> None:
    servers = [start("serve", "fan.demo.v1") for _ in range(2)]
    for server in servers:
        assert server.stderr is not None
        while server.stderr.readline() != b"ready\n":
            pass
    with fed("call", "greeter.hello", "--each", "-r") as process:
        assert process.stdout is not None
        for _ in range(4):
            write(process, b"{}\n")
            assert process.stdout.readline() == b"Hello World\n"
        servers[0].terminate()
        servers[0].communicate(timeout=HANG)
        for _ in range(4):
            write(process, b"{}\n")
            assert process.stdout.readline() == b"Hello World\n"
        assert process.stdin is not None
        process.stdin.close()
        assert ended(process)[0] == 0


def test_the_record_of_a_batch_has_a_line_for_each(
    fan: Fan, demo: Demo, private: Path
) -> None:
    fan("call", "greeter.hello", "--each", "--record", f"{private}/r", "-c", "3", stdin=BATCH)
    kept = objects((private / "r").read_text())
    assert sorted(json.dumps(line["body"]) for line in kept) == [
        '["z"]', '{"name": "a"}', '{"nme": 1}'
    ]  # fmt: skip
