"""What is redrawn in place: where it is drawn, that it fits, and that it goes away."""

from __future__ import annotations

import io

import pytest

from fancli.env import Environment
from fancli.live import Live, bar, clip, is_ascii_only, progress, room_of
from fancli.output import Output


class Screen(io.StringIO):
    """A stream that is a terminal."""

    encoding = "utf-8"  # type: ignore[assignment]

    def isatty(self) -> bool:
        return True


def output(stream: io.StringIO, **vars: str) -> Output:
    return Output(Environment(stdout=stream, stderr=stream, vars={"TERM": "xterm", **vars}))


def test_lines_are_drawn_over_those_before() -> None:
    screen = Screen()
    with Live(output(screen)) as live:
        live.draw("one", "two")
        assert screen.getvalue() == "\rone\x1b[K\ntwo\x1b[K\x1b[J"
        screen.truncate(0)
        live.draw("three")
        assert screen.getvalue().lstrip("\0") == "\r\x1b[1Athree\x1b[K\x1b[J"
        screen.truncate(0)
    assert screen.getvalue().lstrip("\0") == "\r\x1b[J"


def test_what_is_left_stands_and_the_next_begins_below() -> None:
    screen = Screen()
    with Live(output(screen)) as live:
        live.draw("one")
        live.leave()
        live.draw("two")
    assert screen.getvalue() == "\rone\x1b[K\x1b[J\n\rtwo\x1b[K\x1b[J\r\x1b[J"


@pytest.mark.parametrize("stream", [io.StringIO(), Screen()])
def test_nothing_is_drawn_where_nobody_looks_or_understands_it(stream: io.StringIO) -> None:
    vars = {"TERM": "dumb"} if stream.isatty() else {}
    with Live(output(stream, **vars)) as live:
        live.draw("one")
        assert not live.is_on
    assert stream.getvalue() == ""


def test_q_silences_progress_and_not_a_result() -> None:
    screen = Screen()
    out = output(screen)
    out.env.is_quiet = True
    assert not Live(out).is_on
    assert Live(out, on_stdout=True).is_on


@pytest.mark.parametrize("columns", [20, 60, 140])
def test_a_line_never_wraps(columns: int) -> None:
    screen = Screen()
    with Live(output(screen, COLUMNS=str(columns))) as live:
        live.draw("x" * 300)
        assert screen.getvalue().count("x") == columns - 1


def test_more_lines_than_the_screen_has_are_counted() -> None:
    screen = Screen()
    with Live(output(screen)) as live:
        live.draw(*(f"line {n}" for n in range(100)))
    drawn = screen.getvalue()
    assert "line 21" in drawn
    assert "line 22" not in drawn
    assert "... 78 more" in drawn


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "abc"),
        ("\x1b[31mabcd\x1b[0m", 3, "\x1b[31mabc\x1b[0m"),
        ("日本語", 4, "日本"),
        ("日本語", 5, "日本"),
        ("e\u0301a", 2, "e\u0301a"),
    ],
)
def test_a_line_is_cut_by_the_room_that_it_takes(text: str, width: int, shown: str) -> None:
    assert clip(text, width) == shown
    assert room_of(shown) <= width


@pytest.mark.parametrize("width", [10, 30, 59, 79, 139])
@pytest.mark.parametrize("done", [0, 3, 7, 70])
def test_a_bar_takes_what_room_there_is(width: int, done: int) -> None:
    line = progress("7/s", done, 7, width)
    assert room_of(line) <= width
    assert line.startswith(f"{min(1, done / 7):4.0%}")
    assert ("─" in line or "━" in line) is (width > 20)


def test_a_bar_is_ascii_where_it_has_to_be() -> None:
    assert bar(0.5, 4) == "━━──"
    assert bar(0.5, 4, is_ascii=True) == "##--"
    latin = Screen()
    latin.encoding = "latin-1"  # type: ignore[misc]
    assert is_ascii_only(output(latin))
    assert not is_ascii_only(output(Screen()))
