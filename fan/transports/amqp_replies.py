"""The server's side of calls: each is handled in a thread, and its reply goes back."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal

import msgspec

from fan.errors import DeadlineExceeded, FanError, Unavailable, Unimplemented
from fan.message import Response
from fan.transports.amqp_consumer import Delivery
from fan.transports.amqp_failures import too_large
from fan.transports.amqp_link import Link
from fan.transports.amqp_part import Part
from fan.transports.amqp_wire import reply_properties, request_of
from fan.transports.base import Handler, Served, Stream

#: Replies that wait for a connection at most; their callers may still be there.
MOST = 1000


class Replies(Part):
    """Publishes replies. They are not confirmed: whoever waits has a deadline."""

    speaks_for_others = True

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._waiting: deque[tuple[str, Any, bytes]] = deque(maxlen=MOST)
        self._is_added = False

    @property
    def can_send(self) -> bool:
        """Whether a reply can still get out."""
        return self.channel is not None or self.link.state != "closed"

    def send(self, reply_to: str, properties: Any, body: bytes) -> None:
        """Send a reply, or as soon as there is a connection again."""
        if self.channel is not None:
            self.channel.basic_publish("", reply_to, body, properties)
            return
        self._waiting.append((reply_to, properties, body))
        if not self._is_added:
            self._is_added = True
            self.link.add(self)

    def flush(self) -> None:
        while self._waiting and self.channel is not None:
            reply_to, properties, body = self._waiting.popleft()
            self.channel.basic_publish("", reply_to, body, properties)


class CallJob:
    """One call that came by a queue, on its way through the handler."""

    __slots__ = (
        "_handler", "_is_late", "_link", "_max_body", "_replies", "_served", "delivery", "over",
    )  # fmt: skip

    def __init__(
        self,
        delivery: Delivery,
        served: Served,
        handler: Handler,
        replies: Replies,
        max_body: int,
        over: Callable[[CallJob], None],
    ) -> None:
        self.delivery = delivery
        self._served = served
        self._handler = handler
        self._replies = replies
        self._link = replies.link
        self._max_body = max_body
        self.over = over
        method = (delivery.properties.headers or {}).get("fan-method")
        #: Whether it may run twice, and so is acknowledged after its reply.
        self._is_late = method in served.idempotent

    def begin(self) -> bool:
        """Acknowledge it before it runs, unless it may run twice."""
        if not self._is_late:
            self.delivery.ack()
        return True

    def run(self) -> None:
        """Handle it, and have the reply sent."""
        try:
            answer = self._answer()
        except Exception as exc:
            answer = self._failed("internal", f"the handler broke: {exc!r}", executed="maybe")
        if isinstance(answer, Future):
            answer.add_done_callback(self._arrived)
        else:
            self._reply(answer)

    def refuse(self, failure: FanError) -> None:
        """Answer that it was not handled here; in the link's thread."""
        if not self._replies.can_send:  # its queue gives it to others, who tell its caller
            self.over(self)
            return
        self.begin()
        self._send(*reply_properties(self._failure(failure), self._correlation))

    def _answer(self) -> Response | Future[Response]:
        delivery, served = self.delivery, self._served
        properties = delivery.properties
        if delivery.is_redelivered and not self._is_late:
            return self._failure(taken_before())
        try:
            if len(delivery.body) > self._max_body:
                raise too_large("the request", len(delivery.body), self._max_body, "no")
            request = request_of(properties, delivery.body)
        except FanError as exc:
            logging.getLogger("fan").warning(
                "a message in the queue of %s is no call: %s", served.service, exc
            )
            return self._failure(exc)
        if request.deadline_ms is not None and request.deadline_ms < time.time() * 1000:
            late = "the call came out of its queue after its deadline"
            return self._failure(DeadlineExceeded(late, reason="expired_in_queue"))
        again = request.attempt + delivery.is_redelivered
        request = msgspec.structs.replace(
            request, want=served.version, instance=served.instance, attempt=again
        )
        user = properties.user_id  # which the broker has checked
        answer = self._handler(request, peer=f"user:{user}" if user else "", is_queued=True)
        if isinstance(answer, Stream):
            answer.close()
            return self._failure(
                Unimplemented("amqp cannot stream", reason="streaming_unsupported")
            )
        return answer

    def _arrived(self, done: Future[Response]) -> None:
        try:
            self._reply(done.result())
        except BaseException as exc:
            self._reply(self._failed("internal", f"the handler broke: {exc!r}", executed="maybe"))

    def _reply(self, response: Response) -> None:
        if len(response.body) > self._max_body:
            response = self._failure(
                too_large("the result", len(response.body), self._max_body, "yes")
            )
        self._link.do(self._send, *reply_properties(response, self._correlation))

    def _send(self, properties: Any, body: bytes) -> None:
        try:
            reply_to = self.delivery.properties.reply_to
            if reply_to:
                self._replies.send(reply_to, properties, body)
            self.delivery.ack()
        finally:
            self.over(self)

    @property
    def _correlation(self) -> str:
        properties = self.delivery.properties
        return properties.correlation_id or properties.message_id or ""

    def _failure(self, exc: FanError) -> Response:
        return self._failed(exc.code, exc.message, exc.reason, exc.executed)

    def _failed(
        self, code: str, message: str, reason: str = "",
        executed: Literal["no", "maybe", "yes"] = "no",
    ) -> Response:  # fmt: skip
        return Response(
            id=self.delivery.properties.message_id or "", code=code, reason=reason,
            message=message, executed=executed,
        )  # fmt: skip


def taken_before() -> Unavailable:
    """The error for a call that somebody else had, who did not say what became of it."""
    return Unavailable(
        "whoever took this call before is gone: it may have run", reason="connection_lost"
    )
