"""Calls that were recorded, with what they came to: a JSON object a line, to be made again or to be
answered in a service's place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import msgspec

from fan.codec import decode_arguments
from fan.errors import InvalidArgument
from fan.message import JSON

#: The version of the form, the `v` of each line.
VERSION = 1


class Recorded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call: what was asked, and its reply as `fan call --json` prints it."""

    v: int
    #: `service.method`.
    target: str
    #: RFC 3339, UTC.
    at: str = ""
    #: Version constraint, empty for the routed version.
    want: str = ""
    timeout_ms: int | None = None
    #: Without secrets: a header that was one is left out.
    headers: dict[str, str] = {}
    baggage: dict[str, str] = {}
    caller: str = ""
    shard: str = ""
    content_type: str = JSON
    #: The arguments: an object is by name, an array by position.
    body: msgspec.Raw = msgspec.Raw(b"{}")
    #: `{"ok": true, "result": ...}`, or `{"ok": false, "error": {...}}`; of a stream the result is
    #: the list of its items, and `kind` is "end".
    reply: dict[str, Any] = {}

    @property
    def service(self) -> str:
        """The service that was called."""
        return self.target.rpartition(".")[0]

    @property
    def method(self) -> str:
        """The method that was called."""
        return self.target.rpartition(".")[2]

    @property
    def is_stream(self) -> bool:
        """Whether the answer came in items."""
        return self.reply.get("kind") == "end"

    @property
    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Positional and named arguments. Raises InvalidArgument (malformed)."""
        return decode_arguments(self.content_type, bytes(self.body))

    @property
    def options(self) -> dict[str, Any]:
        """What `Client.using` takes to make the call again."""
        return {
            "want": self.want,
            "timeout": self.timeout_ms / 1000 if self.timeout_ms else None,
            "headers": self.headers,
            "baggage": self.baggage,
            "caller": self.caller,
            "shard": self.shard,
        }

    def encode(self) -> bytes:
        """Its line, with the line end."""
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Iterator[Recorded]:
        """The calls of a file, one after the other. Raises InvalidArgument (bad_recording) that
        names the line, and OSError."""
        decode = msgspec.json.Decoder(cls).decode
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    found = decode(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                    raise bad_recording(path, number, str(exc)) from exc
                if found.v != VERSION:
                    raise bad_recording(path, number, f"version {found.v} is not known here")
                if not found.service or not found.method:
                    raise bad_recording(path, number, f"{found.target!r} is no target")
                yield found


def bad_recording(path: str | os.PathLike[str], number: int, why: str) -> InvalidArgument:
    """The error for a line that is no recorded call."""
    return InvalidArgument(
        f"{os.fspath(path)}:{number}: no recorded call: {why}", reason="bad_recording"
    )
