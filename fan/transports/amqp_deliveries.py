"""Pushes and events that come by a queue: handled, delivered again, or put to the dead letters."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from fan.errors import FanError
from fan.message import Request, Response
from fan.transports.amqp_consumer import Delivery
from fan.transports.amqp_failures import too_large
from fan.transports.amqp_names import DEAD, dead_queue
from fan.transports.amqp_posts import Posts
from fan.transports.amqp_wire import AT, DELIVERIES, ERROR, RETURNED, copy_of, number, request_of
from fan.transports.base import Handler, Overdue, Stream, is_refusal

#: Seconds before a failed message is delivered for the second time; doubled each time.
DELAY, MAX_DELAY = 0.1, 5.0
#: Reasons of answers that another delivery cannot change.
_FINAL = ("malformed", "expired_in_queue", "payload_too_large", "too_often")
#: Characters of an error that a dead letter keeps.
_MAX_ERROR = 4000


class Tray:
    """What the jobs of one consumed queue share."""

    def __init__(
        self,
        posts: Posts,
        handler: Handler,
        aim: Callable[[Request], Request],
        deliveries: int,
        max_body: int,
        over: Callable[[], None],
        *,
        is_lasting: bool,
    ) -> None:
        self.posts = posts
        self.link = posts.link
        self.handler = handler
        #: Gives a request the service, method and instance that handle it.
        self.aim = aim
        self.deliveries = deliveries
        self.max_body = max_body
        #: Called once a message is done with here.
        self.over = over
        #: Whether what is given back goes to others, or goes with this subscriber.
        self.is_lasting = is_lasting
        self.queue = ""
        #: Offers a job to the workers.
        self.offer: Callable[[PostJob], None] = _never
        #: Has the workers run so many more at a time.
        self.lend: Callable[[int], None] = _never
        #: Those that wait to be delivered again, and how.
        self.delayed: dict[PostJob, Callable[[], None]] = {}
        #: Those that are on their way into another queue, or to the end of this one, and when the
        #: last of them set out.
        self.moving = 0
        self.moved_at = 0.0
        self.is_draining = False

    def drain(self) -> None:
        """Give back at once what waits to be, and keep nothing back from now on."""
        self.is_draining = True
        delayed, self.delayed = self.delayed, {}
        for then in delayed.values():
            then()


class PostJob:
    """One push or event on its way through the handler."""

    __slots__ = ("_tries", "delivery", "tray")

    def __init__(self, delivery: Delivery, tray: Tray) -> None:
        self.delivery = delivery
        self.tray = tray
        self._tries = 0

    @property
    def attempt(self) -> int:
        """Deliveries before this one."""
        properties = self.delivery.properties
        return number(properties, DELIVERIES) + number(properties, RETURNED) + self._tries

    def begin(self) -> bool:
        """It stays in its queue until it was handled; one that is in other hands is not run."""
        if self.delivery.is_ours:
            return True
        self.tray.over()
        return False

    def run(self) -> None:
        """Handle it."""
        link, lend, late = self.tray.link, self.tray.lend, []

        def overdue(answer: Response) -> None:
            late.append(answer)
            link.do(lend, 1)
            link.do(self._settle, answer)

        try:
            answer = self._answer(overdue)
        except FanError as exc:
            answer = _failed(exc.code, exc.message, exc.reason)
        except Exception as exc:
            answer = _failed("internal", f"the handler broke: {exc!r}")
        if late:
            link.do(lend, -1)
        elif isinstance(answer, Future):
            answer.add_done_callback(self._arrived)
        else:
            link.do(self._settle, answer)

    def _answer(self, overdue: Overdue) -> Response | Future[Response]:
        delivery, tray = self.delivery, self.tray
        properties = delivery.properties
        if len(delivery.body) > tray.max_body:
            raise too_large("the message", len(delivery.body), tray.max_body, "no")
        request = request_of(properties, delivery.body)
        if is_expired(request, properties):
            return _failed("deadline_exceeded", "its ttl is over", "expired_in_queue")
        if self.attempt >= tray.deliveries:
            return _failed("unavailable", "whoever took it is gone, each time", "too_often")
        request = msgspec.structs.replace(tray.aim(request), attempt=self.attempt)
        user = properties.user_id
        peer = f"user:{user}" if user else ""
        answer = tray.handler(request, peer=peer, is_queued=True, on_overdue=overdue)
        if isinstance(answer, Stream):
            answer.close()
            return _failed("unimplemented", "amqp cannot stream", "streaming_unsupported")
        return answer

    def _arrived(self, done: Future[Response]) -> None:
        try:
            answer = done.result()
        except BaseException as exc:
            answer = _failed("internal", f"the handler broke: {exc!r}")
        self.tray.link.do(self._settle, answer)

    def _settle(self, answer: Response) -> None:
        if answer.code == "ok":
            self.delivery.ack()
            self.tray.over()
        elif is_refusal(answer) and not is_final(answer):
            is_elsewhere = answer.reason in ("draining", "no_instance")
            then = self.pass_on if is_elsewhere else self._offer_again
            self._wait(then, None if answer.reason == "draining" else self.attempt)
        elif is_final(answer) or self.attempt + 1 >= self.tray.deliveries:
            self.bury(answer)
        else:
            self._wait(self.again, self.attempt)

    def _wait(self, then: Callable[[], None], attempt: int | None) -> None:
        tray = self.tray
        if attempt is None or tray.is_draining:
            then()
            return
        tray.delayed[self] = then
        if tray.link.later(min(MAX_DELAY, DELAY * 2**attempt), lambda: self._woken(then)) is None:
            self._woken(then)

    def _woken(self, then: Callable[[], None]) -> None:
        if self.tray.delayed.pop(self, None) is not None:
            then()

    def again(self) -> None:
        """Have it delivered once more; in the link's thread."""
        tray = self.tray
        if tray.is_lasting:
            self.delivery.give_back()
            tray.over()
        else:
            self._tries += 1
            self._offer_again()

    def _offer_again(self) -> None:
        """Have it tried once more, here where no other would get it, as if it had not been."""
        tray = self.tray
        if not tray.is_lasting and not tray.is_draining and self.delivery.is_ours:
            tray.offer(self)
        else:
            self.pass_on()

    def pass_on(self) -> None:
        """Let others have it, as if it had not been here; in the link's thread."""
        tray, delivery = self.tray, self.delivery
        if not tray.is_lasting or not delivery.is_ours:
            self.delivery.ack()
            tray.over()
            return
        headers = {**(delivery.properties.headers or {}), DELIVERIES: str(self.attempt)}
        headers.pop(RETURNED, None)
        copied = copy_of(
            delivery.properties, tray.link.place.user, headers=headers,
            expiration=time_left(delivery.properties),
        )  # fmt: skip
        self._move("", tray.queue, copied)

    def bury(self, answer: Response) -> None:
        """Put it to the dead letters, with what it died of; in the link's thread."""
        tray, delivery = self.tray, self.delivery
        name = f"{answer.code}/{answer.reason}" if answer.reason else answer.code
        error = f"{name}: {answer.message}"[:_MAX_ERROR]
        logging.getLogger("fan").error(
            "a message of %s is dead after %d deliveries: %s", tray.queue, self.attempt + 1, error
        )
        if not tray.is_lasting or not delivery.is_ours:
            delivery.ack()
            tray.over()
            return
        headers = dict(delivery.properties.headers or {})
        headers.pop(RETURNED, None)
        headers[ERROR] = error.encode("utf-8", "replace").decode()
        headers[DELIVERIES] = str(self.attempt + 1)
        copied = copy_of(
            delivery.properties, tray.link.place.user, headers=headers, expiration=None,
            delivery_mode=2,
        )  # fmt: skip
        self._move(DEAD, dead_queue(tray.queue), copied)

    def _move(self, exchange: str, queue: str, properties: Any) -> None:
        tray = self.tray
        tray.moving += 1
        tray.moved_at = time.monotonic()
        tray.posts.send_on(exchange, queue, properties, self.delivery.body, self._sent)

    def _sent(self, failure: BaseException | None) -> None:
        self.tray.moving -= 1
        if failure is None:
            self.delivery.ack()
        else:
            self.delivery.give_back()
        self.tray.over()


def is_final(answer: Response) -> bool:
    """Whether an answer says that another delivery can change nothing."""
    return answer.reason in _FINAL and answer.executed == "no"


def is_expired(request: Request, properties: Any) -> bool:
    """Whether a message's time to live is over: a queue looks at that only at its head."""
    at = number(properties, AT)
    return bool(request.ttl_ms and at and at + request.ttl_ms <= time.time() * 1000)


def time_left(properties: Any) -> str | None:
    """The `expiration` of a copy of a message."""
    at, ttl = number(properties, AT), number(properties, "fan-ttl-ms")
    return str(max(0, int(at + ttl - time.time() * 1000))) if at and ttl else None


def _failed(code: str, message: str, reason: str = "") -> Response:
    executed = "no" if reason in _FINAL else "maybe"
    return Response(id="", code=code, reason=reason, message=message, executed=executed)  # type: ignore[arg-type]


def _never(what: object) -> None:
    """What a tray calls before it is set up."""
