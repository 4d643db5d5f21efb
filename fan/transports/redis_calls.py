"""The calling side of the redis transport: requests go to streams, replies come on one list."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import msgspec

from fan.errors import AlreadyExists, FanError, Internal, InvalidArgument
from fan.message import Request, Response
from fan.transports.redis_failures import failure_of, late, lost, too_large, unroutable
from fan.transports.redis_fields import decode_reply, encode_request
from fan.transports.redis_keys import Keys, Source
from fan.transports.redis_loop import Loop
from fan.transports.redis_pending import OfFuture, OfThread, Outcome, Pending
from fan.transports.redis_pipe import Pipe
from fan.transports.redis_place import Place
from fan.transports.redis_replies import Replies
from fan.transports.redis_resp import Refusal, Reply, pack_all
from fan.transports.redis_watch import Watch

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Awaitable

    from fan.transports.redis_tasks import Tasks


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
        self._lock = threading.Lock()
        self._tasks: WeakKeyDictionary[AbstractEventLoop, Tasks] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Calls {self.place.url} pending={len(self.pending)}>"

    @property
    def can_hear(self) -> bool:
        """Whether replies can come now."""
        return self._replies.is_open

    def call(self, request: Request, marks: dict[str, float] | None) -> Response:
        """Send and wait, in the calling thread."""
        self._check(request)
        pending = OfThread(request, self._source(request))
        self.begin(pending)
        if not pending.bell.acquire(timeout=max(0.0, pending.deadline - time.monotonic())):
            if self._take(pending):
                raise self._late(pending)
            pending.bell.acquire()  # it was answered at the last moment
        if marks is not None and pending.item is not None:
            marks["connected"] = marks["sent"] = pending.item.sent_at or pending.began
        outcome = pending.outcome
        assert outcome is not None
        if isinstance(outcome, FanError):
            raise outcome
        return outcome

    def submit(self, request: Request) -> Future[Response]:
        """Send and return at once."""
        try:
            self._check(request)
            pending = OfFuture(request, self._source(request))
            self.begin(pending)
        except FanError as exc:
            failed: Future[Response] = Future()
            failed.set_exception(exc)
            return failed
        pending.timer = self._loop.at(pending.deadline, lambda: self.expire(pending))
        pending.future.add_done_callback(
            lambda done: self._cancelled(pending) if done.cancelled() else None
        )
        return pending.future

    def acall(self, request: Request) -> Awaitable[Response]:
        """Send, and have a task of the running event loop wait."""
        self._check(request)
        return self._tasks_here().call(request, self._source(request))

    def begin(self, pending: Pending, *, is_sent_later: bool = False) -> None:
        """Note a call and send it, or have it sent by `send`. Raises AlreadyExists, and
        InvalidArgument for what cannot be sent."""
        request = pending.request
        data = self._encode(request, pending.source)
        if self.pending.setdefault(request.id, pending) is not pending:
            raise AlreadyExists(
                f"a call with the id {request.id} is on its way", reason="duplicate_id"
            )
        if not self._replies.is_wanted:
            self._replies.want()
        pending.item = self._pipe.post(
            data, 1, lambda result: self._sent(pending, result), is_sent_later=is_sent_later
        )
        self._watch.begin()

    def send(self) -> None:
        """Send what was begun to be sent later."""
        self._pipe.flush()

    def crowd(self, who: object, *, is_crowd: bool) -> None:
        """Whether so many tasks of one event loop wait that nobody looks for what comes."""
        change = self._loop.crowds.add if is_crowd else self._loop.crowds.discard
        change(who)

    def finish(self, pending: Pending, outcome: Outcome) -> None:
        """End a call, unless it has ended."""
        if self._take(pending):
            pending.finish(outcome)

    def expire(self, pending: Pending) -> None:
        """Its time is over."""
        if self._take(pending):
            pending.finish(self._late(pending))

    def drop(self, pending: Pending) -> None:
        """Whoever called gave up, unless it has ended."""
        if self._take(pending) and pending.item is not None:
            self._pipe.withdraw(pending.item)

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

    def _check(self, request: Request) -> None:
        if len(request.body) > self._max_body:
            raise too_large("the request", len(request.body), self._max_body, "no")
        if request.timeout_ms <= 0:
            raise late(request.timeout_ms, was_sent=False)

    def _cancelled(self, pending: OfFuture) -> None:
        if pending.timer is not None:
            pending.timer.cancel()
        self.drop(pending)

    def _tasks_here(self) -> Tasks:
        """The calls of the running event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        found = self._tasks.get(loop)
        if found is None:
            from fan.transports.redis_tasks import Tasks

            with self._lock:
                found = self._tasks[loop] = Tasks(loop, self)
        return found

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
