"""A watch: a thread that keeps ZooKeeper's one-time watches armed, and calls back.

They are armed before the call, so that whatever is written after the call's reads fires again. A
watch ends with its connection, which kazoo tells by an event of type NONE: everything is armed
anew on the next one. Nothing is derived from an event; the callback reads.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from fan.errors import FanError
from fan.stores.base import HEAD, Hint
from fan.stores.zookeeper_channel import Channel, Issue
from fan.stores.zookeeper_layout import Layout

#: Seconds that arming may take before the connection counts as lost.
_PATIENCE = 2.0

#: Seconds between two tries while the servers are away or refuse us.
_RETRY = 0.5

#: What is watched of a node: its own changes, or the names below it.
_Arm = tuple[Literal["node", "names"], str]


class ZookeeperWatch:
    """One watch. See `Store.watch`. Of a kind of record these are watched: its folder, which every
    write touches; and the names in it and one level below, since a session's end touches
    nothing."""

    def __init__(
        self, channel: Channel, layout: Layout, kind: str, callback: Callable[[Hint], None]
    ) -> None:
        self.kind = kind
        self._channel = channel
        self._path = layout.head if kind == HEAD else layout.kind(kind)
        self._callback = callback
        self.is_closed = False
        self._is_lost = False
        self._news = threading.Event()
        self._fired: deque[_Arm] = deque()
        self._armed_at = -1
        self._below: set[str] = set()
        channel.listen(self._news.set)
        self._thread = threading.Thread(target=self._run, name=f"fan-watch-{kind}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it, without waiting for a call that is under way."""
        self.is_closed = True
        self._channel.ignore(self._news.set)
        self._news.set()

    def join(self, timeout: float) -> None:
        """Wait for its thread, unless this is it."""
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def after_fork_in_child(self) -> None:
        """There is no thread on this side."""
        self.is_closed = True

    def _run(self) -> None:
        while not self.is_closed:
            self._news.clear()
            if not self._channel.is_up and self._armed_at >= 0:
                self._lose()
            try:
                self._arm(time.monotonic() + _PATIENCE)
            except FanError as error:
                if not self.is_closed:
                    logging.getLogger("fan.stores").debug("watching %s: %s", self._path, error)
                    self._lose()
                    self._news.wait(_RETRY)
                continue
            if self._is_lost:
                self._is_lost = False
                self._tell("regained")
            self._tell("changed")
            self._news.wait()

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._tell("lost")

    def _tell(self, hint: Hint) -> None:
        if self.is_closed:
            return
        try:
            self._callback(hint)
        except Exception:
            logging.getLogger("fan.stores").exception("a watch of %s failed", self.kind)

    def _arm(self, deadline: float) -> None:
        """Arm what fired, or everything over a new connection. Raises FanError."""
        self._channel.ready(deadline)
        opened = self._channel.opened
        if opened != self._armed_at:
            self._fired.clear()
            self._below.clear()
            wanted: set[_Arm] = {("node", self._path)}
            if self.kind != HEAD:
                wanted.add(("names", self._path))
        else:
            wanted = {self._fired.popleft() for _ in range(len(self._fired))}
        for arm in wanted:
            if arm[0] == "node":
                # Not waited for: what the callback reads is asked, and answered, after it.
                self._channel.send(self._issue(arm), deadline)
                if self.kind != HEAD:
                    wanted = wanted | {("names", self._path)}
        self._arm_names([path for what, path in wanted if what == "names"], deadline)
        self._armed_at = opened

    def _arm_names(self, paths: list[str], deadline: float) -> None:
        while paths:
            issues = [self._issue(("names", path)) for path in paths]
            found = self._channel.ask(issues, paths, deadline)
            new: list[str] = []
            for path, names in zip(paths, found, strict=True):
                if path != self._path:
                    if names is None:
                        self._below.discard(path)
                    continue
                new = [f"{path}/{name}" for name in names or ()]
                new = [below for below in new if below not in self._below]
            self._below.update(new)
            paths = new

    def _issue(self, arm: _Arm) -> Issue:
        what, path = arm

        def fire(event: Any) -> None:
            self._fired.append(arm)
            self._news.set()

        if what == "node":
            return lambda client: client.exists_async(path, watch=fire)
        return lambda client: client.get_children_async(path, watch=fire)
