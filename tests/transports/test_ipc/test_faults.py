"""What goes wrong: peers that die, stall, drip, talk nonsense, and callers that give up."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import struct
import threading
import time
from typing import Any

import pytest

from fan import codec
from fan.errors import DeadlineExceeded, Internal, Unavailable
from fan.message import Response
from fan.model import Address
from fan.transports import ipc_frames as frames

#: Longer than any deadline here, shorter than a hang.
SOON = 20.0


def each_way(place: Any, address: Any, request: Any) -> list[Any]:
    """The errors of a sync, a submitted and an awaited call."""
    errors = []

    async def awaited() -> None:
        await place.client.acall(address, request)

    for send in (
        lambda: place.client.call(address, request),
        lambda: place.client.submit(address, request).result(20),
        lambda: asyncio.run(awaited()),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011  # told apart by the caller
            send()
        errors.append(caught.value)
    return errors


def test_a_slow_handler_is_a_deadline_and_the_next_call_gets_its_own_answer(place: Any) -> None:
    began = time.monotonic()
    for error in each_way(place, place.address, place.request("wait", b"late", 1.0)):
        assert isinstance(error, DeadlineExceeded)
        assert (error.reason, error.executed) == ("client_timer", "maybe")
    assert time.monotonic() - began < SOON
    place.handler.release.set()
    assert place.call("echo", b"mine").body == b"mine"
    assert place.submit("echo", b"mine").result(20).body == b"mine"


@pytest.mark.parametrize("path", ["/tmp/\ud800.sock", "/tmp/a\0b.sock", "/tmp/" + "x" * 200])
def test_an_address_that_is_no_path_is_a_failed_connect(place: Any, path: str) -> None:
    for error in each_way(place, Address(f"unix://{path}"), place.request("echo")):
        assert isinstance(error, Unavailable)
        assert (error.reason, error.executed) == ("connect_failed", "no")
    assert place.submit("echo").result(20).code == "ok"


def test_no_time_left_sends_nothing(place: Any) -> None:
    for error in each_way(place, place.address, place.request("echo", timeout=0)):
        assert isinstance(error, DeadlineExceeded)
        assert error.executed == "no"
    assert place.handler.ran == []


def test_a_server_that_does_not_greet_is_a_deadline_before_anything_was_sent(place: Any) -> None:
    with place.peer(lambda sock: place.receive(sock, 1000)) as address:
        for error in each_way(place, address, place.request("echo", timeout=0.1)):
            assert isinstance(error, DeadlineExceeded)
            assert error.executed == "no"
        place.client.close()


def test_a_reply_that_drips_in_falls_under_the_deadline(place: Any) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(frames.hello(frames.SERVER))
        place.receive(sock, 8)
        _, stream, _ = place.receive_frame(sock)
        payload = codec.pack(Response(id="1", body=b"x" * 1000))
        for byte in frames.frame(frames.RESPONSE, stream, payload):
            sock.sendall(bytes([byte]))
            time.sleep(0.005)

    with place.peer(script) as address:
        began = time.monotonic()
        for error in each_way(place, address, place.request("echo", timeout=0.2)):
            assert isinstance(error, DeadlineExceeded)
        assert time.monotonic() - began < SOON
        place.client.close()


def test_a_reply_in_pieces_is_put_together(place: Any) -> None:
    body = os.urandom(70_000)

    def script(sock: socket.socket) -> None:
        sock.sendall(frames.hello(frames.SERVER))
        place.receive(sock, 8)
        _, stream, _ = place.receive_frame(sock)
        data = frames.frame(frames.RESPONSE, stream, codec.pack(Response(id="1", body=body)))
        for at in range(0, len(data), 997):
            sock.sendall(data[at : at + 997])
            time.sleep(0.0005)
        place.receive(sock, 1)

    with place.peer(script) as address:
        assert place.client.call(address, place.request("echo")).body == body
        assert place.client.submit(address, place.request("echo")).result(20).body == body
        place.client.close()


def test_a_peer_that_does_not_read_does_not_hang_a_caller(place: Any) -> None:
    over = threading.Event()

    def script(sock: socket.socket) -> None:
        sock.sendall(frames.hello(frames.SERVER))
        over.wait(20)

    with place.peer(script) as address:
        request = place.request("echo", b"x" * 10_000_000, 0.1)
        with pytest.raises(DeadlineExceeded) as caught:
            place.client.call(address, request)
        assert caught.value.executed == "no"
        over.set()
        over.clear()
        with pytest.raises(DeadlineExceeded):
            place.client.submit(address, request).result(20)
        over.set()
        place.client.close()


def test_a_client_that_does_not_read_does_not_hold_up_others(place: Any) -> None:
    sock = place.connect()
    for stream in range(1, 4):
        request = place.request("big", b"3000000")
        sock.sendall(frames.frame(frames.REQUEST, stream, codec.pack(request)))
    assert place.call("echo").code == "ok"
    assert place.submit("echo").result(20).code == "ok"
    sock.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        random.Random(200).randbytes(200),
        b"fanipc\x63\x01",
        b"fanipc\x01\x09",
        frames.hello(1) + struct.pack(">IBI", 0xFFFFFFFF, 1, 1),
        frames.hello(1) + b"GET / HTTP/1.1\r\n\r\n",
        frames.hello(1) + frames.frame(99, 1, b"x"),
        frames.hello(1) + frames.frame(frames.RESPONSE, 1, b"x"),
        frames.hello(2) + struct.pack(">IBI", 0xFFFFFFFF, 1, 1),
        frames.hello(2) + frames.frame(0, 1),
    ],
    ids=range(10),
)
def test_garbage_ends_its_connection_and_nothing_else(place: Any, garbage: bytes) -> None:
    sock = place.connect_raw()
    sock.sendall(garbage)
    try:
        while sock.recv(1000):
            pass
    except ConnectionResetError:
        pass
    sock.close()
    assert place.call("echo").code == "ok"


def test_an_answer_is_not_held_back_by_a_slow_handler_behind_it(place: Any) -> None:
    sock = place.connect(frames.SHARED)
    methods = ("echo", "wait", "echo", "wait", "echo")
    sock.sendall(
        b"".join(
            frames.frame(frames.REQUEST, stream, codec.pack(place.request(method)))
            for stream, method in enumerate(methods, 1)
        )
    )
    assert {place.receive_frame(sock)[1] for _ in range(3)} == {1, 3, 5}
    place.handler.release.set()
    assert {place.receive_frame(sock)[1] for _ in range(2)} == {2, 4}
    sock.close()


@pytest.mark.parametrize("mode", [frames.EXCLUSIVE, frames.SHARED])
def test_a_cancel_right_behind_its_request_does_no_harm(place: Any, mode: int) -> None:
    sock = place.connect(mode)
    sock.sendall(
        frames.frame(frames.REQUEST, 1, codec.pack(place.request("until_cancelled")))
        + frames.frame(frames.CANCEL, 1)
        + frames.frame(frames.REQUEST, 2, codec.pack(place.request("echo")))
    )
    assert {place.receive_frame(sock)[1] for _ in range(2)} == {1, 2}
    sock.close()


@pytest.mark.parametrize("mode", [frames.EXCLUSIVE, frames.SHARED])
def test_half_a_frame_ends_with_its_sender(place: Any, mode: int) -> None:
    sock = place.connect(mode)
    sock.sendall(frames.frame(frames.REQUEST, 1, codec.pack(place.request("echo")))[:-3])
    sock.close()
    assert place.call("echo").code == "ok"
    assert place.handler.ran == ["id-echo"]


@pytest.mark.parametrize("mode", [frames.EXCLUSIVE, frames.SHARED])
def test_a_frame_that_holds_no_request_is_refused_and_the_next_one_works(
    place: Any, mode: int
) -> None:
    sock = place.connect(mode)
    sock.sendall(frames.frame(frames.REQUEST, 1, b"\xc1nonsense"))
    kind, stream, payload = place.receive_frame(sock)
    response = codec.unpack_response(payload)
    assert (kind, stream, response.reason) == (frames.RESPONSE, 1, "malformed")
    sock.sendall(frames.frame(frames.REQUEST, 2, codec.pack(place.request("echo"))))
    assert place.receive_frame(sock)[1] == 2
    sock.close()


@pytest.mark.parametrize(
    "reply",
    [
        frames.frame(frames.RESPONSE, 77, b""),
        frames.frame(frames.REQUEST, 1, b""),
        frames.frame(99, 1, b""),
        frames.frame(frames.RESPONSE, 1, b"\xc1nonsense"),
        b"\xff" * 50,
    ],
    ids=range(5),
)
def test_a_frame_that_is_no_answer_is_a_malformed_reply(place: Any, reply: bytes) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(frames.hello(frames.SERVER))
        place.receive(sock, 8)
        place.receive_frame(sock)
        sock.sendall(reply)
        place.receive(sock, 1)

    with place.peer(script) as address:
        with pytest.raises(Internal) as caught:
            place.client.call(address, place.request("echo"))
        assert caught.value.reason == "malformed_reply"
        if reply[5:9] != b"\0\0\0M":  # on a shared connection that is a late answer, and dropped
            with pytest.raises(Internal) as caught:
                place.client.submit(address, place.request("echo")).result(20)
            assert caught.value.reason == "malformed_reply"
        place.client.close()


def test_a_server_killed_in_mid_call_is_a_lost_connection_at_once(place: Any, process: Any) -> None:
    child, address = process
    place.client.call(address, place.request("echo"))
    future = place.client.submit(address, place.request("hang"))
    killer = threading.Timer(0.2, child.kill)
    killer.start()
    with pytest.raises(Unavailable) as caught:
        place.client.call(address, place.request("hang"))
    assert (caught.value.reason, caught.value.executed) == ("connection_lost", "maybe")
    with pytest.raises(Unavailable) as caught:
        future.result(20)
    assert (caught.value.reason, caught.value.executed) == ("connection_lost", "maybe")
    child.wait()
    for error in each_way(place, address, place.request("echo")):  # its file is still there
        assert (error.reason, error.executed) == ("connect_failed", "no")
        assert "nobody listens" in str(error)


def test_a_stopped_server_is_a_deadline(place: Any, process: Any) -> None:
    child, address = process
    place.client.call(address, place.request("echo"))
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)  # it has stopped; not merely been told to
    for error in each_way(place, address, place.request("echo", timeout=0.2)):
        assert isinstance(error, DeadlineExceeded)
    child.send_signal(signal.SIGCONT)
    assert place.client.call(address, place.request("echo")).code == "ok"
    assert place.client.submit(address, place.request("echo")).result(20).code == "ok"


def test_a_connection_lost_while_idle_is_replaced(place: Any) -> None:
    place.call("echo")
    place.submit("echo").result(20)
    place.listener.close()
    place.listener = place.server.serve(place.path, place.handler)
    assert place.call("echo").code == "ok"
    assert place.submit("echo").result(20).code == "ok"
    assert place.client._pool.count() == 1


def test_idle_connections_to_servers_that_left_are_given_up(place: Any, folder: Any) -> None:
    for number in range(5):
        with_own = place.server.serve(f"{folder}/{number}.sock", place.handler)
        place.client.call(with_own.address, place.request("echo"))
        with_own.close()
    place.call("echo")
    assert place.client._pool.count() == 1


def test_a_request_that_goaway_excludes_is_sent_once_more(place: Any) -> None:
    accepted = threading.Semaphore(0)

    def script(sock: socket.socket) -> None:
        sock.sendall(frames.hello(frames.SERVER))
        mode = place.receive(sock, 8)[7]
        _, stream, payload = place.receive_frame(sock)
        accepted.release()
        if mode not in told:
            told.add(mode)
            sock.sendall(frames.frame(frames.GOAWAY, stream - 1))
        else:
            id = codec.unpack_request(payload).id
            response = codec.pack(Response(id=id, body=b"second"))
            sock.sendall(frames.frame(frames.RESPONSE, stream, response))
            place.receive(sock, 1)

    told: set[int] = set()
    with place.peer(script) as address:
        assert place.client.call(address, place.request("echo")).body == b"second"
        place.client._pool.close()
        place.client._pool.is_closed = False
        assert place.client.submit(address, place.request("echo")).result(20).body == b"second"
        place.client.close()


def test_a_caller_that_hangs_up_is_seen_by_the_handler(place: Any) -> None:
    with pytest.raises(DeadlineExceeded):
        place.call("until_cancelled", timeout=1.0)
    assert place.handler.saw_cancel.wait(20)


def test_a_cancelled_future_is_seen_by_the_handler_and_the_connection_lives(place: Any) -> None:
    future = place.submit("until_cancelled")
    assert place.handler.entered.acquire(timeout=20)
    assert future.cancel()
    assert place.handler.saw_cancel.wait(20)
    assert place.submit("echo").result(20).code == "ok"


def test_a_cancel_frame_is_seen_on_an_exclusive_connection(place: Any) -> None:
    sock = place.connect()
    request = codec.pack(place.request("until_cancelled"))
    sock.sendall(frames.frame(frames.REQUEST, 1, request))
    sock.sendall(frames.frame(frames.CANCEL, 1))
    assert place.handler.saw_cancel.wait(20)
    sock.close()


@pytest.mark.parametrize("how", ["call", "submit"])
def test_a_caller_that_gave_up_cancels_the_future_of_an_async_handler(place: Any, how: str) -> None:
    if how == "call":
        with pytest.raises(DeadlineExceeded):
            place.call("later", timeout=1.0)
    else:
        future = place.submit("later")
        assert place.handler.entered.acquire(timeout=20)
        future.cancel()
    (answer,) = place.handler.futures
    cancelled = threading.Event()
    answer.add_done_callback(lambda _: cancelled.set())
    assert cancelled.wait(20)
    assert answer.cancelled()
    assert place.call("echo").code == "ok"
    assert place.submit("echo").result(20).code == "ok"


def test_futures_cancelled_while_their_answers_come_do_no_harm(place: Any) -> None:
    for _ in range(20):
        futures = [place.submit("echo") for _ in range(50)]
        for future in futures[::2]:
            future.cancel()
        for future in futures[1::2]:
            assert future.result(20).code == "ok"
    assert place.submit("echo").result(20).code == "ok"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_callback_that_exits_does_not_end_the_thread(place: Any) -> None:
    def leave(_: object) -> None:
        raise SystemExit

    future = place.submit("wait")
    future.add_done_callback(leave)
    place.handler.release.set()
    future.result(20)
    assert place.submit("echo").result(20).code == "ok"
