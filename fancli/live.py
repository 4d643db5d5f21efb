"""What is redrawn in place on a terminal: a line of progress, a table that is watched.

Nothing is drawn where nobody looks, nor on a terminal that understands no control sequences
(TERM=dumb); `Live.is_on` tells. Lines are cut at the width of the terminal and its height, since
what wraps or scrolls cannot be redrawn.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from fancli.env import is_tty

if TYPE_CHECKING:
    from fancli.output import Output

#: Lines of a terminal that does not say.
_HEIGHT = 24
#: Columns of a bar at most, and at least: what is shorter says nothing.
_LONGEST_BAR, _SHORTEST_BAR = 40, 8
#: Colours and the like, which take no room.
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_PLAIN = "\x1b[0m"


class Live:
    """A few lines at the bottom of stderr, or with `on_stdout` of stdout, that are drawn over each
    other. `clear()` takes them away, for other lines to be printed; `leave()` lets them stand."""

    def __init__(self, out: Output, *, on_stdout: bool = False) -> None:
        self._out = out
        self._on_stdout = on_stdout
        env = out.env
        self._stream = env.stdout if on_stdout else env.stderr
        #: Whether anything is drawn.
        self.is_on = is_tty(self._stream) and not env.is_dumb and (on_stdout or not env.is_quiet)
        self._height = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.clear()

    @property
    def width(self) -> int:
        """Columns to draw in: the last one stays free, since some terminals wrap behind it."""
        return self._out.env.width - 1

    def draw(self, *lines: str) -> None:
        """Draw these lines in the place of those that stand there."""
        if not self.is_on:
            return
        shown = [clip(line, self.width) for line in self._fitting(lines)]
        self._paint(self._home() + "\n".join(f"{line}\x1b[K" for line in shown) + "\x1b[J")
        self._height = len(shown)

    def show(self, text: str) -> None:
        """The same for a text of several lines."""
        self.draw(*text.split("\n"))

    def clear(self) -> None:
        """Take away what is drawn."""
        if self._height:
            self._paint(f"{self._home()}\x1b[J")
            self._height = 0

    def leave(self) -> None:
        """Let stand what is drawn; the next lines go below it."""
        if self._height:
            self._paint("\n")
            self._height = 0

    def _home(self) -> str:
        """To the first column of the first line that is drawn."""
        return "\r" + (f"\x1b[{self._height - 1}A" if self._height > 1 else "")

    def _fitting(self, lines: Sequence[str]) -> Sequence[str]:
        most = self._rows() - 1
        if len(lines) <= most:
            return lines
        return [*lines[: most - 1], f"... {len(lines) - most + 1} more"]

    def _rows(self) -> int:
        try:
            assert self._stream is not None
            return os.get_terminal_size(self._stream.fileno()).lines or _HEIGHT
        except (OSError, ValueError):
            return _HEIGHT

    def _paint(self, text: str) -> None:
        self._out.paint(text, on_stdout=self._on_stdout)


@contextmanager
def standing(out: Output) -> Iterator[Live]:
    """For what is watched: drawn on stdout, and there still when the watch has ended."""
    with Live(out, on_stdout=True) as live:
        try:
            yield live
        finally:
            live.leave()


def progress(about: str, done: float, total: float, width: int, *, is_ascii: bool = False) -> str:
    """`45% ━━━━━╸───── ABOUT`, the bar as long as `width` leaves room for."""
    share = min(1.0, max(0.0, done / total)) if total else 1.0
    room = min(_LONGEST_BAR, width - room_of(about) - 6)
    drawn = f" {bar(share, room, is_ascii=is_ascii)}" if room >= _SHORTEST_BAR else ""
    return f"{share:4.0%}{drawn} {about}"


def bar(share: float, room: int, *, is_ascii: bool = False, empty: str = "") -> str:
    """A bar of `room` columns of which `share` is full, and the rest `empty`."""
    full, rest = ("#", "-") if is_ascii else ("━", "─")
    return (full * round(share * room)).ljust(room, empty or rest)


def clip(text: str, width: int) -> str:
    """The part of a line that fits into `width` columns; colours in it take no room, and end with
    it."""
    if room_of(text) <= width:
        return text
    out: list[str] = []
    here = used = 0
    while here < len(text):
        style = _STYLE.match(text, here)
        if style:
            out.append(style[0])
            here = style.end()
            continue
        used += room_of(text[here])
        if used > width:
            break
        out.append(text[here])
        here += 1
    return "".join(out) + (_PLAIN if "\x1b" in text else "")


def room_of(text: str) -> int:
    """Columns that a text takes on a terminal."""
    plain = _STYLE.sub("", text)
    if plain.isascii():
        return len(plain)
    from unicodedata import combining, east_asian_width

    return sum(
        0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in plain
    )


def is_ascii_only(out: Output, *, on_stdout: bool = False) -> bool:
    """Whether a stream can show no more than ASCII."""
    stream = out.env.stdout if on_stdout else out.env.stderr
    encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    return encoding != "utf8"
