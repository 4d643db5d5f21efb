"""One call on its way out: begun once, then an instance is chosen and a request sent per
attempt."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from fan.codec import encode_baggage
from fan.context import current, new_id
from fan.errors import FanError
from fan.hosting import Hosted
from fan.message import Request, Response
from fan.middleware.base import Call, CallNext, Middleware, Options, Send, Steps
from fan.model import Address, Choice
from fan.picker import Table, peer

if TYPE_CHECKING:
    from fan.app import App

#: Address of what is hosted in the same App.
LOCAL = Address("local:")


class Sender:
    """The layers of one client and the two ends of their chain: choose, and send."""

    def __init__(self, app: App, options: Options) -> None:
        self._app = app
        self._options = options
        #: Whether these options leave a call to a service of the same App where it is.
        self._may_stay = not (options.peers or options.instance or options.shard) and (
            options.transport in ("", "auto", "local")
        )
        routing = {"timeout": None, "transport": "", "peers": (), "instance": "", "retries": None}
        #: Whether these options put nothing into a request; those that choose its way do not count.
        self._has_no_fields = msgspec.structs.replace(options, **routing) == Options()
        self.chain = client_chain(app.middleware, self._pick, self._send)

    def hosted(self, service: str, want: str) -> Hosted | None:
        """The service hosted in this App that a call goes to directly, None where there is none or
        the options name another place."""
        if not self._may_stay or not self._app.dispatcher.hosting:
            return None
        return self._app.hosted_for(service, want or self._options.want)

    def begin(
        self, kind: str, service: str, method: str, want: str, content_type: str, body: bytes
    ) -> Call:
        """A call with its deadline, key and trace. Raises NotFound (no_such_service) and what keeps
        the registry from being read."""
        options, parent, app = self._options, current(), self._app
        if want and want != options.want:
            options = msgspec.structs.replace(options, want=want)
        number = new_id()
        call = Call(
            service=service,
            method=method,
            kind=kind,
            options=options,
            body=body,
            content_type=content_type,
            id=number,
            deadline=time.monotonic() + options.seconds(app.settings.timeout),
            key=options.key,
        )
        if parent is None:
            # The root's span needs an id that is unique in its trace: half of the trace's own is.
            call.traceparent = f"00-{number}-{number[16:]}-00"
        else:
            if options.timeout is None and parent.deadline is not None:
                call.deadline = parent.deadline  # each hop passes on what is left, as locally
            call.parent, call.gen, call.traceparent = parent, parent.gen, parent.traceparent
            call.key = options.key or parent.child_key()
        try:
            hosted = self.hosted(service, want)
        except FanError as exc:
            exc.target = call.target
            raise
        if hosted is not None:
            call.hosted, call.version = hosted.instance_id, hosted.version
            call.is_idempotent = getattr(hosted.table.get(method), "is_idempotent", False)
        elif not options.peers:
            self._look_up(call)
        return call

    def _look_up(self, call: Call) -> None:
        """Read what the registry knows: the service, and what its method says of itself."""
        options = call.options
        try:
            table = call.table = self._app.picker.look(call.service, call.deadline)
            info = table.method(call.method, options.want)
        except FanError as exc:
            exc.target = call.target
            raise
        if info is not None:
            call.is_idempotent = info.is_idempotent
            if info.timeout and options.timeout is None:
                own = time.monotonic() + info.timeout
                call.deadline = own if call.parent is None else min(own, call.deadline)

    def _pick(self, call: Call, next: CallNext) -> Steps:
        if call.hosted:
            call.address, call.transport = LOCAL, self._app.transport("local")
            return next(call)
        try:
            choice = self._choose(call)
        except FanError as exc:
            exc.target = call.target
            raise
        call.instance, call.address, call.version = choice.instance, choice.address, choice.version
        call.gen = call.gen or choice.gen
        call.transport = self._app.transport_for(choice.address)
        if call.marks is not None:
            call.marks.setdefault("resolved", time.monotonic())
        return next(call)

    def _choose(self, call: Call) -> Choice:
        options, picker = call.options, self._app.picker
        if options.peers:
            return peer(call.service, call.method, options, call.tried)
        sticky = options.sticky or call.traceparent[3:35]
        table: Table = call.table
        if call.attempt:
            if not call.gen:
                self._app.discovery.forget(call.service)  # `retry` found the route stale
            table = call.table = picker.look(call.service, call.deadline)
        try:
            return picker.pick(table, call.method, options, sticky, call.tried)
        except FanError:
            fresh = picker.look_again(table, call.deadline)  # the watch may be behind
            if fresh is None:
                raise
            return picker.pick(fresh, call.method, options, sticky, call.tried)

    def _send(self, call: Call) -> Steps:
        request = self._request(call)
        assert call.address is not None
        try:
            response: Response = yield Send(call.transport, call.address, request, call.marks)
        except FanError as exc:
            exc.target = call.target
            raise
        if call.marks is not None:
            call.marks["answered"] = time.monotonic()
        if response.code != "ok":
            raise self._app.errors.arriving(response, call.target)
        return response

    def _request(self, call: Call) -> Request:
        parent, app = call.parent, self._app
        # Keyword by keyword a struct with all of its fields takes four times as long as these.
        request = Request(
            id=call.id if not call.attempt else new_id(),
            service=call.service,
            method=call.method,
            timeout_ms=max(1, int((call.deadline - time.monotonic()) * 1000)),
            gen=call.gen,
            instance=call.instance.id if call.instance else call.hosted or call.options.instance,
            traceparent=call.traceparent,
            caller=parent.service if parent is not None else app.name,
            caller_instance=parent.instance if parent is not None else app.instance_id,
            content_type=call.content_type,
            body=call.body,
        )
        if parent is None and not call.attempt and call.kind == "call" and self._is_bare(call):
            return request
        return msgspec.structs.replace(request, **self._rest(call))

    def _is_bare(self, call: Call) -> bool:
        """Whether a first call from outside of any other has nothing but its arguments to carry."""
        return self._has_no_fields and not call.options.want and not call.key

    def _rest(self, call: Call) -> dict[str, Any]:
        options, parent = call.options, call.parent
        rest: dict[str, Any] = {
            "kind": call.kind,
            "key": call.key or (call.id if call.attempt else ""),
            "want": options.want,
            "shard": options.shard,
            "ttl_ms": int(options.ttl * 1000) if options.ttl else None,
            "baggage": options.baggage,
            "headers": options.headers,
            "principal": options.principal,
            "attempt": call.attempt,
        }
        if options.caller:
            rest["caller"] = options.caller
        if parent is not None:
            rest["tracestate"] = parent.tracestate
            rest["baggage"] = {**parent.baggage, **options.baggage}
            rest["principal"] = options.principal or parent.principal
            rest["hops"] = parent.hops + 1
        if rest["baggage"]:
            encode_baggage(rest["baggage"])  # what is too much is so for every transport
        return rest


def client_chain(layers: list[Middleware], pick: Callable[..., Steps], send: CallNext) -> CallNext:
    """The layers that do something on the caller's side, outermost first: those around the call,
    the choice of an instance, those around an attempt, the transport."""
    active = [m for m in layers if type(m).on_call is not Middleware.on_call]
    chain = send
    for layer in reversed([m for m in active if m.is_per_attempt]):
        chain = partial(layer.on_call, next=chain)
    chain = partial(pick, next=chain)
    for layer in reversed([m for m in active if not m.is_per_attempt]):
        chain = partial(layer.on_call, next=chain)
    return chain
