"""All that one process does with one broker, over one connection."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any, Protocol

from fan.errors import DeadlineExceeded, FanError, Internal
from fan.message import Request
from fan.transports.amqp_calls import Calls
from fan.transports.amqp_consumer import Consumer, Delivery
from fan.transports.amqp_failures import Refused, late, refused, too_large, unsendable
from fan.transports.amqp_layout import Layout
from fan.transports.amqp_link import Link
from fan.transports.amqp_names import EVENTS, RPC, call_key, dead_calls, instance_queue, pushes
from fan.transports.amqp_pending import Clock, Pending
from fan.transports.amqp_place import Place
from fan.transports.amqp_posts import Posts
from fan.transports.amqp_reaper import reap
from fan.transports.amqp_replies import Replies
from fan.transports.amqp_steps import run
from fan.transports.amqp_wire import call_properties, post_properties
from fan.transports.amqp_workers import Workers

#: Dead calls that one reaper has in hand at most.
_REAPED = 100


class Limits(Protocol):
    """What a broker reads of the settings."""

    @property
    def max_body(self) -> int:
        """Bytes of arguments or result that are accepted."""

    @property
    def workers(self) -> int:
        """Threads for handlers."""

    @property
    def deliveries(self) -> int:
        """How often a push or event is given to a worker before it is a dead letter."""


class Broker:
    """A connection and what works over it. Thread-safe, but for what is said to belong to the
    link's thread."""

    def __init__(self, place: Place, settings: Limits) -> None:
        self.link = Link(place)
        self.slots = max(1, settings.workers)
        self.max_body = settings.max_body
        self.deliveries = settings.deliveries
        clock = Clock(self.link)
        self.layout = Layout(self.link)
        self.posts = Posts(self.link, clock, self.layout)
        self.replies = Replies(self.link)
        self._calls = Calls(self.link, clock, settings.max_body)
        #: Calls are not kept waiting by pushes that take long, so both have threads.
        self.callers = Workers(self.link, self.slots, "fan-amqp-call")
        self.handlers = Workers(self.link, self.slots, "fan-amqp-post")
        #: Correlation ids of the calls that were taken and not answered; in the link's thread.
        self.in_hand: set[str | None] = set()
        self._lock = threading.Lock()
        self._reaper: Consumer | None = None

    def __repr__(self) -> str:
        return f"<Broker {self.link.url} {self.link.state}>"

    def call(self, request: Request, marks: dict[str, float] | None = None) -> Pending:
        """Send a call; its future. Errors come out of the future."""
        pending = Pending(request.id, request.timeout_ms)
        pending.marks = marks
        try:
            self._check(request)
            if request.instance:
                pending.aim("", instance_queue(request.instance), None, request.body)
            else:
                key = call_key(request.service, request.want)
                pending.aim(RPC, key, None, request.body)
            pending.properties = call_properties(request, request.id, self.link.place.user)
        except FanError as exc:
            pending.fail(exc)
        except Exception as exc:
            pending.fail(unsendable(exc))
        else:
            self.link.do(self._calls.submit, pending)
        return pending

    def push(self, request: Request) -> Pending:
        """Put a push into its service's queue."""
        needs = pushes(request.service, self.deliveries)
        return self._post(request, RPC, request.service, needs)

    def publish(self, request: Request) -> Pending:
        """Put an event into the queues of all who subscribed."""
        return self._post(request, EVENTS, request.topic, EVENTS)

    def _post(self, request: Request, exchange: str, key: str, needs: Any) -> Pending:
        pending = Pending(request.id, request.timeout_ms)
        try:
            self._check(request)
            properties = post_properties(request, self.link.place.user)
            pending.aim(exchange, key, properties, request.body)
        except FanError as exc:
            pending.fail(exc)
        except Exception as exc:
            pending.fail(unsendable(exc))
        else:
            self.link.do(self.posts.submit, pending, needs)
        return pending

    def _check(self, request: Request) -> None:
        if len(request.body) > self.max_body:
            raise too_large("the request", len(request.body), self.max_body, "no")
        if request.timeout_ms <= 0:
            raise late(request.timeout_ms, was_sent=False)

    def perform(self, steps: Any, deadline: float) -> Any:
        """Do steps and wait for what they return. Raises what the broker's refusal means."""
        done = run(self.link, steps)
        try:
            return done.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise DeadlineExceeded(
                f"{self.link.url} did not answer in time ({self.link.state})", reason="client_timer"
            ) from None
        except Refused as exc:
            raise refused(self.link.url, "what was asked for", exc) from exc
        except FanError:
            raise
        except Exception as exc:
            raise Internal(f"{self.link.url}: {exc}", executed="maybe") from exc

    def reap(self, deadline: float) -> None:
        """Answer the callers of calls that died in a queue, from now on. Raises what keeps the
        broker from being reached."""
        with self._lock:
            reaper = self._reaper
            if reaper is None:
                reaper = self._reaper = Consumer(self.link, dead_calls, _REAPED, self._reap)
                self.link.do(self.link.add, reaper)
        try:
            wait_for(reaper.opened, deadline, self.link)
        except FanError:
            with self._lock:
                if self._reaper is reaper:
                    self._reaper = None
            self.link.do(self.link.remove, reaper)
            raise

    def _reap(self, delivery: Delivery) -> None:
        reap(delivery, self.replies)

    def close(self) -> None:
        """Close the connection and end the threads. Twice does no harm."""
        self.link.close()
        self.callers.close()
        self.handlers.close()


def wait_for(opened: Future[None], deadline: float, link: Link) -> None:
    """Wait until something is consumed. Raises what kept it from that."""
    try:
        opened.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        raise DeadlineExceeded(
            f"{link.url} did not answer in time ({link.state})",
            reason="client_timer",
            executed="no",
        ) from None
