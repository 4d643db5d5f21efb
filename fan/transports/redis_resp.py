"""Redis's own protocol, RESP2: commands to bytes, and bytes to replies as they come in.

redis-py's parser takes about 4 us for each of the thirty items that a request has as a stream
entry, and waits for the rest of a reply in the middle of one. This one takes what has come.
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: A line of the protocol is a length, a number or an error; what is longer is none.
_MAX_LINE = 64 * 1024
#: Redis's own limit of one string (`proto-max-bulk-len`).
_MAX_BULK = 512 * 1024 * 1024


class Refusal(Exception):
    """An error that Redis answered: `code` is its first word, `text` the rest."""

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.code, _, self.text = line.partition(" ")


class Garbage(Exception):
    """What came is not RESP."""


#: bytes, int, None, a Refusal, or a list of replies.
Reply = Any


def pack(*parts: bytes | str | int) -> bytes:
    """One command. Raises UnicodeEncodeError for text that has no UTF-8 form."""
    return pack_all(parts)


def pack_all(parts: Sequence[bytes | str | int]) -> bytes:
    """One command, of a sequence."""
    out = [b"*%d\r\n" % len(parts)]
    for part in parts:
        data = part if type(part) is bytes else str(part).encode()
        out.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(out)


class Parser:
    """Takes bytes as they come, gives the replies that are complete."""

    def __init__(self) -> None:
        self._begun = b""
        #: What came after it, kept apart while more than that is missing.
        self._more: list[bytes] = []
        self._missing = 0

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that `data` completes. Raises Garbage."""
        if len(data) < self._missing:
            self._missing -= len(data)
            self._more.append(data)
            return []
        if self._begun or self._more:
            data = b"".join((self._begun, *self._more, data))
            self._more.clear()
        self._missing, at, end, out = 0, 0, len(data), []
        try:
            while at < end:
                reply, at = _parse(data, at)
                out.append(reply)
        except _ShortError as exc:
            self._missing = exc.args[0]
        except (ValueError, RecursionError) as exc:
            raise Garbage(f"{data[at : at + 40]!r}: {exc}") from exc
        self._begun = data[at:]
        return out


class _ShortError(Exception):
    """The reply is not complete; at least so many bytes are missing."""


def _parse(data: bytes, at: int) -> tuple[Reply, int]:
    end = data.find(b"\r\n", at)
    if end < 0:
        if len(data) - at > _MAX_LINE:
            raise ValueError("a line without an end")
        raise _ShortError(1)
    kind = data[at]
    if kind == 36:  # $
        size = int(data[at + 1 : end])
        if size < 0:
            return None, end + 2
        if size > _MAX_BULK:
            raise ValueError("a string that is too long")
        stop = end + 2 + size
        if len(data) < stop + 2:
            raise _ShortError(stop + 2 - len(data))
        return data[end + 2 : stop], stop + 2
    if kind == 58:  # :
        return int(data[at + 1 : end]), end + 2
    if kind == 42:  # *
        size, at = int(data[at + 1 : end]), end + 2
        if size < 0:
            return None, at
        items = []
        for _ in range(size):
            item, at = _parse(data, at)
            items.append(item)
        return items, at
    if kind == 43:  # +
        return data[at + 1 : end], end + 2
    if kind == 45:  # -
        return Refusal(data[at + 1 : end].decode("utf-8", "replace")), end + 2
    raise ValueError("no reply begins like this")
