"""Commands of all threads over one connection, in batches: whoever has one adds it to what is sent
next, and is told its replies.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence

from fan.errors import FanError
from fan.transports.redis_crew import report
from fan.transports.redis_failures import failure_of, lost, too_slow
from fan.transports.redis_line import Line
from fan.transports.redis_loop import Loop, Timer
from fan.transports.redis_news import News
from fan.transports.redis_place import Place
from fan.transports.redis_resp import Refusal, Reply, pack_all
from fan.transports.redis_scripts import Script

#: Up to so many commands on their way whoever has one sends it; with more the loop sends for all:
#: one system call, one wake-up of Redis for a batch.
_FEW = 3
#: Seconds without a word from a Redis that owes us one after which it is asked anew.
STALL = 20.0

Done = Callable[[list[Reply] | FanError], object]
Part = bytes | str | int


class Item:
    """Commands that belong together, and who is told of their replies."""

    __slots__ = ("count", "data", "done", "replies", "sent_at")

    def __init__(self, data: bytes, count: int, done: Done) -> None:
        self.data = data
        self.count = count
        self.done = done
        self.replies: list[Reply] = []
        self.sent_at = 0.0


class Pipe:
    """One connection for commands that Redis answers at once. It is opened by the first command.

    `done` is called in the loop's thread, with the replies or with the FanError that kept them
    away: executed no where nothing was sent, maybe where the connection was lost after that."""

    def __init__(self, loop: Loop, place: Place) -> None:
        self.place = place
        #: Of the connections beside this one, which is there for who asks only.
        self.news = News(place.url)
        self._loop = loop
        self._line = Line(loop, place, self)
        self._lock = threading.Lock()
        self._queue: deque[Item] = deque()
        self._sent: deque[Item] = deque()
        self._is_nudged = False
        self._is_closed = False
        #: The next look at a connection that is open: one, however often it was made anew.
        self._next_look: Timer | None = None

    def __repr__(self) -> str:
        return f"<Pipe {self._line!r} queued={len(self._queue)} sent={len(self._sent)}>"

    @property
    def is_open(self) -> bool:
        """Whether a command would be sent at once."""
        return self._line.is_open

    def post(
        self, data: bytes, count: int, done: Done, *, is_sent_later: bool = False
    ) -> Item:
        """Send `count` packed commands; returns at once. What `is_sent_later` goes with the next
        `flush`, at the latest."""
        item = Item(data, count, done)
        self._add(item, is_sent_later)
        return item

    def flush(self) -> None:
        """Send what there is, as far as the connection is there; else it goes once that is so."""
        with self._lock:
            self._flush()

    def _add(self, item: Item, is_sent_later: bool = False) -> None:
        with self._lock:
            is_late = self._is_closed
            if not is_late:
                self._queue.append(item)
                if self._line.is_open:
                    if is_sent_later:
                        return
                    if len(self._sent) + len(self._queue) <= _FEW:
                        self._flush()
                        return
                    if self._is_nudged:
                        return
                self._is_nudged = True
        if is_late:  # nobody else would tell: the loop may have ended
            _tell(item, lost(self.place.url, "this transport was closed", "no"))
        else:
            self._loop.soon(self._attend)

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Part], done: Done) -> Item:
        """Run a script: `done` gets its one reply. One that Redis does not know is sent whole, as
        the same item: who gives it up withdraws what is left to be sent."""

        def check(result: list[Reply] | FanError) -> None:
            reply = result[0] if isinstance(result, list) else None
            if isinstance(reply, Refusal) and reply.code == "NOSCRIPT":
                item.data = pack_all(("EVAL", script.text, len(keys), *keys, *args))
                item.done, item.replies = done, []
                self._add(item)
            else:
                done(result)

        item = Item(call_of(script, keys, args), 1, check)
        self._add(item)
        return item

    def ask(
        self, *commands: Sequence[Part], deadline: float, allowed: Collection[str] = ()
    ) -> list[Reply]:
        """Send and wait for the replies. Raises what is wrong with the connection, and with the
        first command that Redis refuses with a word that is not `allowed`; DeadlineExceeded."""
        data = b"".join(pack_all(command) for command in commands)
        return self._wait(lambda done: self.post(data, len(commands), done), deadline, allowed)

    def ask_script(
        self, script: Script, keys: Sequence[str], args: Sequence[Part], *, deadline: float
    ) -> Reply:
        """Run a script and wait for its reply. Raises as `ask`."""
        return self._wait(lambda done: self.run(script, keys, args, done), deadline)[0]

    def withdraw(self, item: Item) -> bool:
        """Do not send what is not sent yet; whether that came in time."""
        with self._lock:
            try:
                self._queue.remove(item)
            except ValueError:
                return False
            return True

    def close(self) -> None:
        """Close the connection; what is under way fails. In the loop's thread, or after it."""
        with self._lock:
            self._is_closed = True
        self._line.close()
        self._fail_all("this transport was closed")

    def abandon(self) -> None:
        """In a forked child: leave the connection to the parent."""
        self._line.abandon()

    def wait_closed(self, timeout: float) -> None:
        """Wait for what the connection left running."""
        self._line.wait_closed(timeout)

    def _wait(
        self, begin: Callable[[Done], Item], deadline: float, allowed: Collection[str] = ()
    ) -> list[Reply]:
        results: list[list[Reply] | FanError] = []
        bell = threading.Lock()
        bell.acquire()

        def done(result: list[Reply] | FanError) -> None:
            results.append(result)
            bell.release()

        item = begin(done)
        if not bell.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise too_slow(self.place.url, was_sent=not self.withdraw(item))
        result = results[0]
        if isinstance(result, FanError):
            raise result
        for reply in result:
            if isinstance(reply, Refusal) and reply.code not in allowed:
                raise failure_of(reply, self.place.url)
        return result

    # In the loop's thread

    def line_opened(self) -> None:
        with self._lock:
            self._flush()
        if self._next_look is not None:
            self._next_look.cancel()
        self._next_look = self._loop.later(STALL / 2, self._look)

    def line_got(self, replies: list[Reply]) -> None:
        sent, finished = self._sent, []
        for reply in replies:
            if not sent:  # an answer to nothing: what follows cannot be told apart
                self._line.drop("it answered what nobody asked")
                break
            item = sent[0]
            item.replies.append(reply)
            if len(item.replies) == item.count:
                sent.popleft()
                finished.append(item)
        for item in finished:
            _tell(item, item.replies)

    def line_failed(self, why: FanError) -> None:
        with self._lock:
            items = [*self._queue]
            self._queue.clear()
        for item in items:
            _tell(item, why)

    def line_lost(self, why: str) -> None:
        with self._lock:
            items = [*self._sent]
            self._sent.clear()
            is_wanted = bool(self._queue)
        if is_wanted:
            self._line.open()
        for item in items:
            _tell(item, lost(self.place.url, why))

    def _attend(self) -> None:
        self._is_nudged = False
        if self._is_closed:
            self._fail_all("this transport was closed")
        elif self._line.is_open:
            with self._lock:
                self._flush()
        else:
            self._line.open()

    def _flush(self) -> None:
        """Send what is queued. `_lock` is held, so that replies come in the order of `_sent`."""
        queue = self._queue
        if not queue or not self._line.is_open:
            return
        now = time.monotonic()
        for item in queue:
            item.sent_at = now
        self._sent.extend(queue)
        data = queue[0].data if len(queue) == 1 else b"".join([item.data for item in queue])
        queue.clear()
        self._line.write(data)

    def _look(self) -> None:
        """A Redis that hangs, or a network that swallows everything, is given up."""
        if not self._line.is_open:
            return
        with self._lock:
            oldest = self._sent[0].sent_at if self._sent else None
        last = max(self._line.heard_at, oldest or 0.0)
        if oldest is not None and time.monotonic() - last > STALL:
            self._line.drop("no answer")
            return
        self._next_look = self._loop.later(STALL / 2, self._look)

    def _fail_all(self, why: str) -> None:
        with self._lock:
            sent, queued = [*self._sent], [*self._queue]
            self._sent.clear()
            self._queue.clear()
        for item in sent:
            _tell(item, lost(self.place.url, why))
        for item in queued:
            _tell(item, lost(self.place.url, why, "no"))


def call_of(script: Script, keys: Sequence[str], args: Sequence[Part]) -> bytes:
    """The command that runs a script which Redis knows."""
    return pack_all(("EVALSHA", script.digest, len(keys), *keys, *args))


def _tell(item: Item, result: list[Reply] | FanError) -> None:
    try:
        item.done(result)
    except Exception:  # of one of them; the others still want their replies
        report()
