"""What the tour pushes to and tells events: `fan serve fan.demo.journal`."""

from __future__ import annotations

import threading

from fan import Service, current, push, rpc, subscribe


class Journal(Service):
    """Keeps notes, and hears who came."""

    name = "journal"
    version = "1.0.0"

    def __init__(self) -> None:
        self._entries: list[str] = []
        self._added = threading.Condition()

    @push
    def note(self, text: str) -> None:
        """Write something down."""
        self._add(text)

    @subscribe("guest.came")
    def guest(self, name: str) -> None:
        """Write down who came."""
        self._add(f"{name} came")

    @rpc(idempotent=True)
    def entries(self, n: int = 0) -> list[str]:
        """What was written down, once there are `n` entries or the time is over."""
        context = current()
        left = context.remaining if context is not None else None
        with self._added:
            self._added.wait_for(lambda: len(self._entries) >= n, left)
            return list(self._entries)

    def _add(self, text: str) -> None:
        with self._added:
            self._entries.append(text)
            self._added.notify_all()
