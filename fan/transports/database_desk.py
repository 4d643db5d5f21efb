"""The one thread of a process that takes messages from a queue database and puts back what became
of them.

All that happened meanwhile is written in one transaction: what was handled, and what is taken next.
A message is claimed for a session and for a lease, which is renewed while a handler runs. Whoever
looks next takes back what a dead session held, at once, and what a frozen one held, after its
lease.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from functools import partial

from fan.errors import FanError
from fan.sqlite.channel import Channel
from fan.sqlite.wake import TRAIL, Waker, wait, waker
from fan.transports import database_rows as rows
from fan.transports.database_consumer import Consumer
from fan.transports.database_rows import Claimed, Outcome, Outlook
from fan.transports.database_schema import QUEUE_DATABASE
from fan.transports.database_session import Session
from fan.transports.database_workers import Workers

#: Seconds between two looks that nobody asked for: a net under the kernel's events.
_IDLE = 5.0
#: Seconds between two looks while the database cannot be used.
_RETRY = 0.5
#: Seconds before one that failed is followed by the next, at first and at most, whatever wakes us:
#: to open a damaged database makes a log and removes it.
_PAUSE, _LONGEST_PAUSE = 0.001, 0.128
#: Seconds that one look may take.
_PATIENCE = 5.0
#: Seconds that who leaves waits for the database to take back what it had.
_FAREWELL = 2.0

#: What the desk did not write yet, by who had it.
Outcomes = list[tuple[Consumer, Outcome]]
Handed = list[tuple[Consumer, Claimed]]


class Desk:
    """Takes the messages of one database for the consumers of one transport: at most `workers` at a
    time, each `deliveries` times at most, for `lease` seconds."""

    def __init__(
        self, path: str, *, workers: int, deliveries: int, lease: float, makes_folder: bool
    ) -> None:
        self.path = path
        self.deliveries = deliveries
        self._slots = workers
        self._lease = lease
        self._channel = Channel(path, QUEUE_DATABASE, makes_folder=makes_folder)
        self._session = Session(f"{path}.locks")
        self._workers = Workers(workers)
        #: One at a time begins or ends to take.
        self._door = threading.RLock()
        #: Guards what follows; notified when something was written.
        self._written = threading.Condition()
        self._consumers: list[Consumer] = []
        self._held: dict[tuple[str, int], tuple[Consumer, Claimed]] = {}
        self._outcomes: Outcomes = []
        #: Whether to look, whatever the database says.
        self._is_pressed = False
        self._thread: threading.Thread | None = None
        self._waker: Waker | None = None
        self._is_ending = False
        # The thread's own.
        self._is_lost = False
        self._pause = 0.0
        self._opened = -1
        self._seen: object = None
        self._claims = self._ids = self._turn = 0
        #: Points of `time.time()`: the next thing to do, the next renewal.
        self._due = self._renewal = 0.0

    def __repr__(self) -> str:
        return f"<Desk {self.path} consumers={len(self._consumers)} in_hand={len(self._held)}>"

    def open(self, deadline: float) -> None:
        """See to it that the database is there. Raises FanError."""
        with self._door, self._channel.writing(deadline, is_durable=True):
            pass
        with self._door:
            self._session.check_in()

    def add(self, consumer: Consumer, deadline: float) -> None:
        """Begin to take for a consumer; its queue is there when this returns. Raises FanError."""
        self.open(deadline)
        with self._door:
            self._ids += 1
            consumer.sit(self, self._ids)
            with self._channel.writing(deadline, is_durable=True) as db:
                self._enrol(db, consumer)
            with self._written:
                self._consumers.append(consumer)
                self._is_pressed = True
            if self._thread is None:
                self._begin()
        self._interrupt()

    def _begin(self) -> None:
        made = waker(self.path, self._session.folder)
        thread = threading.Thread(
            target=self._run, args=(made,), name="fan-queue-desk", daemon=True
        )
        with self._written:  # before it ends, the thread forgets its waker
            try:
                thread.start()
            except RuntimeError:  # the machine gives no thread
                made.close()
                raise
            self._waker, self._thread = made, thread

    def remove(self, consumer: Consumer, timeout: float) -> None:
        """Take no more for a consumer: wait for what it has in hand, give the rest back. Twice does
        no harm."""
        consumer.drain()
        with self._written:
            if consumer not in self._consumers:
                return
            self._consumers.remove(consumer)
            is_clear = self._written.wait_for(lambda: not consumer.open, timeout)
            deadline = time.monotonic() + _FAREWELL
            if not is_clear:
                self._give_back(consumer)
                self._written.wait_for(lambda: not consumer.open, _FAREWELL)
        try:
            with self._door, self._channel.writing(deadline, is_durable=False) as db:
                rows.leave(db, self._session.id, consumer.id)
        except FanError as exc:  # others will see that the session ended
            _log().warning("could not leave the queue %s: %s", consumer.queue, exc)

    def retire(self, consumer: Consumer) -> None:
        """The same without waiting: what it has in hand comes to its end."""
        consumer.drain()
        consumer.is_retired = True
        with self._written:
            self._is_pressed = True
        self._interrupt()

    def lend(self, places: int) -> None:
        """Take so many more at a time: who had them does not come back, or has."""
        with self._written:
            self._slots += places
            self._is_pressed = True
        self._workers.lend(places)
        self._interrupt()

    def settle(self, outcome: Outcome) -> None:
        """What became of a delivery; nothing where it was given back meanwhile."""
        claimed = outcome.claimed
        with self._written:
            holder, _ = self._held.pop((claimed.session, claimed.claim), (None, None))
            if holder is None:
                return
            holder.begun.discard(claimed.claim)
            self._outcomes.append((holder, outcome))
        self._interrupt()

    def close(self) -> None:
        """Give everything back, end the threads and the session. Twice does no harm."""
        for consumer in list(self._consumers):
            self.remove(consumer, 0.0)
        self._is_ending = True
        self._interrupt()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._workers.close(_FAREWELL)
        self._channel.close()
        self._session.close()

    def after_fork_in_child(self) -> None:
        """Leave all of it to the parent."""
        self._session.abandon()
        if self._waker is not None:
            self._waker.close()
        self._waker = self._thread = None
        self._is_ending = True
        self._door, self._written = threading.RLock(), threading.Condition()
        self._consumers, self._held, self._outcomes = [], {}, []
        self._workers = Workers(self._slots)

    def _give_back(self, consumer: Consumer) -> None:
        for key, (holder, claimed) in list(self._held.items()):
            if holder is consumer:
                del self._held[key]
                # Whose handler was not begun is as if it had not been delivered.
                what = "later" if claimed.claim in consumer.begun else "back"
                self._outcomes.append((consumer, Outcome(claimed, what)))
        self._interrupt()

    def _interrupt(self) -> None:
        with self._written:  # the thread closes it
            if self._waker is not None:
                self._waker.interrupt()

    # The thread

    def _run(self, waker: Waker) -> None:
        armed, rest = -1, iter(TRAIL)
        try:
            while True:
                if armed < 0 or self._is_new(armed):
                    # A new connection may have made a new log; what was written to it before it
                    # was watched is seen by the look below.
                    waker.arm()
                    armed, rest = self._channel.opened, iter(TRAIL)
                is_last = self._is_ending
                self._look()
                if is_last:
                    return
                if not self._is_new(armed) and self._wait(waker, next(rest, None)):
                    rest = iter(TRAIL)
        finally:
            with self._written:
                self._waker = None
                waker.close()

    def _is_new(self, armed: int) -> bool:
        """Whether there may be a log that is not watched. Where no connection stays open, as the
        database is damaged, each look opens another one."""
        return armed != self._channel.opened and self._channel.is_open

    def _wait(self, waker: Waker, delay: float | None) -> bool:
        """Wait for news; True where there were some."""
        is_idle = delay is None
        if is_idle:
            self._session.trust()
        if self._pause:
            time.sleep(self._pause)
        until_due = max(0.0, self._due - time.time())
        limit = _RETRY if self._is_lost else until_due
        news = wait(waker, limit if delay is None else min(delay, limit))
        self._session.suspect(news.suspects)
        if news.is_moved:
            waker.arm()
        is_touched = self._session.id in news.suspects  # somebody removed its lock file
        if news.is_unsure or is_touched or (is_idle and not news.is_any):
            self._doubt()
        return news.is_any

    def _look(self) -> None:
        try:
            self._work()
        except (FanError, OSError) as exc:
            if not self._is_lost:
                self._is_lost = True
                _log().warning("messages have to wait: %s", exc)
            self._pause = min(max(2 * self._pause, _PAUSE), _LONGEST_PAUSE)
            return
        self._pause = 0.0
        if self._is_lost:
            self._is_lost = False
            _log().warning("the queue database %s can be used again", self.path)

    def _work(self) -> None:
        """Put back what was handled, take what is next."""
        now = time.time()
        if self._opened != self._channel.opened:
            self._enrol_all()
        dead = self._session.dead()
        with self._written:
            outcomes, self._outcomes = self._outcomes, []
            is_pressed, self._is_pressed = self._is_pressed, False
            takers = self._takers()
            for taker in takers:  # who leaves waits for what this look brings
                taker.open += 1
        try:
            is_due = self._is_due(now, takers, is_pressed=is_pressed)
            must = outcomes or dead or is_due
            claimed = self._write(now, outcomes, takers, dead) if must else []
        except BaseException:
            with self._written:
                self._outcomes[:0] = outcomes
                self._is_pressed = True
            raise
        finally:
            with self._written:
                for taker in takers:
                    taker.open -= 1
                self._written.notify_all()
        self._session.clean_up(dead)
        self._dismiss()
        for consumer, one in claimed:
            try:
                self._workers.run(partial(consumer.handle, one))
            except RuntimeError as exc:  # the machine gives no thread, not a single one
                _log().warning("messages have to wait: %s", exc)
                self.settle(Outcome(one, "back", delay=_RETRY))

    def _dismiss(self) -> None:
        """Let those go that were retired and have nothing in hand any more."""
        for consumer in [one for one in self._consumers if one.is_retired and not one.open]:
            self.remove(consumer, 0.0)

    def _takers(self) -> list[Consumer]:
        """Who may get something; each time another comes first."""
        if len(self._held) >= self._slots:
            return []
        found = [one for one in self._consumers if not one.is_draining]
        self._turn += 1
        start = self._turn % len(found) if found else 0
        return found[start:] + found[:start]

    def _is_due(self, now: float, takers: Sequence[Consumer], *, is_pressed: bool) -> bool:
        """Whether there is something to write, though nothing was handled."""
        with self._channel.reading(time.monotonic() + _PATIENCE) as db:
            if db is None:
                return True
            (version,) = db.execute("PRAGMA data_version").fetchone()
            seen = (self._channel.opened, version)
            if seen == self._seen and now < self._due and not is_pressed:
                return False
            self._seen = seen
            outlook = rows.outlook(db, {one.queue for one in takers}, self._session.id)
        return self._plan(now, outlook)

    def _plan(self, now: float, outlook: Outlook) -> bool:
        """Note when the next thing is due; True where that is now."""
        times = [now + _IDLE, outlook.due, outlook.lease]
        if self._held:
            times.append(self._renewal)
        if outlook.is_ready:
            times.append(now)
        self._due = min(point for point in times if point is not None)
        return self._due <= now

    def _write(
        self, now: float, outcomes: Outcomes, takers: Sequence[Consumer], dead: set[str]
    ) -> Handed:
        with self._written:
            held = [one for _, one in self._held.values()]
        with self._channel.writing(time.monotonic() + _PATIENCE, is_durable=False) as db:
            rows.settle(db, [outcome for _, outcome in outcomes], now)
            if now >= self._renewal:
                rows.renew(db, held, now + self._lease)
            # Asked again: who had only begun to hold its lock may have enrolled since.
            for session in dead & self._session.dead():
                rows.bury(db, session, self.deliveries)
            rows.release(db, self.deliveries, now=now)
            rows.promote(db, now)
            takers = [one for one in takers if not one.is_draining]  # others may have held the lock
            free = self._slots - len(held)
            claimed = self._claim(db, now, takers, free)
            free -= len(claimed)
            queues = {one.queue for one in takers} if free else set()
            outlook = rows.outlook(db, queues, self._session.id)
        if now >= self._renewal:
            self._renewal = now + self._lease / 3
        with self._written:
            for consumer, _ in outcomes:
                consumer.open -= 1
            for consumer, one in claimed:
                consumer.open += 1
                self._held[one.session, one.claim] = (consumer, one)
            self._written.notify_all()
        self._plan(now, outlook)
        return claimed

    def _claim(
        self, db: sqlite3.Connection, now: float, takers: Sequence[Consumer], free: int
    ) -> Handed:
        """At most `free` messages, shared by who takes: one queue leaves room for others."""
        claimed: Handed = []
        until = now + self._lease
        for n, consumer in enumerate(takers):
            share = -(-(free - len(claimed)) // (len(takers) - n))
            found = rows.claim(
                db, consumer.queue, share, self._session.id, self._claims + 1, until, now
            )
            self._claims += len(found)
            claimed += [(consumer, one) for one in found]
        return claimed

    def _enrol(self, db: sqlite3.Connection, consumer: Consumer) -> None:
        if consumer.is_lasting:
            rows.declare(db, consumer.queue, consumer.topic)
        else:
            rows.own(db, self._session.id, consumer.queue, consumer.topic)
        rows.enrol(db, self._session.id, consumer.id, consumer.queue)

    def _enrol_all(self) -> None:
        """The file was opened anew: it may be another one, or the session another."""
        with self._door:
            self._session.check_in()
            with self._channel.writing(time.monotonic() + _PATIENCE, is_durable=False) as db:
                for consumer in list(self._consumers):
                    self._enrol(db, consumer)
            self._opened = self._channel.opened
        self._seen, self._due = None, 0.0
        self._doubt()

    def _doubt(self) -> None:
        """Suspect everybody, and look whether this session is in order."""
        if not self._session.is_in_place:
            self._opened = -1
            return
        try:
            with self._channel.reading(time.monotonic() + _PATIENCE) as db:
                known = rows.sessions(db) if db is not None else set()
            self._session.suspect_all(known)
        except (FanError, OSError):
            return  # the next look says so


def _log() -> logging.Logger:
    return logging.getLogger("fan.transports")
