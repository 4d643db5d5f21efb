"""Listening, draining, closing, and the socket's file."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fan import codec
from fan.errors import AlreadyExists, InvalidArgument, Unavailable
from fan.model import Address
from fan.transports import ipc_files
from fan.transports import ipc_frames as frames
from fan.transports.ipc import IpcTransport


def test_the_default_place_is_in_the_runtime_folder_of_the_user(place: Any, folder: Path) -> None:
    listener = place.server.serve("", place.handler)
    path = listener.address.url.removeprefix("unix://")
    assert path.startswith(f"{folder}/run/{os.getpid()}-")
    assert stat.S_IMODE(os.stat(folder / "run").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert place.client.call(listener.address, place.request("echo")).code == "ok"
    listener.close()
    assert not Path(path).exists()


def test_an_address_is_taken_for_its_path(place: Any, folder: Path) -> None:
    listener = place.server.serve(f"unix://{folder}/y.sock", place.handler)
    assert listener.address.url == f"unix://{folder}/y.sock"
    listener.close()


def test_a_path_that_is_too_long_is_refused_with_a_sentence(place: Any, folder: Path) -> None:
    with pytest.raises(InvalidArgument, match="107"):
        place.server.serve(f"{folder}/{'x' * 108}", place.handler)
    settings = SimpleNamespace(max_body=1, runtime_dir=f"{folder}/{'x' * 100}")
    with pytest.raises(InvalidArgument, match="runtime_dir"):
        IpcTransport(settings).serve("", place.handler)


def test_a_live_socket_is_not_taken_over(place: Any) -> None:
    with pytest.raises(AlreadyExists, match="already listens"):
        place.server.serve(place.path, place.handler)
    assert place.call("echo").code == "ok"


def test_a_stale_socket_file_is_replaced(place: Any, folder: Path) -> None:
    path = f"{folder}/stale.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(path)
    left.close()
    listener = place.server.serve(path, place.handler)
    assert place.client.call(listener.address, place.request("echo")).code == "ok"
    listener.close()


def test_a_start_removes_the_sockets_of_killed_servers_and_of_nobody_else(
    place: Any, in_folder: Any
) -> None:
    killed, left = in_folder()
    _, live = in_folder()
    stopped, silent = in_folder()
    killed.kill()
    killed.wait()
    stopped.send_signal(signal.SIGSTOP)
    assert left.exists()
    listener = place.server.serve("", place.handler)
    own = Path(listener.address.url.removeprefix("unix://"))
    assert set(own.parent.iterdir()) == {own, live, silent}
    assert place.client.call(Address(f"unix://{live}"), place.request("echo")).code == "ok"
    stopped.send_signal(signal.SIGCONT)
    assert place.client.call(Address(f"unix://{silent}"), place.request("echo")).code == "ok"
    listener.close()


def test_a_start_leaves_what_somebody_listens_at_and_what_is_no_socket(
    place: Any, folder: Path
) -> None:
    (folder / "run").mkdir()
    nobody = nobodys_pid()
    # Of a server in another container, say: its number is no process here.
    foreign = place.server.serve(f"{folder}/run/{nobody}-foreign0.sock", place.handler)
    for name in (f"{nobody}-file.sock", "notes.sock", f"{nobody}-notes.txt"):
        (folder / "run" / name).write_text("precious")
    unnamed = socket.socket(socket.AF_UNIX)
    unnamed.bind(f"{folder}/run/mine.sock")
    before = set((folder / "run").iterdir())
    listener = place.server.serve("", place.handler)
    listener.close()
    assert set((folder / "run").iterdir()) == before
    unnamed.close()
    foreign.close()


def nobodys_pid() -> int:
    """A number that was a process's until just now."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    return child.pid


def test_sweeping_many_files_does_not_hold_up_a_start(
    place: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "run").mkdir()
    nobody = nobodys_pid()
    for number in range(3):
        left = socket.socket(socket.AF_UNIX)
        left.bind(f"{folder}/run/{nobody}-{number}.sock")
        left.close()
    monkeypatch.setattr(ipc_files, "SWEEP", 0.0)
    place.server.serve("", place.handler).close()
    assert len(list((folder / "run").iterdir())) == 3  # for the next start
    monkeypatch.undo()
    place.server.serve("", place.handler).close()
    assert list((folder / "run").iterdir()) == []


def test_a_file_that_is_no_socket_is_left_alone(place: Any, folder: Path) -> None:
    (folder / "file").write_text("precious")
    with pytest.raises(AlreadyExists, match="no socket"):
        place.server.serve(str(folder / "file"), place.handler)
    assert (folder / "file").read_text() == "precious"


def test_a_folder_that_does_not_exist_is_unavailable(place: Any, folder: Path) -> None:
    with pytest.raises(Unavailable, match="cannot listen"):
        place.server.serve(f"{folder}/no/x.sock", place.handler)


def test_close_removes_the_socket_and_every_thread(place: Any) -> None:
    place.call("echo")
    place.submit("echo").result(20)
    place.client.close()
    threads = [t for t in threading.enumerate() if t.name.startswith("fan-ipc-")]
    assert threads
    place.listener.close()
    place.listener.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert not Path(place.path).exists()


def test_close_ends_a_connection_whose_peer_has_not_greeted(place: Any) -> None:
    before = set(threading.enumerate())
    listener = place.server.serve("", place.handler)
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(listener.address.url.removeprefix("unix://"))
    silent.settimeout(20)
    assert place.receive(silent, 8)  # it is being served
    listener.close()
    heard = b""
    while chunk := silent.recv(64):
        heard += chunk
    assert heard == frames.frame(frames.GOAWAY, 0)  # whatever it may have sent never ran
    assert set(threading.enumerate()) <= before
    silent.close()


def test_close_leaves_a_socket_that_somebody_else_put_there(place: Any) -> None:
    Path(place.path).unlink()
    other = place.server.serve(place.path, place.handler)
    place.listener.close()
    assert Path(place.path).exists()
    other.close()


def test_a_draining_server_refuses_new_calls_and_answers_those_in_flight(place: Any) -> None:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(place.call("wait", b"sync")))
    thread.start()
    future = place.submit("wait", b"submitted")
    for _ in range(2):
        assert place.handler.entered.acquire(timeout=20)
    place.listener.drain()
    ran = list(place.handler.ran)
    for send in (lambda: place.call("echo"), lambda: place.submit("echo").result(20)):
        with pytest.raises(Unavailable) as caught:
            send()
        assert (caught.value.reason, caught.value.executed) == ("draining", "no")
    assert place.handler.ran == ran
    place.handler.release.set()
    thread.join(20)
    assert answers[0].body == b"sync"
    assert future.result(20).body == b"submitted"


def test_an_idle_connection_learns_of_a_drain_before_it_sends(place: Any) -> None:
    place.call("echo")
    place.listener.drain()
    with pytest.raises(Unavailable) as caught:
        place.call("echo")
    assert caught.value.reason == "draining"


def test_close_waits_for_what_is_in_flight(place: Any) -> None:
    future = place.submit("wait", b"1")
    assert place.handler.entered.acquire(timeout=20)
    threading.Timer(0.1, place.handler.release.set).start()
    place.listener.close(20)
    assert place.handler.release.is_set()
    assert future.result(20).body == b"1"


@pytest.mark.parametrize("mode", [frames.EXCLUSIVE, frames.SHARED])
def test_close_waits_until_an_answer_has_left(place: Any, mode: int) -> None:
    size = 4_000_000  # more than a socket holds
    sock = place.connect(mode)
    request = place.request("big", str(size).encode())
    sock.sendall(frames.frame(frames.REQUEST, 1, codec.pack(request)))
    length, kind, _ = frames.HEADER.unpack(place.receive(sock, frames.SIZE))
    closing = threading.Thread(target=place.listener.close, args=(60,))
    closing.start()
    closing.join(0.5)  # it has no reason to end before the rest was read
    assert kind == frames.RESPONSE
    assert len(place.receive(sock, length)) == length
    closing.join(60)
    assert not closing.is_alive()
    sock.close()


def test_close_drops_what_takes_too_long(place: Any) -> None:
    future = place.submit("wait")
    assert place.handler.entered.acquire(timeout=20)
    place.listener.close(0.05)
    with pytest.raises(Unavailable) as caught:
        future.result(20)
    assert (caught.value.reason, caught.value.executed) == ("connection_lost", "maybe")


def test_calls_under_way_survive_a_drain_under_load(place: Any) -> None:
    failed: list[BaseException] = []
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            try:
                response = place.call("echo", b"1")
                if response.code == "ok":
                    assert response.body == b"1"
                else:
                    assert (response.reason, response.executed) == ("draining", "no")
            except Unavailable as exc:
                if exc.executed != "no":
                    failed.append(exc)
                if exc.reason == "connect_failed":
                    return

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert place.submit("echo").result(20).code == "ok"
    place.listener.close(20)
    over.set()
    for thread in threads:
        thread.join(20)
    assert failed == []
