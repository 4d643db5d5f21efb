"""The listener of the ipc transport: a unix socket, its file, and the sessions behind it."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from fan.errors import Unavailable
from fan.message import Request, Response
from fan.model import Address
from fan.transports import ipc_frames as frames
from fan.transports.base import Handler, Listener, Stream
from fan.transports.ipc_files import claim, socket_path
from fan.transports.ipc_frames import Garbage, Gone, Late, Wire
from fan.transports.ipc_session import ExclusiveSession, Session
from fan.transports.ipc_session_shared import SharedSession
from fan.transports.ipc_watch import Watch
from fan.transports.ipc_workers import Workers

#: Seconds that a peer may take for its hello.
GREETING = 10.0
_CREDENTIALS = struct.Struct("3i")


class UnixListener(Listener):
    """A running listener. Threads: one that accepts, one per connection, the workers, and
    one that watches shared connections."""

    def __init__(self, path: str, sock: socket.socket, handler: Handler, max_body: int) -> None:
        self.address = Address(f"unix://{path}")
        self.path = path
        self.handler = handler
        self.max_body = max_body
        self.is_draining = False
        self.workers = Workers("fan-ipc-worker")
        self.watch = Watch("fan-ipc-watch")
        self._sock = sock
        self._inode = os.stat(path).st_ino
        self._sessions: dict[Session, threading.Thread] = {}
        #: Connections whose peer has not said hello yet.
        self._greeting: dict[socket.socket, threading.Thread] = {}
        self._changed = threading.Condition()
        self._is_closed = False
        self._stopping = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="fan-ipc-accept", daemon=True)
        self._acceptor.start()

    @property
    def is_idle(self) -> bool:
        """Whether every request is answered, and the answers have left."""
        return all(session.is_idle for session in list(self._sessions))

    def drain(self) -> None:
        self.is_draining = True
        for session in list(self._sessions):
            session.go_away()

    def close(self, timeout: float = 5.0) -> None:
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
        self.drain()
        with self._changed:
            self._changed.wait_for(lambda: self.is_idle, timeout)
        self._unlink()
        self._stopping.set()
        # Wakes the accepting thread, and a child that inherited the socket no longer holds callers.
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(1.0)
        self._sock.close()
        threads = [*self._greeting.values(), *self._sessions.values()]
        for sock in list(self._greeting):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RD)  # its thread has something left to say
        for session in list(self._sessions):
            session.hang_up()
        until = time.monotonic() + 1.0
        for thread in threads:  # one whose handler still runs ends when that returns
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        self.watch.close()
        self.workers.close()

    def abandon(self) -> None:
        self._is_closed = True  # the file is the parent's
        for sock in (
            self._sock,
            *tuple(self._greeting),
            *(session.wire.sock for session in tuple(self._sessions)),
        ):
            sock.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "draining" if self.is_draining else "open"
        return f"<UnixListener {self.path} {state}, {len(self._sessions)} connections>"

    def call(
        self, request: Request, is_cancelled: Callable[[], bool], peer: str
    ) -> Response | Future[Response] | Stream:
        """The handler's answer. One that raises is broken, and still must not break others."""
        try:
            return self.handler(request, is_cancelled=is_cancelled, peer=peer)
        except Exception as exc:
            return Response(id=request.id, code="internal", message=f"the handler broke: {exc!r}")

    def draining(self) -> Unavailable:
        """What a request is refused with from `drain` on."""
        return Unavailable(f"the server at {self.path} is stopping", reason="draining")

    def notify(self) -> None:
        """Something that `close` waits for may be over."""
        with self._changed:
            self._changed.notify_all()

    def _unlink(self) -> None:
        with suppress(OSError):
            if os.stat(self.path).st_ino == self._inode:  # not somebody else's by now
                os.unlink(self.path)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError as exc:
                if self._stopping.is_set() or exc.errno in (errno.EBADF, errno.EINVAL):
                    return
                self._stopping.wait(0.05)  # out of descriptors: some will be free again
                continue
            try:
                thread = threading.Thread(
                    target=self._serve, args=(sock,), name="fan-ipc-serve", daemon=True
                )
                thread.start()
            except RuntimeError:  # out of threads
                sock.close()

    def attend(self, session: Session) -> None:
        """Serve a connection in this thread, to its end or until another thread takes it over."""
        self._sessions[session] = threading.current_thread()
        is_over = True
        try:
            if not self._stopping.is_set():
                is_over = session.run()
        finally:
            if is_over:
                session.hang_up()
                with session.writing:  # nobody writes to a descriptor that may soon be another's
                    session.wire.sock.close()
                self._sessions.pop(session, None)
                if self.is_draining:
                    self.notify()

    def _serve(self, sock: socket.socket) -> None:
        session = self._receive(sock)
        if session is not None:
            if self.is_draining:  # `drain` may have looked before this session was there
                session.go_away()
            self.attend(session)

    def _receive(self, sock: socket.socket) -> Session | None:
        """Greet who connected; None where it is no client, or `close` was quicker."""
        session, is_greeted = None, False
        self._greeting[sock] = threading.current_thread()
        try:
            if not self._stopping.is_set():  # `close` may have looked before this was there
                wire = Wire(sock, self.max_body + frames.ENVELOPE)
                deadline = time.monotonic() + GREETING
                wire.write(frames.hello(frames.SERVER), deadline)
                is_greeted = True
                session = self._greet(wire, deadline, peer_of(sock))
                self._sessions[session] = threading.current_thread()
        except (Gone, Late, Garbage, OSError):
            pass
        finally:
            if session is None:
                if is_greeted and self._stopping.is_set():  # what it may have sent never runs
                    with suppress(OSError):
                        sock.send(frames.frame(frames.GOAWAY, 0), socket.MSG_DONTWAIT)
                sock.close()
            self._greeting.pop(sock)
        return session

    def _greet(self, wire: Wire, deadline: float, peer: str) -> Session:
        mode = wire.read_hello(deadline)
        if mode == frames.SHARED:
            return SharedSession(self, wire, peer)
        if mode == frames.EXCLUSIVE:
            return ExclusiveSession(self, wire, peer)
        raise Garbage(f"a client of mode {mode}")


def peer_of(sock: socket.socket) -> str:
    """`uid:1000`: the user at the other end, for whom the kernel vouches."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return f"uid:{_CREDENTIALS.unpack(data)[1]}"


def listen(bind: str, handler: Handler, runtime_dir: str, max_body: int) -> UnixListener:
    """Listen at `bind`, a path or `unix://` and a path; by default in `runtime_dir`, under a name
    of its own. Raises InvalidArgument, AlreadyExists or Unavailable, with a sentence."""
    path = socket_path(bind, runtime_dir)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim(sock, path, is_swept=not bind)
        return UnixListener(path, sock, handler, max_body)
    except OSError as exc:
        sock.close()
        raise Unavailable(
            f"cannot listen at {path}: {exc.strerror or exc}", reason="connect_failed"
        ) from exc
    except BaseException:
        sock.close()
        raise
