"""Stand-ins for time and for the network, for tests of what is built on fan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, ClassVar

from fan.codec import encode_result
from fan.errors import FanError
from fan.message import Request, Response
from fan.model import Address
from fan.transports.base import Transport


class FakeClock:
    """A clock that moves when it is told to: give it where a `clock` is taken, call `advance`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def __repr__(self) -> str:
        return f"<FakeClock {self.now}>"

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds


class RecordingTransport(Transport):
    """Sends nothing: keeps every request, and answers with what `answer` makes of it::

        sent = RecordingTransport(lambda request: 42)
        app = fan.App(transports={"fake": sent})
        assert app.using(peers=("fake:anywhere",)).call("greeter.hello") == 42
        assert sent.requests[0].method == "hello"

    `answer` returns the call's value, a ready Response, or raises: a FanError counts as the
    transport's own failure. For a stream it returns the list of items.
    """

    scheme: ClassVar[str] = "fake"
    can: ClassVar[frozenset[str]] = frozenset({"call", "push", "stream", "cancel"})

    def __init__(self, answer: Callable[[Request], Any] = lambda request: None) -> None:
        self._answer = answer
        #: In the order in which they were sent.
        self.requests: list[Request] = []
        self.addresses: list[Address] = []
        self.is_closed = False

    def __repr__(self) -> str:
        return f"<RecordingTransport requests={len(self.requests)}>"

    def call(
        self, address: Address, request: Request, *, marks: dict[str, float] | None = None
    ) -> Response:
        """Keep the request and answer it. Raises what `answer` raises."""
        value = self._take(address, request)
        if isinstance(value, Response):
            return value
        content_type, body = encode_result(value)
        return Response(id=request.id, content_type=content_type, body=body)

    def submit(self, address: Address, request: Request) -> Future[Response]:
        """The same, as a finished future."""
        future: Future[Response] = Future()
        try:
            future.set_result(self.call(address, request))
        except FanError as exc:
            future.set_exception(exc)
        return future

    def send(self, address: Address, request: Request) -> Response:
        """Keep the push and accept it. Raises what `answer` raises."""
        self._take(address, request)
        return Response(id=request.id)

    def stream(self, address: Address, request: Request) -> Iterator[Response]:
        """Keep the request; yield what `answer` gives. Raises what `answer` raises."""
        items = self._take(address, request)
        for seq, item in enumerate(items):
            content_type, body = encode_result(item)
            yield Response(
                id=request.id, kind="chunk", seq=seq, content_type=content_type, body=body
            )
        yield Response(id=request.id, kind="end")

    def close(self) -> None:
        """Remember that it was closed."""
        self.is_closed = True

    def _take(self, address: Address, request: Request) -> Any:
        self.requests.append(request)
        self.addresses.append(address)
        return self._answer(request)
