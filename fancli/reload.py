"""`fan serve --reload`: the services in a child process that starts again when a source changes."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator, Mapping, Sequence

from fancli.output import Output
from fancli.processes import Child, Signals

#: Seconds between two looks at the sources.
INTERVAL = 0.3
#: Folders without sources of ours, besides hidden ones and virtual environments.
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})


def run_reloading(args: Sequence[str], vars: Mapping[str, str], out: Output) -> int:
    """Run `fan ARGS` and run it again after every change of a Python file in the current folder or
    below; returns the exit status of the signal that ended it. A child that cannot start waits for
    the next change."""
    # A cached module counts as fresh while size and second of its source are the same: too coarse.
    vars = {**vars, "PYTHONDONTWRITEBYTECODE": "1"}
    with Signals() as signals:
        while True:
            before = snapshot(".")
            child = Child(args, name="serve", vars=vars)
            try:
                changed = _until_change(child, before, signals, out)
            finally:
                child.stop(signals.seen or signal.SIGTERM)
            if not changed:
                return signals.status
            out.note(f"reloading: {changed} changed")


def snapshot(folder: str) -> dict[str, tuple[int, int]]:
    """Every Python file in a folder and below -> time of change in ns and size."""
    found = {}
    for path in _sources(folder):
        try:
            status = os.stat(path)
        except OSError:
            continue  # gone since
        found[path] = (status.st_mtime_ns, status.st_size)
    return found


def _sources(folder: str) -> Iterator[str]:
    for here, folders, files in os.walk(folder):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = [f for f in folders if f not in SKIPPED and not f.startswith(".")]
        for name in files:
            if name.endswith(".py"):
                yield os.path.normpath(os.path.join(here, name))


def _until_change(
    child: Child, before: dict[str, tuple[int, int]], signals: Signals, out: Output
) -> str:
    """The file that changed, empty for a signal of ours."""
    watched: list[Child | Signals] = [child, signals]
    while True:
        found, _, _ = select.select(watched, [], [], INTERVAL)
        if signals in found:
            return ""
        if child in found:
            if child.read_news():
                out.note("ready")
            else:
                watched.remove(child)
                out.note("waiting for a change")
        now = snapshot(".")
        if now != before:
            return min(path for path, _ in now.items() ^ before.items())
