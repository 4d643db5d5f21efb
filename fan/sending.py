"""One call on its way out: begun once, then an instance is chosen (`choosing`) and a request sent
per attempt."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from fan.choosing import Chooser
from fan.codec import check_baggage
from fan.context import _current, new_id
from fan.errors import FanError
from fan.hosting import Hosted
from fan.message import JSON, MAX_TIMEOUT, Request, Response
from fan.middleware.base import Call, CallNext, Middleware, Options, Read, Send, Steps, around
from fan.model import Address, Choice
from fan.picker import Table
from fan.routes import Rule
from fan.service import check_topic

if TYPE_CHECKING:
    from fan.app import App

#: Address of what is hosted in the same App.
LOCAL = Address("local:")


class Sender:
    """The layers of one client and the two ends of their chain: choose, and send."""

    def __init__(self, app: App, options: Options) -> None:
        self._app = app
        self._options = options
        self._chooser = Chooser(app)
        self._seconds = options.seconds(app.settings.timeout)
        #: Whether these options leave the way of a call to the rules of the App.
        self._is_open = not (options.peers or options.instance) and options.transport == ""
        self._by_rule: dict[Rule, Options] = {}
        #: Whether these options leave a call to a service of the same App where it is.
        self._may_stay = not (options.peers or options.instance or options.shard) and (
            options.transport in ("", "auto", "local")
        )
        routing = {
            "timeout": None, "transport": "", "peers": (), "instance": "", "retries": None,
            "retry_delay": None, "retries_all": False, "breaker": True,
        }  # fmt: skip
        #: Whether these options put nothing into a request; those that choose its way do not count.
        self._has_no_fields = msgspec.structs.replace(options, **routing) == Options()
        self._chain = client_chain(app.middleware, self._pick, self._send)
        #: The same with the layers of a policy.
        self._chains: dict[Any, tuple[list[Middleware], CallNext]] = {}

    def chain_of(self, call: Call) -> CallNext:
        """The layers that a call goes through."""
        if not call.policy:
            return self._chain
        policies = self._app.policies
        assert policies is not None  # it made the call's
        layers = policies.layers(call.policy)
        made = self._chains.get(call.policy)
        if made is None or made[0] is not layers:
            chain = client_chain(layers, self._pick, self._send)
            rest = {k: v for k, v in self._chains.copy().items() if policies.has(k)}
            self._chains = {**rest, call.policy: (layers, chain)}
            return chain
        return made[1]

    def open_routes(self) -> None:
        """Have the rules at hand that calls with these options go by; under no lock."""
        book = self._app.routes
        if book is not None and self._is_open:
            book.open()

    def hosted(
        self, service: str, want: str, method: str = "", *, is_at_hand: bool = False
    ) -> Hosted | None:
        """The service hosted in this App that a call goes to directly, None where there is none or
        the options or a rule name another place. With `is_at_hand` it reads no registry."""
        if not self._may_stay or not self._app.dispatcher.hosting.of(service):
            return None
        book = self._app.routes if self._is_open else None
        if book is not None and is_at_hand and not book.is_at_hand:
            return None  # the first call reads the rules, and has this asked again
        rule = book.at_hand(service, method) if book is not None else None
        if rule is not None and (rule.url or rule.type not in ("auto", "local")):
            return None
        want = want or self._options.want
        return self._app.binding.hosted_for(service, want, is_at_hand=is_at_hand)

    def begin(
        self, kind: str, service: str, method: str, want: str, content_type: str, body: bytes
    ) -> Call:
        """A call with its deadline, key and trace. Raises NotFound (no_such_service) and what keeps
        the registry from being read."""
        options, parent, app = self._options, _current.get(), self._app
        if app.routes is not None:
            options = self.options_for(service, method)
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
            deadline=time.monotonic() + self._seconds,
            key=options.key,
        )
        if parent is None:
            # The root's span needs an id that is unique in its trace: half of the trace's own is.
            flags = "01" if app.sample and int(number[:8], 16) < app.sample * 2**32 else "00"
            call.traceparent = f"00-{number}-{number[16:]}-{flags}"
        else:
            if options.timeout is None and parent.deadline is not None:
                call.deadline = parent.deadline  # each hop passes on what is left, as locally
            call.parent, call.gen, call.traceparent = parent, parent.gen, parent.traceparent
            call.key = options.key or parent.child_key()
        try:
            stays = self._may_stay and kind != "event"
            hosted = self.hosted(service, want, method) if stays else None
        except FanError as exc:
            exc.target = call.target
            raise
        if hosted is not None:
            call.hosted, call.version = hosted.instance_id, hosted.version
            call.is_idempotent = getattr(hosted.table.get(method), "is_idempotent", False)
        elif not options.peers and kind != "event":
            self._look_up(call)
        return call

    def _look_up(self, call: Call) -> None:
        """Read what the registry knows: the service, and what its method says of itself."""
        options = call.options
        try:
            table = self._chooser.look(call)
            want = call.options.want
            info = table.method(call.method, want) if want else table.methods.get(call.method)
        except FanError as exc:
            exc.target = call.target
            raise
        seconds = None
        if info is not None:
            call.is_idempotent, seconds = info.is_idempotent, info.timeout
        policies = self._app.policies
        if policies is not None and (table.has_policy or policies.given):
            call.policy = policies.of(call.service, call.method, table.info)
        if call.policy:
            seconds = dict(call.policy).get("timeout", seconds)
        if seconds and options.timeout is None:
            own = time.monotonic() + min(seconds, MAX_TIMEOUT)
            call.deadline = own if call.parent is None else min(own, call.deadline)

    def options_for(self, service: str, method: str) -> Options:
        """The options of a call, with what a rule of the App says of its way."""
        book = self._app.routes
        return self._ruled(book.find(service, method)) if book and self._is_open else self._options

    def _ruled(self, rule: Rule | None) -> Options:
        """The options with the way that a rule names."""
        if rule is None:
            return self._options
        options = self._by_rule.get(rule)
        if options is None:
            peers = (rule.url,) if rule.url else ()
            options = msgspec.structs.replace(self._options, transport=rule.type, peers=peers)
            self._by_rule[rule] = options
        return options

    def begin_event(self, topic: str, content_type: str, body: bytes) -> Call:
        """An event about a topic, which goes to a broker and not to a service. Raises ValueError
        for what is no topic."""
        check_topic(topic)
        call = self.begin("event", topic, "", "", content_type, body)
        call.topic, call.service = topic, ""
        return call

    def _pick(self, call: Call, next: CallNext) -> Steps:
        table: Table | None = call.table
        if table and table.sharding is None and call.kind != "push" and not call.attempt:
            plain = self._app.picker.next_of(table, call.options)
            if plain is not None:
                self._settle(call, plain)
                return next(call)
        if call.kind == "event":
            call.address, call.transport = self._chooser.broker(call)
            return next(call)
        if call.hosted:
            call.address, call.transport = LOCAL, self._app.transport("local")
            return next(call)
        if call.attempt and not call.options.peers:
            return self._pick_again(call, next)
        try:
            choice = self._chooser.choose(call, is_at_hand=True)
        except FanError:
            return self._pick_again(call, next)
        self._settle(call, choice)
        return next(call)

    def _pick_again(self, call: Call, next: CallNext) -> Steps:
        """What is known may be what was wrong: a route, or who is there."""
        try:
            self._settle(call, (yield Read(partial(self._chooser.choose, call))))
        except FanError as exc:
            exc.target = call.target
            raise
        return (yield from next(call))

    def _settle(self, call: Call, choice: Choice) -> None:
        call.instance, call.address, call.version = choice.instance, choice.address, choice.version
        call.gen = call.gen or choice.gen
        transport = call.transport = self._app.transport_for(choice.address)
        if transport.is_shared and not (call.options.instance or call.options.shard or call.shard):
            call.instance = None  # whichever takes it from the queue
        if call.marks is not None:
            call.marks.setdefault("resolved", time.monotonic())

    def queue_for(self, service: str, method: str) -> Choice | None:
        """The queue that a push would wait in now; None where it goes the way of a call. Raises
        what choosing raises."""
        call = self.begin("push", service, method, "", JSON, b"")
        try:
            choice = self._chooser.choose(call)
        except FanError as exc:
            exc.target = call.target
            raise
        if not self._app.transport_for(choice.address).is_shared:
            return None
        why = choice.why or (f"the queue of {call.service}: its instances are served over it",)
        return msgspec.structs.replace(choice, version="", instance=None, why=why)

    def _send(self, call: Call) -> Steps:
        request = self._request(call)
        assert call.address is not None
        try:
            response: Response = yield Send(call.transport, call.address, request, call.marks)
        except FanError as exc:
            exc.target = call.target
            if exc.reason == "connect_failed" and call.instance is not None:
                self._app.picker.avoid(call.address)
            raise
        if call.marks is not None:
            call.marks["answered"] = time.monotonic()
        if response.code != "ok":
            raise self._app.errors.arriving(response, call.target)
        if call.kind == "push" and not response.gen:  # a broker knows of no route
            response = msgspec.structs.replace(response, gen=request.gen)
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
        is_first = parent is None and not (call.attempt or call.shard) and call.kind == "call"
        has_no_more = self._has_no_fields and not call.options.want and not call.key
        if is_first and has_no_more and not call.transport.is_shared:  # type: ignore[union-attr]
            return request
        return msgspec.structs.replace(request, **self._rest(call))

    def _rest(self, call: Call) -> dict[str, Any]:
        options, parent = call.options, call.parent
        rest: dict[str, Any] = {
            "kind": call.kind,
            "key": call.key or (call.id if call.attempt else ""),
            "want": options.want,
            "topic": call.topic,
            "shard": call.shard or options.shard,
            "ttl_ms": int(options.ttl * 1000) if options.ttl else None,
            "baggage": options.baggage,
            "headers": options.headers,
            "principal": options.principal,
            "attempt": call.attempt,
        }
        if call.version and call.kind in ("call", "stream") and call.transport.is_shared:  # type: ignore[union-attr]
            rest["want"] = call.version
        if options.caller:
            rest["caller"] = options.caller
        if parent is not None:
            rest["tracestate"] = parent.tracestate
            rest["baggage"] = baggage = {**parent.baggage, **options.baggage}
            if baggage:  # its handlers may have added to it
                check_baggage(baggage)
            rest["principal"] = options.principal or parent.principal
            rest["hops"] = parent.hops + 1
        return rest


def client_chain(layers: list[Middleware], pick: Callable[..., Steps], send: CallNext) -> CallNext:
    """The layers that do something on the caller's side, outermost first: those around the call,
    the choice of an instance, those around an attempt, the transport."""
    active = [m for m in layers if type(m).on_call is not Middleware.on_call]
    chain = send
    for layer in reversed([m for m in active if m.is_per_attempt]):
        chain = around(layer.on_call, chain)
    chain = around(pick, chain)
    for layer in reversed([m for m in active if not m.is_per_attempt]):
        chain = around(layer.on_call, chain)
    return chain
