"""Text that is laid out by hand, for a terminal that is narrower than it."""

from __future__ import annotations

import re
from collections.abc import Iterator

#: What stands before the text of a line like `NAME   what it is`: up to the last gap of three
#: spaces, else of two.
_TERM = re.compile(r"(\s*\S.*\s{3,})\S|(\s*\S.*\s{2,})\S")


def fitted(text: str, width: int) -> str:
    """The text in lines of at most `width`. What fits stays as it is; a paragraph that does not is
    filled anew, and so is what stands in a column, below itself. Indented lines stay: they are
    examples."""
    lines = (line for unit in _units(text.split("\n")) for line in _fit(unit, width))
    return "\n".join(lines)


def hung(line: str, width: int, *, deeper: int = 4) -> list[str]:
    """A line that stands for one thing, in lines of at most `width`: what does not fit goes on
    below, indented by so much more."""
    if len(line) <= width:
        return [line]
    from textwrap import wrap

    indent = " " * (len(line) - len(line.lstrip()))
    return wrap(
        line.lstrip(), width, initial_indent=indent, subsequent_indent=indent + " " * deeper,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _units(lines: list[str]) -> Iterator[list[str]]:
    """Lines that belong together: a paragraph, or a term with the lines below its text."""
    unit: list[str] = []
    for line in lines:
        indent = len(line) - len(line.lstrip())
        goes_on = bool(unit and unit[0] and line) and indent == _column(unit[0])
        if goes_on and (indent or _column(line) == 0) and _column(line) in (0, indent):
            unit.append(line)
            continue
        if unit:
            yield unit
        unit = [line]
    yield unit


def _column(line: str) -> int:
    """Where the text of a line begins, behind what it is about."""
    found = _TERM.match(line)
    return len(found[1] or found[2]) if found else len(line) - len(line.lstrip())


def _fit(unit: list[str], width: int) -> list[str]:
    column = _column(unit[0])
    is_example = unit[0][:1] == " " and not _TERM.match(unit[0])
    if is_example or max(map(len, unit)) <= width or column > max(0, width - 20):
        return unit
    from textwrap import wrap

    words = " ".join([unit[0][column:], *(line.strip() for line in unit[1:])])
    return wrap(
        words, width, initial_indent=unit[0][:column], subsequent_indent=" " * column,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
