"""One connection that reads streams for one consumer group, and no faster than messages are
handled."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from fan.errors import FanError
from fan.transports.redis_crew import report
from fan.transports.redis_fields import fields_of
from fan.transports.redis_keys import Source
from fan.transports.redis_line import Line
from fan.transports.redis_loop import Loop
from fan.transports.redis_message import Message
from fan.transports.redis_pipe import Pipe
from fan.transports.redis_replies import Backoff
from fan.transports.redis_resp import Refusal, Reply, pack, pack_all
from fan.transports.redis_scripts import MISSED
from fan.transports.redis_taking import Taking

#: Milliseconds that Redis waits for a message before it says that there is none: a sign of life.
BLOCK = 5000
#: Seconds before a stream that cannot be read is tried again.
MEND = 1.0


class Desk(Protocol):
    """Who handles messages. All of it is called in the loop's thread."""

    def read(self, message: Message) -> bool:
        """Find the request in it. Whether it has to be acknowledged before it is handled."""

    def begin(self, messages: list[Message]) -> None:
        """Have them handled; `Lane.rest` says that one does not need its place any more."""

    def doubt(self, messages: list[Message]) -> None:
        """Nobody knows whether they were acknowledged: they are not to be run."""


class Lane:
    """Reads `sources`, all by one group, and has at most `size` messages handled at once."""

    def __init__(
        self, loop: Loop, pipe: Pipe, desk: Desk, group: str, consumer: str, size: int
    ) -> None:
        self.group = group
        self.consumer = consumer
        #: What is in hand: (stream, number) -> message.
        self.in_hand: dict[tuple[str, bytes], Message] = {}
        self.sources: tuple[Source, ...] = ()
        self._loop = loop
        self._pipe = pipe
        self._desk = desk
        self._size = size
        self._line = Line(loop, pipe.place, self)
        self._lock = threading.Lock()
        self._used = 0
        #: What came and has no place: one read of several streams may bring more than there are
        #: places, and so may a read and a claim at the same time.
        self._spare: deque[Message] = deque()
        #: What becomes of the replies that are to come, in their order.
        self._asked: deque[Callable[[Reply], None]] = deque()
        self._taking = Taking(pipe, group, consumer, self._begin)
        #: Sources that can be read, by stream.
        self._readable: dict[bytes, Source] = {}
        self._is_reading = False
        #: Places for what the present read may bring.
        self._room = 0
        self._is_stopped = False
        self._is_closed = False
        self._is_told: set[str] = set()
        self._backoff = Backoff()
        #: What is to be done once the present read is over.
        self._after: list[Callable[[], object]] = []
        #: Answers that may bring messages in another way, and what is to be done after the last.
        self._expected = 0
        self._then: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<Lane {self.group} {self._line!r} in_hand={len(self.in_hand)}>"

    @property
    def is_open(self) -> bool:
        """Whether messages can come now."""
        return self._line.is_open

    @property
    def free(self) -> int:
        """Messages that may be begun now."""
        return self._size - self._used - len(self._spare)

    @property
    def used(self) -> int:
        """Messages that wait for a thread or have one."""
        return self._used

    def rest(self) -> None:
        """A message does not need its place any more. From any thread."""
        with self._lock:
            self._used -= 1
            is_starving = not self._is_reading and not self._is_stopped
        if is_starving or self._spare:
            self._loop.soon(self.read)

    def lend(self, places: int) -> None:
        """Have so many more messages handled at once. From any thread."""
        with self._lock:
            self._size += places
        self._loop.soon(self.read)

    # In the loop's thread

    def set(self, sources: Sequence[Source], then: Callable[[], object]) -> None:
        """Read these from now on; `then` is called once that is so, or the connection is not there
        (then it is so when it is)."""
        self.sources = tuple(sources)
        self._readable = {source.stream.encode(): source for source in sources}
        self._interrupt(then)

    def stop(self, then: Callable[[], object]) -> None:
        """Read no more; `then` is called once nothing comes any more."""
        self._is_stopped = True
        self._interrupt(lambda: self._when_quiet(then))

    def close(self) -> None:
        """Close the connection for good. In the loop's thread, or after it."""
        self._is_closed = self._is_stopped = True
        self._line.close()

    def abandon(self) -> None:
        """In a forked child: leave the connection to the parent."""
        self._line.abandon()

    def wait_closed(self, timeout: float) -> None:
        """Wait for what the connection left running."""
        self._line.wait_closed(timeout)

    def expect(self) -> bool:
        """Whether messages may come in another way, which `add` has to end; not once it stops."""
        if not self._is_stopped:
            self._expected += 1
        return not self._is_stopped

    def add(self, source: Source, entries: Sequence[Reply]) -> None:
        """What came in another way: [number, fields, deliveries] of each message."""
        try:
            self._place([self._message(source, *entry) for entry in entries])
        finally:  # whoever stops waits for this, whatever became of it
            self._expected -= 1
            if not self._expected:
                then, self._then = self._then, []
                for step in then:
                    step()
        if entries and self._is_reading and self.free < self._room:
            self._interrupt(lambda: None)  # what it waits for would have no place now

    def take_back(self) -> list[Message]:
        """What has no place, which now nobody handles: it is still in hand."""
        spare = [*self._spare]
        self._spare.clear()
        return spare

    def settled(self, message: Message) -> None:
        """A message is in hand no more."""
        self.in_hand.pop((message.source.stream, message.number), None)

    def read(self) -> None:
        """Ask for messages, as many as there are places for."""
        self._place([])
        if self._line.is_open:
            data = self._read()
            if data:
                self._line.write(data)
        elif self._readable and not self._is_stopped:
            self._line.open()

    def line_opened(self) -> None:
        self._backoff.reset()
        self._pipe.news.back()
        for source in self.sources:
            self._recover(source)
        self.read()

    def line_got(self, replies: list[Reply]) -> None:
        for reply in replies:
            if not self._asked:
                self._line.drop("it answered what nobody asked")
                return
            then = self._asked.popleft()
            try:
                then(reply)
            except Exception:  # of one of them; the others still want their replies
                report()

    def line_failed(self, why: FanError) -> None:
        self._ended()

    def line_lost(self, why: str) -> None:
        self._asked.clear()
        self._is_reading = False
        self._taking.lost()
        if not self._is_stopped:
            self._pipe.news.lost(why)
        self._ended()

    def _ended(self) -> None:
        self._over()
        if not self._is_closed and not self._is_stopped:
            self._loop.later(self._backoff.next(), self.read)

    def _read(self) -> bytes:
        """The command for it, empty where it cannot be now."""
        free = self.free
        if self._is_reading or self._is_stopped or not self._readable or free <= 0:
            return b""
        self._is_reading = True
        self._asked.append(self._got)
        streams = self._readable
        count = max(1, free // len(streams))
        self._room = min(free, count * len(streams))
        return pack_all(
            ("XREADGROUP", "GROUP", self.group, self.consumer, "COUNT", count, "BLOCK", BLOCK,
             "STREAMS", *streams, *(">" for _ in streams))
        )  # fmt: skip

    def _got(self, reply: Reply) -> None:
        self._is_reading = False
        if isinstance(reply, Refusal):
            self._over()
            self._mend(reply)
            return
        found: list[Message | None] = []
        for stream, entries in reply or ():
            source = next((s for s in self.sources if s.stream.encode() == stream), None)
            source = self._readable.get(stream) or source
            if source is not None:
                found += [self._message(source, n, flat, 1) for n, flat in entries if flat]
        try:
            self._place(found)
        finally:
            self._over()
            self.read()

    def _over(self) -> None:
        """A read is over, for who waits for that."""
        after, self._after = self._after, []
        for then in after:
            then()

    def _when_quiet(self, then: Callable[[], object]) -> None:
        """Have it done once nothing comes in another way."""
        if self._expected:
            self._then.append(then)
        else:
            then()

    def _message(
        self, source: Source, number: bytes, flat: list[bytes], deliveries: int
    ) -> Message | None:
        key = (source.stream, number)
        if key in self.in_hand:
            return None
        self.in_hand[key] = Message(source, number, fields_of(flat), deliveries)
        return self.in_hand[key]

    def _place(self, messages: Sequence[Message | None]) -> None:
        """Deal out what came, as far as there are places; what has none waits for one, or for who
        looks after the lane to offer it to others."""
        self._spare.extend([message for message in messages if message is not None])
        by_source: dict[Source, list[Message]] = {}
        while self._spare and self._used < self._size:
            message = self._spare.popleft()
            by_source.setdefault(message.source, []).append(message)
            with self._lock:
                self._used += 1
        data = b"".join([self._deal(source, some) for source, some in by_source.items()])
        if data:
            self._line.write(data + self._read())

    def _deal(self, source: Source, messages: list[Message]) -> bytes:
        """Have them handled; what is left to be written for that."""
        take: list[Message] = []
        run: list[Message] = []
        for message in messages:
            (take if self._desk.read(message) else run).append(message)
        if run:
            self._desk.begin(run)
        if not take:
            return b""
        if self._is_reading or not self._line.is_open:
            self._taking.apart(source, take)
            return b""
        data, got = self._taking.here(source, take)
        self._asked.append(got)
        return data

    def _begin(self, messages: list[Message], reply: Reply) -> None:
        """Have those run that are ours alone now."""
        if not isinstance(reply, list):
            self._desk.doubt(messages)
            return
        ours = []
        for message, is_ours in zip(messages, reply, strict=True):
            if is_ours:
                message.is_taken = True
                ours.append(message)
            else:  # somebody else became its owner meanwhile, and sees to it
                self.settled(message)
                self.rest()
        if ours:
            self._desk.begin(ours)

    def _recover(self, source: Source) -> None:
        """Find what Redis gave us over a connection that was lost before it came."""

        if not self.expect():
            return

        def done(result: list[Reply] | FanError) -> None:
            entries = result[0] if isinstance(result, list) else None
            self.add(source, entries if isinstance(entries, list) else ())

        known = [number for stream, number in self.in_hand if stream == source.stream]
        self._pipe.run(MISSED, (source.stream,), (self.group, self.consumer, *known), done)

    def _interrupt(self, then: Callable[[], object]) -> None:
        """End the present read before its time, then do what is asked."""
        if not self._is_reading or not self._line.is_open:
            then()
            self.read()
            return
        self._after.append(then)
        self._unblock()

    def _unblock(self) -> None:
        def done(result: list[Reply] | FanError) -> None:
            # 0: Redis has not come to the read yet. An error: we may not, and wait for its end.
            if isinstance(result, list) and result[0] == 0 and self._after:
                self._loop.later(0.01, self._unblock)

        self._pipe.post(pack("CLIENT", "UNBLOCK", self._line.number), 1, done)

    def _mend(self, why: Refusal) -> None:
        """A stream or its group is not there, or it is no stream: make those that can be made, and
        read them. Redis lost them, or somebody has put something else there."""
        sources = self.sources
        if self._is_stopped or not sources:
            return
        self._tell(str(why))

        def done(result: list[Reply] | FanError) -> None:
            if sources is not self.sources or self._is_stopped:
                self.read()
                return
            good = {}
            if isinstance(result, list):
                for source, reply in zip(sources, result, strict=True):
                    if isinstance(reply, Refusal) and reply.code != "BUSYGROUP":
                        self._tell(f"{source.stream}: {reply}")
                    else:
                        good[source.stream.encode()] = source
            self._readable = good
            if len(good) < len(sources):
                self._loop.later(MEND, lambda: self._mend(why))
            self.read()

        data = b"".join(
            pack("XGROUP", "CREATE", source.stream, source.group, "0", "MKSTREAM")
            for source in sources
        )
        self._pipe.post(data, len(sources), done)

    def _tell(self, why: str) -> None:
        """Once for each reason: a log is no place for a loop."""
        if why not in self._is_told:
            self._is_told.add(why)
            logging.getLogger("fan").warning("%s: %s", self._pipe.place.url, why)
