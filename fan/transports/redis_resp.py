"""Redis's own protocol: commands to bytes, and bytes to replies as they come in.

Both by hiredis, in C: the thirty items that a request has as a stream entry are read in 1 us, and
in 15 us by Python. redis-py, which takes it too, waits for the rest of a reply in the middle of
one; here what has come is taken.
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

#: Bytes that may be missing their end: Redis's own limit of one string (`proto-max-bulk-len`), and
#: the line before it.
MOST = 512 * 1024 * 1024 + 1024


class Refusal(Exception):
    """An error that Redis answered: `code` is its first word, `text` the rest."""

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.code, _, self.text = line.partition(" ")


class Garbage(Exception):
    """What came is not RESP."""


#: bytes, int, None, a Refusal, or a list of replies.
Reply = Any

#: What the reader gives where no reply is complete.
_NOTHING = object()

# Its stub says a tuple of one.
_pack = cast("Callable[[tuple[bytes | str | int, ...]], bytes]", hiredis.pack_command)


def pack(*parts: bytes | str | int) -> bytes:
    """One command. Raises UnicodeEncodeError for text that has no UTF-8 form."""
    return _pack(parts)


def pack_all(parts: Sequence[bytes | str | int]) -> bytes:
    """One command, of a sequence."""
    return _pack(tuple(parts))


class Parser:
    """Takes bytes as they come, gives the replies that are complete."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._reader = hiredis.Reader(
            protocolError=Garbage, replyError=Refusal, notEnoughData=_NOTHING
        )

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that `data` completes. Raises Garbage."""
        reader, out = self._reader, []
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOTHING:
                out.append(reply)
        except MemoryError:
            raise Garbage(f"{data[:40]!r}: more items than there is memory for") from None
        if reader.len() > self._most:
            raise Garbage(f"more than {self._most} bytes without an end")
        return out
