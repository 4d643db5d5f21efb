"""The caller's side: from a target and arguments to a result, through the layers and a
transport."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from fan.codec import decode_result, encode_arguments
from fan.context import current, new_id
from fan.drivers import Background, apart, drive, drive_async, unbegun
from fan.endpoint import Endpoint, Rpc
from fan.errors import FanError
from fan.local import LocalCall
from fan.message import Response
from fan.middleware.base import Call, Options
from fan.model import Choice
from fan.sending import LOCAL, Sender

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.app import App


class Result(msgspec.Struct, frozen=True):
    """One call's answer with all that is known of it. `timing_ms` has resolve, connect, send, wait,
    decode and total, as far as the transport tells."""

    response: Response
    transport: str
    attempts: int
    trace_id: str
    timing_ms: dict[str, float]
    choice: Choice | None = None

    @property
    def value(self) -> Any:
        """The result itself. Raises Internal (malformed_reply)."""
        return decode_result(self.response)

    @property
    def version(self) -> str:
        """The version that answered."""
        return self.response.version

    @property
    def instance(self) -> str:
        """The instance that answered."""
        return self.response.instance

    @property
    def gen(self) -> int:
        """The registry generation that the route came from."""
        return self.response.gen


class Client:
    """Calls services for one App, with one set of options. `using()` gives another with others.

    A target is `service.method`, or `service.method@want` with a version constraint. Whatever fails
    raises a FanError, or the application's own registered error, with `target` set.
    """

    def __init__(self, app: App, options: Options | None = None) -> None:
        self._app = app
        self.options = options or Options()
        self._sender = Sender(app, self.options)
        self._endpoints: dict[str, Endpoint] = {}

    def __repr__(self) -> str:
        return f"<Client {self.options}>"

    @property
    def rpc(self) -> Rpc:
        """`client.rpc.service.method(...)`; dots nest."""
        return Rpc(self)

    def using(self, **options: Any) -> Client:
        """A client of the same App with these fields of `Options` set. Headers and baggage are
        merged."""
        for name in ("headers", "baggage"):
            if name in options:
                options[name] = {**getattr(self.options, name), **options[name]}
        return Client(self._app, msgspec.structs.replace(self.options, **options))

    def bind(self, target: str) -> Callable[..., Any]:
        """A callable for one target, for many calls. Raises ValueError for what is no target."""
        endpoint = self._endpoints.get(target) or self._endpoint(target)
        return endpoint.call

    def _endpoint(self, target: str) -> Endpoint:
        endpoint = self._endpoints.get(target)
        if endpoint is None:
            endpoint = Endpoint(self, target)
            self._sender.open_routes()
            self._app.binding.enlist(endpoint)
            endpoint = self._endpoints.setdefault(target, endpoint)
        return endpoint

    def call(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call and wait for the result."""
        return self.bind(target)(*args, **kwargs)

    async def acall(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call from a coroutine. Cancelling it cancels the call."""
        endpoint = self._endpoint(target)
        if endpoint.local is not None:
            return await endpoint.local.acall(args, kwargs)
        try:
            return decode_result(await self._asend("call", endpoint, args, kwargs))
        except FanError as exc:
            endpoint.aim(exc)
            raise

    def submit(self, target: str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call in the background; no thread waits for the answer. Cancelling the future cancels the
        call. A service of the same process runs on a thread of the App."""
        endpoint = self._endpoint(target)
        if (local := endpoint.local) is not None:
            return self._app.pool.submit(local.later(args, kwargs, time.monotonic()))
        try:
            content_type, body = encode_arguments(args, kwargs)
            call = self._sender.begin(
                "call", endpoint.service, endpoint.method, endpoint.want, content_type, body
            )
        except FanError as exc:
            from concurrent.futures import Future

            failed: Future[Any] = Future()
            failed.set_exception(endpoint.aim(exc))
            return failed
        return Background(self._sender.chain_of(call), call, decode_result, self._read).future

    def _read(self, run: Callable[[], Any], call: Call) -> Future[Any]:
        from contextvars import copy_context

        return self._app.runner.start(apart(self._app.pool, run, call), copy_context())

    def push(self, target: str, /, *args: Any, **kwargs: Any) -> None:
        """Hand a message over; return once it is accepted, before it is handled."""
        endpoint = self._endpoint(target)
        try:
            content_type, body = encode_arguments(args, kwargs)
            self.exchange("push", endpoint, content_type, body)
        except FanError as exc:
            endpoint.aim(exc)
            raise

    async def apush(self, target: str, /, *args: Any, **kwargs: Any) -> None:
        """The same from a coroutine."""
        endpoint = self._endpoint(target)
        try:
            await self._asend("push", endpoint, args, kwargs)
        except FanError as exc:
            endpoint.aim(exc)
            raise

    def publish(self, topic: str, /, *args: Any, **kwargs: Any) -> None:
        """Tell an event to all who subscribed to its topic; return once the broker has it. Raises
        ValueError for what is no topic."""
        content_type, body = encode_arguments(args, kwargs)
        self.announce(topic, content_type, body)

    async def apublish(self, topic: str, /, *args: Any, **kwargs: Any) -> None:
        """The same from a coroutine."""
        content_type, body = encode_arguments(args, kwargs)
        call = self._sender.begin_event(topic, content_type, body)
        await drive_async(self._sender.chain_of(call), call, self._app.mailbox())

    def stream(self, target: str, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """The items of a streaming method, as they arrive. Closing the iterator ends the stream."""
        endpoint = self._endpoint(target)
        try:
            content_type, body = encode_arguments(args, kwargs)
        except FanError as exc:
            endpoint.aim(exc)
            raise
        return self._items(endpoint, content_type, body)

    async def astream(self, target: str, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """The same from a coroutine: each item is awaited."""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        from contextvars import copy_context

        items = self.stream(target, *args, **kwargs)
        # A thread of its own: it waits more than it works, and nobody else is to wait for it.
        thread = ThreadPoolExecutor(1, "fan-stream")
        variables, end = copy_context(), object()
        pull: Callable[[], Any] = partial(variables.run, next, items, end)
        close: Callable[[], None] = partial(variables.run, items.close)  # type: ignore[attr-defined]
        pulled: Future[Any] | None = None
        try:
            while True:
                pulled = thread.submit(pull)
                try:
                    item = await asyncio.wrap_future(pulled)
                except asyncio.CancelledError:
                    # The thread still waits for the item; whoever is last there ends the stream.
                    pulled.add_done_callback(lambda _: close())
                    raise
                if item is end:
                    return
                yield item
        finally:
            closing = None
            if pulled is not None and pulled.done() and not pulled.cancelled():
                closing = thread.submit(close)
            thread.shutdown(wait=False)
            if closing is not None:
                await asyncio.wrap_future(closing)

    # With bodies instead of arguments, for programs that carry calls for others

    def request(
        self, service: str, method: str, content_type: str, body: bytes, *, kind: str = "call"
    ) -> Result:
        """One call (or push) of an encoded body, with all that is known of its outcome. An
        exception that it raises has `attempts`, `trace_id` and `timing_ms` where they are known."""
        started = time.monotonic()
        call = self._sender.begin(kind, service, method, self.options.want, content_type, body)
        return self._outcome(call, started)

    def announce(self, topic: str, content_type: str, body: bytes) -> Result:
        """One event with an encoded body, with all that is known of its outcome, as `request` has
        it."""
        started = time.monotonic()
        return self._outcome(self._sender.begin_event(topic, content_type, body), started)

    def _outcome(self, call: Call, started: float) -> Result:
        call.marks = {}
        try:
            response = drive(self._sender.chain_of(call), call)
        except Exception as exc:
            raise _known(exc, call, started) from exc.__cause__
        timing = _timing(call, started)
        return Result(response, _transport(call), call.attempt + 1, _trace(call), timing)

    def open_stream(
        self, service: str, method: str, content_type: str, body: bytes
    ) -> Iterator[Response]:
        """The chunks of a streamed answer and its end, undecoded. Raises like `stream`."""
        call = self._sender.begin("stream", service, method, self.options.want, content_type, body)
        return self._chunks(call)

    def resolve(self, service: str, method: str = "", *, kind: str = "call") -> Choice:
        """Where a call (or push) would go now, and why. Sends nothing."""
        self._sender.open_routes()
        hosted = self._sender.hosted(service, self.options.want, method)
        if hosted is not None:
            why = ("hosted in this App: called directly",)
            return Choice(service, method, LOCAL, hosted.version, why=why)
        if kind == "push" and (queue := self._sender.queue_for(service, method)) is not None:
            return queue
        parent = current()
        trace = parent.trace_id if parent is not None else new_id()
        deadline = time.monotonic() + self.options.seconds(self._app.settings.timeout)
        sticky = self.options.sticky or trace
        try:
            options = self._sender.options_for(service, method)
            return self._app.picker.explain(service, method, options, sticky, deadline)
        except FanError as exc:
            exc.target = exc.target or (f"{service}.{method}" if method else service)
            raise

    def exchange(self, kind: str, endpoint: Endpoint, content_type: str, body: bytes) -> Response:
        """One call over a transport, whatever is hosted here."""
        call = self._sender.begin(
            kind, endpoint.service, endpoint.method, endpoint.want, content_type, body
        )
        return drive(self._sender.chain_of(call), call)

    async def _asend(self, kind: str, endpoint: Endpoint, args: Any, kwargs: Any) -> Response:
        content_type, body = encode_arguments(args, kwargs)
        begin = partial(
            self._sender.begin,
            kind, endpoint.service, endpoint.method, endpoint.want, content_type, body,
        )  # fmt: skip
        if self.options.peers or self._app.discovery.is_cached(endpoint.service):
            call = begin()
        else:  # the first look at a service reads the registry: not on the caller's loop
            call = await self._begun_apart(begin, endpoint)
        return await drive_async(self._sender.chain_of(call), call, self._app.mailbox())

    async def _begun_apart(self, begin: Callable[[], Call], endpoint: Endpoint) -> Call:
        """Begin a call in a thread. What it waits for one is taken from its time."""
        from contextvars import copy_context

        from fan.pool import awaited

        start = time.monotonic()

        def run() -> Call:
            waited = time.monotonic() - start
            call = begin()
            call.deadline -= waited
            return call

        def late() -> FanError:
            return endpoint.aim(unbegun(endpoint.service, endpoint.method))

        deadline = start + self.options.seconds(self._app.settings.timeout)
        return await awaited(self._app.pool, partial(copy_context().run, run), deadline, late)

    def _items(self, endpoint: Endpoint, content_type: str, body: bytes) -> Iterator[Any]:
        call = self._sender.begin(
            "stream", endpoint.service, endpoint.method, endpoint.want, content_type, body
        )
        chunks = self._chunks(call)
        try:
            for response in chunks:
                if response.kind == "chunk":
                    yield decode_result(response)
        finally:
            chunks.close()  # type: ignore[attr-defined]

    def _chunks(self, call: Call) -> Iterator[Response]:
        first = drive(self._sender.chain_of(call), call)
        try:
            yield first
            if first.kind == "chunk":
                for response in call.chunks:
                    if response.code != "ok":
                        raise self._app.errors.arriving(response, call.target)
                    yield response
        except FanError as exc:
            exc.target = call.target
            raise
        finally:
            if call.chunks is not None:
                call.chunks.close()

    def rebind(self, endpoint: Endpoint) -> None:
        """Decide again whether an endpoint is called directly, by what is at hand (`binding`)."""
        try:
            hosted = self._sender.hosted(
                endpoint.service, endpoint.want, endpoint.method, is_at_hand=True
            )
        except FanError:  # a constraint that is none: its calls say so, and no others suffer
            hosted = None
        endpoint.local = (
            LocalCall.of(self._app, hosted, endpoint, self.options) if hosted is not None else None
        )


def _transport(call: Call) -> str:
    return getattr(call.transport, "scheme", "")


def _trace(call: Call) -> str:
    return call.traceparent[3:35]


def _timing(call: Call, started: float) -> dict[str, float]:
    marks, now = call.marks or {}, time.monotonic()
    # A mark that was skipped took no time; where none follows, the call ended in that phase.
    is_sent = "sent" in marks or "answered" in marks
    is_connected = is_sent or "connected" in marks
    resolved = marks.get("resolved", started if is_connected else now)
    connected = marks.get("connected", resolved if is_sent else now)
    sent = marks.get("sent", connected if "answered" in marks else now)
    answered = marks.get("answered", now)
    return {
        "resolve": _ms(started, resolved),
        "connect": _ms(resolved, connected),
        "send": _ms(connected, sent),
        "wait": _ms(sent, answered),
        "decode": _ms(answered, now),
        "total": _ms(started, now),
    }


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3) if end > start else 0.0


def _known(exc: Exception, call: Call, started: float) -> Exception:
    """Leave on an exception what is known of the call that raised it."""
    exc.attempts = call.attempt + 1  # type: ignore[attr-defined]
    exc.trace_id = _trace(call)  # type: ignore[attr-defined]
    exc.timing_ms = _timing(call, started)  # type: ignore[attr-defined]
    exc.transport = _transport(call)  # type: ignore[attr-defined]
    return exc
