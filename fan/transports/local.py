"""In process: requests go to a handler of the same App, through the envelope.

A plain call of a hosted service does not come here, it is the method itself (`fan.local`). This
carries what has no such short cut: streams, pushes, and bodies that somebody else encoded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from fan.errors import YES, DeadlineExceeded, Unavailable
from fan.message import Request, Response
from fan.model import Address
from fan.transports.base import Handler, Listener, Stream, Transport

if TYPE_CHECKING:
    from concurrent.futures import Future


class LocalTransport(Transport):
    """Reaches the handlers that were given to `serve` of the same object."""

    scheme: ClassVar[str] = "local"
    can: ClassVar[frozenset[str]] = frozenset({"call", "push", "stream", "serve"})

    def __init__(self, settings: Any = None) -> None:
        self._handler: Handler | None = None

    def __repr__(self) -> str:
        return f"<LocalTransport {'open' if self._handler else 'closed'}>"

    def call(
        self, address: Address, request: Request, *, marks: dict[str, float] | None = None
    ) -> Response:
        """Hand the request over and wait; an `async def` handler is waited for within the
        deadline. A plain one cannot be stopped: it is told late, on return."""
        started = time.monotonic()
        answer = self._handle(request)
        if isinstance(answer, Response):
            if answer.code == "ok" and time.monotonic() - started > request.timeout_ms / 1000:
                raise DeadlineExceeded(
                    f"{request.service}.{request.method} returned after its deadline",
                    reason="server_timer",
                    executed=YES,
                )
            return answer
        assert not isinstance(answer, Stream)
        from concurrent.futures import TimeoutError

        try:
            response: Response = answer.result(request.timeout_ms / 1000)
            return response
        except TimeoutError:
            answer.cancel()
            raise DeadlineExceeded(
                f"no reply within {request.timeout_ms} ms", reason="client_timer"
            ) from None

    def submit(self, address: Address, request: Request) -> Future[Response]:
        """The same on a thread of its own: the handler may block."""
        import threading
        from concurrent.futures import Future
        from contextvars import copy_context

        future: Future[Response] = Future()

        def run() -> None:
            try:
                response = self.call(address, request)
            except BaseException as exc:
                if future.set_running_or_notify_cancel():
                    future.set_exception(exc)
            else:
                if future.set_running_or_notify_cancel():
                    future.set_result(response)

        threading.Thread(
            target=copy_context().run, args=(run,), name="fan-local", daemon=True
        ).start()
        return future

    def send(self, address: Address, request: Request) -> Response:
        """Hand a push over; the handler accepts it before it runs."""
        return self.call(address, request)

    def stream(self, address: Address, request: Request) -> Iterator[Response]:
        """The chunks as the handler makes them; nothing is produced ahead of the reader."""
        answer = self._handle(request)
        if isinstance(answer, Stream):
            idle = request.timeout_ms / 1000
            try:
                asked = time.monotonic()
                for response in answer.chunks:
                    # Nothing can stop a generator in its step: like any local call it is told late.
                    if time.monotonic() - asked > idle:
                        raise DeadlineExceeded(
                            f"no item within {request.timeout_ms} ms", reason="client_timer"
                        )
                    yield response
                    asked = time.monotonic()
            finally:
                answer.close()
        elif isinstance(answer, Response):
            yield answer
        else:
            yield answer.result()

    def serve(self, bind: str, handler: Handler) -> Listener:
        """Answer for `local:` in this object."""
        self._handler = handler
        return _LocalListener(self)

    def close(self) -> None:
        """Forget the handler."""
        self._handler = None

    def _handle(self, request: Request) -> Any:
        if self._handler is None:
            raise Unavailable("nothing is served in this process", reason="connect_failed")
        return self._handler(request, peer="local")


class _LocalListener(Listener):
    def __init__(self, transport: LocalTransport) -> None:
        self.address = Address("local:")
        self._transport = transport

    def drain(self) -> None:
        """The handler itself refuses what is new."""

    def close(self, timeout: float = 5.0) -> None:
        """Stop answering."""
        self._transport.close()
