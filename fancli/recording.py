"""--record: calls and their replies, a line each, for `fan replay`."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Self

import msgspec

from fancli.mask import is_secret
from fancli.params import Usage

if TYPE_CHECKING:
    from fancli.request import Asking

#: What of a reply says nothing of it when it is looked at later.
_PASSING = ("v", "target", "trace_id", "gen", "attempts")


class Tape:
    """A file that calls are added to; its owner closes it."""

    def __init__(self, path: str) -> None:
        """Raises Usage where it cannot be written."""
        self.path = path
        try:
            # Arguments and results may be nobody else's business.
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as exc:
            raise Usage(f"--record {path}: cannot be written: {exc.strerror}") from None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file. Twice does no harm."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def keep(
        self,
        asking: Asking,
        content_type: str,
        body: bytes,
        reply: dict[str, Any],
        want: str | None = None,
    ) -> None:
        """Add one call. Headers and baggage that are secrets are left out. Raises StdoutFailed
        for a file that takes no more."""
        from datetime import UTC, datetime

        from fan import Recorded
        from fancli.output import StdoutFailed

        options, timeout = asking.options, asking.options["timeout"]
        line = Recorded(
            v=1,
            target=asking.target.name,
            at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            want=asking.target.want if want is None else want,
            timeout_ms=round(timeout * 1000) if timeout else None,
            headers=_open(options["headers"]),
            baggage=_open(options["baggage"]),
            caller=options["caller"],
            shard=options["shard"],
            content_type=content_type,
            body=msgspec.Raw(msgspec.json.format(body, indent=-1)),
            reply={name: value for name, value in reply.items() if name not in _PASSING},
        ).encode()
        try:
            with self._lock:
                while line:
                    line = line[os.write(self._fd, line) :]
        except OSError as exc:
            raise StdoutFailed(exc.strerror or str(exc), self.path) from exc


def _open(pairs: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in pairs.items() if not is_secret(name)}
