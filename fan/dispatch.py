"""The server side above the transports: from a Request to its answer. Nothing here raises to a
transport."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from fan.errors import FailedPrecondition, FanError, InvalidArgument, Unimplemented
from fan.exchange import Exchange
from fan.failures import error_response
from fan.hosting import Hosted, Hosting
from fan.message import MAX_TIMEOUT, VERSION, Request, Response
from fan.middleware.base import Inbound, InboundNext, Invoke, Middleware, Steps, around
from fan.service import Method
from fan.transports.base import Overdue, Stream

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.app import App
    from fan.overdue import Watch

_INVOKE = Invoke()
#: The most milliseconds that anything can wait.
_MOST_MS = int(MAX_TIMEOUT * 1000)


class Dispatcher:
    """The Handler of `transports.base`, over the services that one App hosts."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.hosting = Hosting()
        self._chain = server_chain(app.middleware, self._invoke)
        self._idle = threading.Condition()
        #: One item per request in flight: append and pop are atomic, and need no lock on the way.
        self._flying: list[None] = []
        #: One per request that a transport brought and that is not, or not yet, in flight alone.
        self._entered: list[None] = []
        self._watch: Watch | None = None
        #: Whether anybody waits for the last request to end.
        self._is_awaited = False

    def __repr__(self) -> str:
        return f"<Dispatcher services={len(self.hosting)} in_flight={self.in_flight}>"

    @property
    def push_timeout(self) -> float:
        """Seconds that one delivery of a queued push or event may take, unless its method says."""
        return float(self._app.settings.push_timeout)

    @property
    def in_flight(self) -> int:
        """Requests that are being handled now."""
        return len(self._flying)

    @property
    def watch(self) -> Watch:
        """What notices handlers of queued messages that do not come back."""
        watch = self._watch
        if watch is None:
            from fan.overdue import Watch

            with self._idle:
                watch = self._watch
                if watch is None:
                    watch = self._watch = Watch()
        return watch

    def close(self) -> None:
        """Notice nothing more. Twice does no harm."""
        if self._watch is not None:
            self._watch.close()

    def start_over(self) -> None:
        """Forget what was in flight in the process that this one was forked from."""
        self._idle = threading.Condition()
        self._flying = []
        self._entered = []
        self._is_awaited = False
        self._watch = None
        self.hosting.start_over()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is in flight; False when `timeout` seconds pass first."""
        with self._idle:
            self._is_awaited = True
            return self._idle.wait_for(self._is_idle, timeout)

    def _is_idle(self) -> bool:
        return not self._entered and not self._flying  # in this order: one goes from there to here

    def stats(self, instance_id: str) -> dict[str, Any]:
        """Counters of one hosted instance, for the built-in `stats` method."""
        found = next((h for h in self.hosting if h.instance_id == instance_id), None)
        return {
            "methods": found.counts() if found is not None else {},
            "in_flight": len(found.flying) if found is not None else 0,
        }

    def __call__(
        self,
        request: Request,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        peer: str = "",
        is_queued: bool = False,
        on_overdue: Overdue | None = None,
    ) -> Response | Future[Response] | Stream:
        """Answer one request: see `transports.base.Handler`."""
        if request.timeout_ms > _MOST_MS:  # whoever sent it
            request = msgspec.structs.replace(request, timeout_ms=_MOST_MS)
        try:
            if request.v != VERSION:
                raise _wrong_version(request.v)
            hosted = self.hosting.find(request)
            if hosted.is_retired and request.kind in ("call", "stream"):
                raise self._stale(hosted)
            method = hosted.method(request.method)
        except FanError as exc:
            return error_response(request, exc)
        return self.handle(
            request,
            hosted,
            method,
            is_cancelled=is_cancelled,
            peer=peer,
            is_queued=is_queued,
            on_overdue=on_overdue,
        )

    def _stale(self, hosted: Hosted) -> FanError:
        gen = self._app.discovery.gen
        return FailedPrecondition(
            f"{hosted.name} {hosted.version} is retired as of generation {gen}:"
            " the route goes elsewhere",
            reason="stale_route",
            details={"gen": gen},
        )

    def handle(
        self,
        request: Request,
        hosted: Hosted,
        method: Method,
        *,
        is_cancelled: Callable[[], bool] | None = None,
        peer: str = "",
        is_queued: bool = False,
        on_overdue: Overdue | None = None,
    ) -> Response | Future[Response] | Stream:
        """Answer one request by a method that was found for it."""
        if method.is_stream is not (request.kind == "stream"):
            return error_response(request, _wrong_kind(request, method))
        if request.principal and not peer:
            request = msgspec.structs.replace(request, principal="")
        if is_queued and request.kind in ("push", "event") and request.gen:
            request = msgspec.structs.replace(request, gen=0)  # pinned anew at each delivery
        exchange = Exchange(
            self, request, hosted, method, is_cancelled, is_queued=is_queued, on_overdue=on_overdue
        )
        return exchange.run(hosted.chains.get(method.name) or self._chain, peer)

    def follow(self, hosted: Hosted, layers: Callable[[str], list[Middleware] | None]) -> None:
        """Serve an instance's methods through the layers that their policies ask for; None are the
        usual ones."""
        found = ((name, layers(name)) for name in hosted.table)
        hosted.chains = {
            name: server_chain(own, self._invoke) for name, own in found if own is not None
        }

    def begin(self, hosted: Hosted) -> None:
        """Count one request of an instance in."""
        self._flying.append(None)
        hosted.flying.append(None)

    def end(self, hosted: Hosted) -> None:
        """Count it out."""
        hosted.flying.pop()
        self._flying.pop()
        if self._is_awaited and not self._flying:
            with self._idle:
                self._idle.notify_all()

    def enter(self) -> list[None]:
        """Count one that a transport brings in, before it is known what it is; what this gives is
        for `leave`."""
        entered = self._entered
        entered.append(None)
        return entered

    def leave(self, entered: list[None]) -> None:
        """Count it out: it is in flight, or was answered."""
        entered.pop()
        if self._is_awaited and not entered:
            with self._idle:
                self._idle.notify_all()

    def _invoke(self, inbound: Inbound) -> Steps:
        """The innermost layer: bind the arguments, then have the driver run the handler."""
        exchange: Exchange = inbound.exchange
        exchange.bind()
        response: Response = yield _INVOKE
        return response


def server_chain(layers: list[Middleware], innermost: InboundNext) -> InboundNext:
    """The layers that do something on the server's side, outermost first, around `innermost`."""
    chain = innermost
    for layer in reversed(layers):
        if type(layer).on_request is not Middleware.on_request:
            chain = around(layer.on_request, chain)
    return chain


def _wrong_version(v: int) -> FanError:
    return InvalidArgument(
        f"the envelope has version {v}, and this side speaks {VERSION}", reason="malformed"
    )


def _wrong_kind(request: Request, method: Method) -> FanError:
    what = "a stream: read it with stream()" if method.is_stream else "no stream: use call()"
    return Unimplemented(
        f"{request.service}.{request.method} is {what}", reason="streaming_unsupported"
    )
