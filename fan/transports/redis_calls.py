"""The calling side of the redis transport: requests go to streams, replies come on one list."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import msgspec

from fan.errors import AlreadyExists, FanError, Internal, InvalidArgument
from fan.message import Request, Response
from fan.transports.redis_failures import failure_of, late, lost, too_large, unroutable
from fan.transports.redis_fields import decode_reply, encode_request
from fan.transports.redis_keys import Keys, Source
from fan.transports.redis_loop import Loop, Timer
from fan.transports.redis_pipe import Item, Pipe
from fan.transports.redis_place import Place
from fan.transports.redis_replies import Replies
from fan.transports.redis_resp import Refusal, Reply, pack_all
from fan.transports.redis_watch import Watch


class Pending:
    """One call on its way. It is finished by whoever takes it out of `Calls.pending`."""

    __slots__ = (
        "began", "bell", "deadline", "entry", "future", "item", "outcome", "request", "source",
        "suspicion", "timer",
    )  # fmt: skip

    def __init__(self, request: Request, source: Source, future: Future[Response] | None) -> None:
        self.request = request
        self.source = source
        self.began = time.monotonic()
        self.deadline = self.began + request.timeout_ms / 1000
        self.future = future
        self.item: Item | None = None
        self.timer: Timer | None = None
        #: Number of the stream entry, once Redis said so.
        self.entry = b""
        #: What the last look at it found, where that was bad.
        self.suspicion = b""
        self.outcome: Response | FanError | None = None
        #: What a thread waits at.
        self.bell: threading.Lock | None = None
        if future is None:
            self.bell = threading.Lock()
            self.bell.acquire()

    def finish(self, outcome: Response | FanError) -> None:
        """Hand it to whoever waits."""
        if self.timer is not None:
            self.timer.cancel()
        if self.bell is not None:
            self.outcome = outcome
            self.bell.release()
        elif self.future is not None and self.future.set_running_or_notify_cancel():
            if isinstance(outcome, FanError):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)


class Calls:
    """All calls of one process to one Redis."""

    def __init__(
        self, loop: Loop, place: Place, pipe: Pipe, keys: Keys, caller: str, max_body: int
    ) -> None:
        self.place = place
        self.pending: dict[str, Pending] = {}
        self._loop = loop
        self._pipe = pipe
        self._keys = keys
        self._caller = caller
        self._max_body = max_body
        self._sources: dict[tuple[str, str, str], Source] = {}
        self._replies = Replies(loop, place, keys.replies(caller), pipe.news, self._got)
        self._watch = Watch(loop, pipe, keys, self)

    def __repr__(self) -> str:
        return f"<Calls {self.place.url} pending={len(self.pending)}>"

    @property
    def can_hear(self) -> bool:
        """Whether replies can come now."""
        return self._replies.is_open

    def call(self, request: Request, marks: dict[str, float] | None) -> Response:
        """Send and wait, in the calling thread."""
        pending = self._begin(request, None)
        bell = pending.bell
        assert bell is not None
        if not bell.acquire(timeout=max(0.0, pending.deadline - time.monotonic())):
            if self._take(pending):
                raise self._late(pending)
            bell.acquire()  # it was answered at the last moment
        if marks is not None and pending.item is not None:
            marks["connected"] = marks["sent"] = pending.item.sent_at or pending.began
        outcome = pending.outcome
        assert outcome is not None
        if isinstance(outcome, FanError):
            raise outcome
        return outcome

    def submit(self, request: Request) -> Future[Response]:
        """Send and return at once."""
        future: Future[Response] = Future()
        try:
            pending = self._begin(request, future)
        except FanError as exc:
            future.set_exception(exc)
            return future
        pending.timer = self._loop.at(pending.deadline, lambda: self._expire(pending))
        future.add_done_callback(lambda done: self._drop(pending) if done.cancelled() else None)
        return future

    def finish(self, pending: Pending, outcome: Response | FanError) -> None:
        """End a call, unless it has ended."""
        if self._take(pending):
            pending.finish(outcome)

    def close(self) -> None:
        """Fail what is under way. In the loop's thread, or after it."""
        self._replies.close()
        self._watch.close()
        for pending in [*self.pending.values()]:
            was_sent = pending.item is None or not self._pipe.withdraw(pending.item)
            why = lost(self.place.url, "this transport was closed", "maybe" if was_sent else "no")
            self.finish(pending, why)

    def abandon(self) -> None:
        """In a forked child: leave the connection to the parent."""
        self._replies.abandon()

    def wait_closed(self, timeout: float) -> None:
        """Wait for what the connection left running."""
        self._replies.wait_closed(timeout)

    def _begin(self, request: Request, future: Future[Response] | None) -> Pending:
        if len(request.body) > self._max_body:
            raise too_large("the request", len(request.body), self._max_body, "no")
        if request.timeout_ms <= 0:
            raise late(request.timeout_ms, was_sent=False)
        source = self._source(request)
        pending = Pending(request, source, future)
        data = self._encode(request, source)
        if self.pending.setdefault(request.id, pending) is not pending:
            raise AlreadyExists(
                f"a call with the id {request.id} is on its way", reason="duplicate_id"
            )
        if not self._replies.is_wanted:
            self._replies.want()
        pending.item = self._pipe.post(data, 1, lambda result: self._sent(pending, result))
        self._watch.begin()
        return pending

    def _source(self, request: Request) -> Source:
        key = (request.service, request.want, request.instance)
        source = self._sources.get(key)
        if source is None:
            if len(self._sources) > 1000:  # a caller of ever new names
                self._sources.clear()
            source = self._sources[key] = self._keys.calls(*key)
        return source

    def _encode(self, request: Request, source: Source) -> bytes:
        until = int(time.time() * 1000) + request.timeout_ms
        if request.deadline_ms is None or request.deadline_ms > until:
            request = msgspec.structs.replace(request, deadline_ms=until)
        try:
            fields = encode_request(request, reply=self._caller)
            return pack_all(("XADD", source.stream, "NOMKSTREAM", "*", *fields))
        except UnicodeEncodeError as exc:
            raise InvalidArgument(f"the request cannot be sent: {exc}", reason="malformed") from exc

    def _take(self, pending: Pending) -> bool:
        """Whether it is ours to finish."""
        number = pending.request.id
        return self.pending.get(number) is pending and self.pending.pop(number, None) is pending

    def _late(self, pending: Pending) -> FanError:
        was_sent = pending.item is not None and not self._pipe.withdraw(pending.item)
        where = "" if was_sent else self.place.url
        return late(pending.request.timeout_ms, was_sent=was_sent, where=where)

    # In the loop's thread

    def _sent(self, pending: Pending, result: list[Reply] | FanError) -> None:
        if isinstance(result, FanError):
            self.finish(pending, result)
        elif isinstance(result[0], Refusal):
            self.finish(pending, failure_of(result[0], self.place.url))
        elif result[0] is None:
            self.finish(pending, unroutable(pending.request, self.place.url))
        else:
            pending.entry = result[0]

    def _got(self, elements: list[bytes]) -> None:
        for element in elements:
            try:
                response = decode_reply(element)
            except Internal as exc:
                whose = self.pending.pop(exc.details["id"], None)
                if whose is not None:  # else nobody can say
                    whose.finish(exc)
                continue
            pending = self.pending.pop(response.id, None)
            if pending is None:
                continue  # it is late: whoever called has gone
            if len(response.body) > self._max_body:
                size = len(response.body)
                pending.finish(too_large("the answer", size, self._max_body, "yes"))
            else:
                pending.finish(response)

    def _expire(self, pending: Pending) -> None:
        if self._take(pending):
            pending.finish(self._late(pending))

    def _drop(self, pending: Pending) -> None:
        """Its caller gave up."""
        if self._take(pending):
            if pending.timer is not None:
                pending.timer.cancel()
            if pending.item is not None:
                self._pipe.withdraw(pending.item)
