"""What works, sync and through futures."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

import pytest

from fan.errors import Internal, InvalidArgument, ResourceExhausted, Unavailable
from fan.message import Request
from fan.model import Address


def test_a_call_is_answered_with_its_body(place: Any) -> None:
    response = place.call("echo", b"[1]")
    assert (response.id, response.code, response.body) == ("id-echo", "ok", b"[1]")


def test_a_submitted_request_is_answered(place: Any) -> None:
    assert place.submit("echo", b"[1]").result(20).body == b"[1]"


def test_every_field_of_the_envelope_arrives(place: Any) -> None:
    sent = Request(
        id="1", service="a.b", method="echo", timeout_ms=5000, key="k", want=">=1", gen=7,
        instance="i", shard="s", deadline_ms=9, ttl_ms=8, traceparent="t", tracestate="u",
        baggage={"a": "ü"}, headers={"h": "v"}, caller="c", caller_instance="ci", principal="p",
        attempt=2, hops=3, content_type="text/plain", body=b"\0\xff",
    )  # fmt: skip
    got: list[Request] = []
    place.handler.do_echo = lambda request, _: got.append(request) or _answer(request)
    place.client.call(place.address, sent)
    assert got == [sent]


def _answer(request: Request) -> Any:
    from fan.message import Response

    return Response(id=request.id)


def test_a_thousand_calls_use_one_connection(place: Any) -> None:
    for _ in range(1000):
        place.call("echo")
    assert place.client._pool.count() == 1
    assert len(place.listener._sessions) == 1


def test_a_thousand_in_flight_need_one_thread_more(place: Any) -> None:
    before = threading.active_count()
    futures = [place.submit("later") for _ in range(1000)]
    for _ in futures:
        assert place.handler.entered.acquire(timeout=20)
    named = [t.name for t in threading.enumerate() if t.name == "fan-ipc-io"]
    assert len(named) == 1
    assert threading.active_count() >= before
    for answer in place.handler.futures:
        answer.set_result(_answer(place.request("later")))
    assert all(future.result(20).code == "ok" for future in futures)


def test_submitted_calls_run_in_parallel(place: Any) -> None:
    futures = [place.submit("wait") for _ in range(64)]
    for _ in futures:  # all are inside at once, or this never ends
        assert place.handler.entered.acquire(timeout=20)
    place.handler.release.set()
    assert all(future.result(20).code == "ok" for future in futures)


def test_calls_of_many_threads_run_in_parallel(place: Any) -> None:
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(place.call("wait"))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert place.handler.entered.acquire(timeout=20)
    place.handler.release.set()
    for thread in threads:
        thread.join(20)
    assert len(answers) == 16


def test_every_caller_gets_its_own_answer(place: Any) -> None:
    async def main() -> None:
        async def one(number: int) -> None:
            for turn in range(20):
                body = b"%d/%d" % (number, turn)
                response = await asyncio.wrap_future(place.submit("echo", body))
                assert response.body == body

        await asyncio.gather(*(one(number) for number in range(64)))

    asyncio.run(main())


def test_answers_out_of_order_reach_the_right_caller(place: Any) -> None:
    slow = place.submit("wait", b"slow")
    assert place.handler.entered.acquire(timeout=20)
    assert place.submit("echo", b"quick").result(20).body == b"quick"
    place.handler.release.set()
    assert slow.result(20).body == b"slow"


@pytest.mark.parametrize("size", [0, 1, 32_000, 32_768, 70_000, 10_000_000])
def test_a_body_of_any_size_passes(place: Any, size: int) -> None:
    body = os.urandom(size)
    assert place.call("echo", body).body == body
    assert place.submit("echo", body).result(20).body == body


def test_many_large_bodies_at_once_pass_the_shared_connection(place: Any) -> None:
    bodies = [os.urandom(1_000_000) for _ in range(12)]
    futures = [place.submit("echo", body) for body in bodies]
    assert [future.result(30).body for future in futures] == bodies


def test_an_async_handler_answers_both_kinds_of_caller(place: Any) -> None:
    assert place.call("soon").body == b"soon"
    assert place.submit("soon").result(20).body == b"soon"


def test_the_handler_learns_the_peers_user(place: Any) -> None:
    place.call("echo")
    place.submit("echo").result(20)
    assert place.handler.peers == [f"uid:{os.getuid()}"] * 2


def test_marks_tell_when_it_was_connected_and_sent(place: Any) -> None:
    for _ in range(2):  # over a new connection and over an idle one
        marks: dict[str, float] = {}
        before = time.monotonic()
        place.client.call(place.address, place.request("echo"), marks=marks)
        assert before <= marks["connected"] <= marks["sent"] <= time.monotonic()


def sent_and_submitted(place: Any, request: Request) -> list[Any]:
    """What a push gets, sent both ways."""
    return [
        place.client.send(place.address, request),
        place.client.submit(place.address, request).result(20),
    ]


def test_a_push_is_answered_with_the_handlers_acceptance_while_it_runs(place: Any) -> None:
    for response in sent_and_submitted(place, place.request("wait", kind="push")):
        assert (response.code, response.executed) == ("ok", "maybe")
        assert place.handler.entered.acquire(timeout=20)


def test_a_push_is_answered_with_the_handlers_refusal(place: Any) -> None:
    for response in sent_and_submitted(place, place.request("no_such", kind="push")):
        assert (response.code, response.executed) == ("unimplemented", "no")


def test_a_draining_server_refuses_a_push(place: Any) -> None:
    place.call("echo")
    place.listener.drain()
    with pytest.raises(Unavailable, match="stopping"):
        place.client.send(place.address, place.request("wait", kind="push"))


@pytest.mark.parametrize("method", ["raise", "unsendable"])
def test_a_broken_handler_is_an_internal_error_and_the_next_call_works(
    place: Any, method: str
) -> None:
    assert place.call(method).code == "internal"
    assert place.submit(method).result(20).code == "internal"
    assert place.call("echo").code == "ok"
    assert place.submit("echo").result(20).code == "ok"


def test_a_request_above_the_limit_is_refused_before_it_is_sent(place: Any) -> None:
    with pytest.raises(ResourceExhausted, match="max_body") as caught:
        place.call("echo", b"x" * (1 << 24) + b"x")
    assert (caught.value.reason, caught.value.executed) == ("payload_too_large", "no")
    with pytest.raises(ResourceExhausted):
        place.submit("echo", b"x" * (1 << 24) + b"x").result(20)
    assert place.handler.ran == []


def test_a_request_above_the_servers_limit_is_refused_and_the_connection_lives(
    small_place: Any,
) -> None:
    refused = small_place.call("echo", b"x" * 5_000_000)
    assert (refused.code, refused.reason, refused.executed) == (
        "resource_exhausted", "payload_too_large", "no",
    )  # fmt: skip
    assert small_place.call("echo").code == "ok"
    assert len(small_place.listener._sessions) == 1
    assert small_place.submit("echo", b"x" * 5_000_000).result(20).code == "resource_exhausted"
    assert small_place.submit("echo").result(20).code == "ok"


def test_a_body_just_above_the_servers_limit_is_refused(small_place: Any) -> None:
    assert small_place.call("echo", b"x" * 1001).reason == "payload_too_large"
    assert small_place.submit("echo", b"x" * 1001).result(20).reason == "payload_too_large"
    assert small_place.call("echo", b"x" * 1000).code == "ok"


def test_a_result_above_the_servers_limit_is_an_error_that_ran(small_place: Any) -> None:
    response = small_place.call("big", b"1001")
    assert (response.reason, response.executed) == ("payload_too_large", "yes")


def test_a_result_above_the_callers_limit_is_refused_and_the_next_call_works(
    small_place: Any,
) -> None:
    small_place.client, small_place.server = small_place.server, small_place.client
    small_place.listener.max_body = 1 << 24
    for _ in range(2):
        with pytest.raises(ResourceExhausted) as caught:
            small_place.call("big", b"3000000")
        assert caught.value.executed == "yes"
        with pytest.raises(ResourceExhausted):
            small_place.submit("big", b"3000000").result(20)
    assert small_place.submit("echo").result(20).code == "ok"
    assert small_place.call("echo").code == "ok"


def test_another_kind_of_address_is_refused(place: Any) -> None:
    with pytest.raises(InvalidArgument, match="unix:///"):
        place.client.call(Address("http://127.0.0.1:1"), place.request("echo"))


def test_nobody_at_the_address_means_not_executed(place: Any, folder: Any) -> None:
    address = Address(f"unix://{folder}/nobody.sock")
    with pytest.raises(Unavailable, match="no such socket") as caught:
        place.client.call(address, place.request("echo"))
    assert (caught.value.reason, caught.value.executed) == ("connect_failed", "no")
    with pytest.raises(Unavailable, match="no such socket") as caught:
        place.client.submit(address, place.request("echo")).result(20)
    assert (caught.value.reason, caught.value.executed) == ("connect_failed", "no")


def test_signals_do_not_disturb_a_call(place: Any) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.02)
    try:
        threading.Timer(0.3, place.handler.release.set).start()
        assert place.call("wait").code == "ok"
        body = os.urandom(10_000_000)
        assert place.call("echo", body).body == body
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork with threads
def test_a_forked_child_does_not_use_its_parents_connections(place: Any) -> None:
    place.call("echo")
    place.submit("echo").result(20)
    inner, outer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            assert place.call("echo", b"child").body == b"child"
            assert place.submit("echo", b"child").result(20).body == b"child"
            place.client.close()
            os.write(outer, b"ok")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(outer)
    assert os.read(inner, 2) == b"ok"
    os.close(inner)
    assert place.call("echo", b"parent").body == b"parent"
    assert place.submit("echo", b"parent").result(20).body == b"parent"


def test_close_fails_what_is_in_flight_and_refuses_what_comes(place: Any) -> None:
    future = place.submit("wait")
    assert place.handler.entered.acquire(timeout=20)
    place.client.close()
    place.client.close()
    with pytest.raises(Unavailable):
        future.result(20)
    with pytest.raises(Unavailable):
        place.call("echo")
    with pytest.raises(Unavailable):
        place.submit("echo").result(20)


def test_a_reply_that_is_no_answer_is_a_malformed_reply(place: Any) -> None:
    def script(sock: Any) -> None:
        place.receive(sock, 8)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        place.receive(sock, 1)

    with place.peer(script) as address:
        for _ in range(2):
            with pytest.raises(Internal, match="does not speak") as caught:
                place.client.call(address, place.request("echo"))
            assert (caught.value.reason, caught.value.executed) == ("malformed_reply", "no")
            with pytest.raises(Internal, match="does not speak") as caught:
                place.client.submit(address, place.request("echo")).result(20)
            assert (caught.value.reason, caught.value.executed) == ("malformed_reply", "no")
