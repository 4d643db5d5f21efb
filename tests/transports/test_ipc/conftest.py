"""What the tests of the ipc transport share: a handler, a server, and peers made by hand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fan.message import Request, Response
from fan.model import Address
from fan.transports import ipc_frames as frames
from fan.transports.base import Listener, Stream
from fan.transports.ipc import IpcTransport

#: Seconds after which a test is taken to hang.
HANG = 20.0


class Handler:
    """Answers by the name of the method; `release` lets those go that wait."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.entered = threading.Semaphore(0)
        self.closed = threading.Event()
        self.saw_cancel = threading.Event()
        self.peers: list[str] = []
        self.ran: list[str] = []
        self.yielded = 0
        self.futures: list[Future[Response]] = []

    def __call__(
        self,
        request: Request,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        peer: str = "",
    ) -> Response | Future[Response] | Stream:
        self.peers.append(peer)
        self.ran.append(request.id)
        method = getattr(self, f"do_{request.method}", None)
        if method is None:
            return Response(id=request.id, code="unimplemented", executed="no")
        if request.kind == "push":  # accepted here, and run later
            threading.Thread(target=method, args=(request, None)).start()
            return Response(id=request.id, executed="maybe")
        answer: Response | Future[Response] | Stream = method(request, is_cancelled)
        return answer

    def do_echo(self, request: Request, _: Any) -> Response:
        return Response(id=request.id, body=request.body)

    def do_wait(self, request: Request, _: Any) -> Response:
        self.entered.release()
        assert self.release.wait(HANG)
        return Response(id=request.id, body=request.body)

    def do_until_cancelled(self, request: Request, is_cancelled: Any) -> Response:
        self.entered.release()
        while not is_cancelled():
            if self.release.wait(0.005):
                return Response(id=request.id)
        self.saw_cancel.set()
        return Response(id=request.id)

    def do_raise(self, request: Request, _: Any) -> Response:
        raise RuntimeError("a handler must not do this")

    def do_big(self, request: Request, _: Any) -> Response:
        return Response(id=request.id, body=b"x" * int(request.body))

    def do_unsendable(self, request: Request, _: Any) -> Response:
        return Response(id=request.id, details=object())

    def do_later(self, request: Request, _: Any) -> Future[Response]:
        future: Future[Response] = Future()
        self.futures.append(future)
        self.entered.release()
        return future

    def do_soon(self, request: Request, _: Any) -> Future[Response]:
        future: Future[Response] = Future()
        threading.Timer(0.01, future.set_result, [Response(id=request.id, body=b"soon")]).start()
        return future

    def do_count(self, request: Request, _: Any) -> Stream:
        return self._stream(request, int(request.body), "ok")

    def do_fail_after(self, request: Request, _: Any) -> Stream:
        return self._stream(request, int(request.body), "unknown")

    def do_stall_after(self, request: Request, _: Any) -> Stream:
        return self._stream(request, int(request.body), "stall")

    def _stream(self, request: Request, count: int, end: str) -> Stream:
        def chunks() -> Iterator[Response]:
            for seq in range(count):
                self.yielded += 1
                yield Response(id=request.id, kind="chunk", seq=seq, body=b"%d" % seq)
            if end == "stall":
                assert self.release.wait(HANG)
            yield Response(id=request.id, kind="end", code="ok" if end == "stall" else end)

        def close() -> None:
            generator.close()
            self.closed.set()

        generator = chunks()
        return Stream(generator, close)


class Place:
    """A transport, a listener and the handler behind it."""

    def __init__(self, folder: Path, max_body: int = 1 << 24) -> None:
        self.settings = SimpleNamespace(max_body=max_body, runtime_dir=str(folder / "run"))
        self.handler = Handler()
        self.server = IpcTransport(self.settings)
        self.client = IpcTransport(self.settings)
        self.path = str(folder / "x.sock")
        self.listener: Listener = self.server.serve(self.path, self.handler)
        self.address = self.listener.address

    def call(self, method: str, body: bytes = b"", timeout: float = HANG, **more: Any) -> Response:
        return self.client.call(self.address, self.request(method, body, timeout, **more))

    def submit(self, method: str, body: bytes = b"", timeout: float = HANG) -> Future[Response]:
        return self.client.submit(self.address, self.request(method, body, timeout))

    def stream(self, method: str, body: bytes = b"", timeout: float = HANG) -> Iterator[Response]:
        return self.client.stream(self.address, self.request(method, body, timeout, kind="stream"))

    @staticmethod
    def request(method: str, body: bytes = b"", timeout: float = HANG, **more: Any) -> Request:
        more = {"id": f"id-{method}", "service": "test", **more}
        return Request(method=method, timeout_ms=round(timeout * 1000), body=body, **more)

    def connect(self, mode: int = frames.EXCLUSIVE) -> socket.socket:
        """A raw connection, greeted."""
        sock = self.connect_raw()
        sock.sendall(frames.hello(mode))
        assert receive(sock, frames.HELLO) == frames.hello(frames.SERVER)
        return sock

    def connect_raw(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(HANG)
        sock.connect(self.path)
        return sock

    @staticmethod
    def receive(sock: socket.socket, size: int) -> bytes:
        return receive(sock, size)

    @staticmethod
    def receive_frame(sock: socket.socket) -> tuple[int, int, bytes]:
        length, kind, stream = frames.HEADER.unpack(receive(sock, frames.SIZE))
        return kind, stream, receive(sock, length)

    def peer(self, script: Callable[[socket.socket], None]) -> AbstractContextManager[Address]:
        return peer(Path(self.path).parent, script)

    def close(self) -> None:
        self.handler.release.set()
        self.client.close()
        self.listener.close()
        self.server.close()


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or what came before the end."""
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


@contextmanager
def peer(folder: Path, script: Callable[[socket.socket], None]) -> Iterator[Address]:
    """A server that does what `script` does with each connection."""
    path = str(folder / "peer.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def talk(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.settimeout(HANG)
            script(sock)

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=talk, args=(sock,)))
            threads[-1].start()

    threads = [threading.Thread(target=serve)]
    threads[0].start()
    try:
        yield Address(f"unix://{path}")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(HANG)
        listener.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: a unix socket's may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="fan-") as name:
        yield Path(name)


@pytest.fixture
def place(folder: Path) -> Iterator[Place]:
    place = Place(folder)
    yield place
    place.close()


@pytest.fixture
def small_place(folder: Path) -> Iterator[Place]:
    """One that takes a body of 1000 bytes at most; its client sends anything."""
    place = Place(folder, max_body=1000)
    place.client = IpcTransport(SimpleNamespace(max_body=1 << 24, runtime_dir=str(folder)))
    yield place
    place.close()


@contextmanager
def served(where: Path) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own, at a path or in a folder."""
    with subprocess.Popen(
        [sys.executable, Path(__file__).parent / "server_process.py", where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


@pytest.fixture
def process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Address]]:
    """A server in a process of its own."""
    path = folder / "process.sock"
    with served(path) as child:
        yield child, Address(f"unix://{path}")


@pytest.fixture
def in_folder(
    place: Place, folder: Path
) -> Iterator[Callable[[], tuple[subprocess.Popen[str], Path]]]:
    """Starts servers in processes of their own, in the runtime folder of `place`; tells the files
    that they listen at."""
    with ExitStack() as stack:

        def start() -> tuple[subprocess.Popen[str], Path]:
            run = folder / "run"
            run.mkdir(mode=0o700, exist_ok=True)
            child = stack.enter_context(served(run))
            (path,) = run.glob(f"{child.pid}-*.sock")
            return child, path

        yield start
