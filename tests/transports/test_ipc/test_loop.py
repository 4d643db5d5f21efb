"""Calls of tasks: their event loop itself reads the connection."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fan.errors import DeadlineExceeded, FanError, InvalidArgument, Unavailable
from fan.message import Response
from fan.model import Address
from fan.transports import ipc_frames as frames

HANG = 20.0


def ask(place: Any, method: str, body: bytes = b"", **more: Any) -> Awaitable[Response]:
    answer: Awaitable[Response] = place.client.acall(
        place.address, place.request(method, body, **more)
    )
    return answer


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


async def entered(place: Any) -> None:
    """Wait on this loop until a handler has begun."""
    assert await asyncio.to_thread(place.handler.entered.acquire, timeout=HANG)


def test_a_thousand_in_flight_need_no_thread_and_one_connection(place: Any) -> None:
    async def main() -> list[Response]:
        before = {t.name for t in threading.enumerate()}
        calls = [asyncio.ensure_future(ask(place, "later", b"")) for _ in range(1000)]
        for _ in calls:
            await entered(place)
        added = {t.name for t in threading.enumerate()} - before
        servers = {"fan-ipc-serve", "fan-ipc-watch", "fan-ipc-worker"}
        assert {name for name in added if not name.startswith("asyncio")} <= servers
        assert len(place.listener._sessions) == 1
        for future in place.handler.futures:
            future.set_result(Response(id="x", body=b"late"))
        return await asyncio.gather(*calls)

    assert {answer.body for answer in asyncio.run(main())} == {b"late"}


def test_every_task_gets_its_own_answer(place: Any) -> None:
    async def work(number: int) -> None:
        for turn in range(20):
            body = b"%d/%d" % (number, turn)
            assert (await ask(place, "echo", body)).body == body

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(30)))

    asyncio.run(main())


def test_large_bodies_pass_side_by_side_with_small_ones(place: Any) -> None:
    bodies = [bytes([n]) * size for n, size in enumerate((1, 3_000_000, 10, 5_000_000, 100) * 3)]

    async def main() -> list[Response]:
        return await asyncio.gather(*(ask(place, "echo", body) for body in bodies))

    assert [answer.body for answer in asyncio.run(main())] == bodies


def test_loops_in_several_threads_have_connections_of_their_own(place: Any) -> None:
    together = threading.Barrier(4)

    async def main() -> bytes:
        first = await ask(place, "echo", b"first")
        await asyncio.to_thread(together.wait, HANG)
        assert len(place.listener._sessions) == 4
        await asyncio.to_thread(together.wait, HANG)
        return first.body

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: asyncio.run(main()), range(4))) == [b"first"] * 4


def test_the_connections_of_a_loop_end_with_it(place: Any) -> None:
    loops: list[weakref.ref[Any]] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        assert (await ask(place, "echo", b"x")).body == b"x"

    for _ in range(3):
        asyncio.run(main())
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3
    wait_until(lambda: not place.listener._sessions)


def test_a_cancelled_task_is_seen_by_the_handler_and_the_connection_lives(place: Any) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(ask(place, "until_cancelled"))
        await entered(place)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await ask(place, "echo", b"next")).body == b"next"
        assert await asyncio.to_thread(place.handler.saw_cancel.wait, HANG)
        assert len(place.listener._sessions) == 1

    asyncio.run(main())


def test_a_slow_handler_is_a_deadline_and_the_next_call_gets_its_own_answer(place: Any) -> None:
    async def main() -> None:
        with pytest.raises(DeadlineExceeded) as caught:
            await ask(place, "wait", timeout=1.0)
        assert (caught.value.reason, caught.value.executed) == ("client_timer", "maybe")
        place.handler.release.set()
        assert (await ask(place, "echo", b"own")).body == b"own"

    asyncio.run(main())


def test_each_call_has_its_own_deadline(place: Any) -> None:
    ended: list[str] = []

    async def late(name: str, seconds: float) -> None:
        with pytest.raises(DeadlineExceeded):
            await ask(place, "wait", timeout=seconds)
        ended.append(name)

    async def main() -> None:
        await asyncio.gather(late("third", 0.9), late("first", 0.1), late("second", 0.5))

    asyncio.run(main())
    assert ended == ["first", "second", "third"]


def test_no_time_left_sends_nothing(place: Any) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        asyncio.run(_run(ask, place, "echo", timeout=0.0))
    assert caught.value.executed == "no"
    assert not place.handler.ran


async def _run(function: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
    return await function(*args, **more)


def test_nobody_at_the_address_means_not_executed(place: Any, folder: Path) -> None:
    address = Address(f"unix://{folder}/nobody.sock")
    with pytest.raises(Unavailable) as caught:
        asyncio.run(_run(place.client.acall, address, place.request("echo")))
    assert (caught.value.reason, caught.value.executed) == ("connect_failed", "no")


def test_another_kind_of_address_is_refused(place: Any) -> None:
    with pytest.raises(InvalidArgument):
        asyncio.run(_run(place.client.acall, Address("http://x"), place.request("echo")))


def test_a_server_killed_in_mid_call_is_a_lost_connection_at_once(place: Any, process: Any) -> None:
    child, address = process

    async def main() -> None:
        call = asyncio.ensure_future(place.client.acall(address, place.request("hang")))
        await place.client.acall(address, place.request("echo"))  # so the other one is there too
        child.kill()
        with pytest.raises(Unavailable) as caught:
            await call
        assert (caught.value.reason, caught.value.executed) == ("connection_lost", "maybe")

    asyncio.run(asyncio.wait_for(main(), HANG))


def test_a_connection_lost_while_idle_is_replaced(place: Any) -> None:
    async def main() -> None:
        assert (await ask(place, "echo", b"1")).body == b"1"
        for session in list(place.listener._sessions):
            session.hang_up()
        await asyncio.to_thread(wait_until, lambda: not place.listener._sessions)
        assert (await ask(place, "echo", b"2")).body == b"2"

    asyncio.run(main())


def test_a_request_that_goaway_excludes_is_sent_once_more(place: Any) -> None:
    seen: list[bytes] = []

    def script(sock: socket.socket) -> None:
        sock.sendall(frames.hello(frames.SERVER))
        assert place.receive(sock, frames.HELLO) == frames.hello(frames.SHARED)
        _, stream, payload = place.receive_frame(sock)
        seen.append(payload)
        if len(seen) == 1:
            sock.sendall(frames.frame(frames.GOAWAY, 0))
            assert not sock.recv(1)
        else:
            from fan import codec

            answer = codec.pack(Response(id="x", body=b"second"))
            sock.sendall(frames.frame(frames.RESPONSE, stream, answer))
            sock.recv(1)

    with place.peer(script) as address:

        async def main() -> Response:
            answer: Response = await place.client.acall(address, place.request("echo"))
            return answer

        assert asyncio.run(main()).body == b"second"
    assert len(seen) == 2


def test_garbage_is_a_malformed_reply_and_ends_the_connection(place: Any) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(frames.hello(frames.SERVER))
        place.receive(sock, frames.HELLO)
        place.receive_frame(sock)
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        sock.recv(1)

    with place.peer(script) as address, pytest.raises(FanError) as caught:
        asyncio.run(_run(place.client.acall, address, place.request("echo")))
    assert (caught.value.code, caught.value.reason) == ("internal", "malformed_reply")


def test_close_fails_what_is_in_flight_and_refuses_what_comes(place: Any) -> None:
    async def main() -> None:
        call = asyncio.ensure_future(ask(place, "wait"))
        await entered(place)
        place.client.close()
        with pytest.raises(Unavailable) as caught:
            await call
        assert caught.value.reason == "connection_lost"
        with pytest.raises(Unavailable) as caught:
            await ask(place, "echo")
        assert (caught.value.reason, caught.value.executed) == ("connect_failed", "no")

    asyncio.run(main())


def test_close_from_another_thread_ends_the_calls_of_a_loop(place: Any) -> None:
    async def main() -> None:
        call = asyncio.ensure_future(ask(place, "wait"))
        await entered(place)
        closing = threading.Thread(target=place.client.close)
        closing.start()
        with pytest.raises(Unavailable):
            await call
        await asyncio.to_thread(closing.join, HANG)
        assert not closing.is_alive()

    asyncio.run(main())


def test_a_forked_child_leaves_its_parents_connection_alone(place: Any) -> None:
    async def main() -> None:
        assert (await ask(place, "echo", b"before")).body == b"before"
        child = os.fork()
        if not child:
            status = 1
            try:
                # In a thread: this one has a loop that believes it runs.
                with ThreadPoolExecutor(1) as pool:
                    run = pool.submit(asyncio.run, _run(ask, place, "echo", b"child"))
                    status = 0 if run.result(HANG).body == b"child" else 2
            finally:
                os._exit(status)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert (await ask(place, "echo", b"after")).body == b"after"

    asyncio.run(main())
