"""-vvv: the envelopes as they went out and came in, by standing between the client and a
transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from fancli.mask import mask_pairs, mask_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fan import Request, Response, Settings


class Tap:
    """What was sent and answered: lines of `> envelope` and `< envelope`."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def transports(self, settings: Settings) -> dict[str, Any]:
        """Every built-in transport, tapped."""
        from fan import plugins

        return {
            name: Tapped(self, plugins.transport_class(name)(settings.resolving()))  # type: ignore[call-arg]
            for name in plugins.TRANSPORTS
            if name != "local"
        }

    def take(self, shows_all: bool) -> list[str]:
        """The lines so far, secrets masked, and forget them."""
        lines, self.lines = self.lines, []
        if shows_all:
            return lines
        return [_masked(line) for line in lines]

    def note(self, mark: str, envelope: Request | Response) -> None:
        """Keep one envelope."""
        shown = msgspec.to_builtins(envelope, builtin_types=(bytes,))
        shown["body"] = _readable(envelope.body)
        self.lines.append(f"{mark} {msgspec.json.encode(shown).decode()}")


class Tapped:
    """A transport that tells its Tap; everything else is the transport's own."""

    def __init__(self, tap: Tap, inner: Any) -> None:
        self._tap = tap
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def call(self, address: Any, request: Request, **how: Any) -> Response:
        """As `Transport.call`."""
        self._tap.note(">", request)
        response: Response = self._inner.call(address, request, **how)
        self._tap.note("<", response)
        return response

    def send(self, address: Any, request: Request) -> Response:
        """As `Transport.send`."""
        self._tap.note(">", request)
        response: Response = self._inner.send(address, request)
        self._tap.note("<", response)
        return response

    def publish(self, address: Any, request: Request) -> Response:
        """As `Transport.publish`."""
        self._tap.note(">", request)
        response: Response = self._inner.publish(address, request)
        self._tap.note("<", response)
        return response

    def stream(self, address: Any, request: Request) -> Iterator[Response]:
        """As `Transport.stream`."""
        self._tap.note(">", request)
        chunks = self._inner.stream(address, request)
        try:
            for chunk in chunks:
                self._tap.note("<", chunk)
                yield chunk
        finally:
            chunks.close()


def _readable(body: bytes) -> Any:
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        from fancli.render import wrap_bytes

        return wrap_bytes(body)


def _masked(line: str) -> str:
    mark, _, text = line.partition(" ")
    envelope = msgspec.json.decode(text)
    for name in ("headers", "baggage"):
        if name in envelope:
            envelope[name] = mask_pairs(envelope[name])
    if mark == ">":
        envelope["body"] = mask_value(envelope["body"])
    return f"{mark} {msgspec.json.encode(envelope).decode()}"
