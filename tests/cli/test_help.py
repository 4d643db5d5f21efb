"""Help: every command's, the topics, the error codes; and the manual pages made of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import click
import pytest

from fancli.fitting import fitted
from fancli.group import root_group
from fancli.man import pages
from fancli.topics import TOPICS

if TYPE_CHECKING:
    from tests.cli.conftest import Fan


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command, groups included."""
    yield path
    if isinstance(command, click.Group):
        table = getattr(command, "table", {})
        ctx = click.Context(command)
        for name in [*table, *command.commands]:
            found = command.get_command(ctx, name)
            assert found is not None
            yield from walk(found, (*path, name))


PATHS = list(walk(root_group()))


def find(path: tuple[str, ...]) -> click.Command:
    here: click.Command = root_group()
    for name in path:
        assert isinstance(here, click.Group)
        found = here.get_command(click.Context(here), name)
        assert found is not None
        here = found
    return here


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_has_help_with_examples_of_itself(path: tuple[str, ...]) -> None:
    command = find(path)
    examples = getattr(command, "examples", ())
    assert examples
    assert command.help
    assert command.short_help or not path
    name = " ".join(["fan", *path])
    if path:
        assert any(name in line for line in examples), f"no example calls {name}"


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    command = find(path)
    bare = [
        param.opts[0]
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden and not param.help
    ]
    assert bare == []


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_help_fits_the_terminal(fan: Fan, columns: int) -> None:
    for path in ((), ("call",), ("bench",)):
        prose = fan(*path, "--help", COLUMNS=str(columns)).stdout.partition("\nExamples:")[0]
        assert max(map(len, prose.splitlines())) <= columns


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_a_topic_fits_the_terminal_and_says_the_same(fan: Fan, columns: int) -> None:
    for name in (*TOPICS, "error unavailable"):
        words = name.split()
        shown = fan("help", *words, COLUMNS=str(columns)).stdout
        wide = [line for line in shown.splitlines() if len(line) > columns]
        assert all(line.startswith("  ") and "   " not in line.strip() for line in wide), wide
        assert shown.split() == fan("help", *words, COLUMNS="").stdout.split()


def test_a_text_is_filled_anew_where_it_is_too_wide_and_nowhere_else() -> None:
    text = "NAME     what it is and\n         does\n  an example   stays\n\none\ntwo"
    assert fitted(text, 40) == text
    assert fitted("NAME  a bc d\n      e f", 27) == "NAME  a bc d\n      e f"
    assert fitted("NAME  one two three four five\n      six", 26).splitlines() == [
        "NAME  one two three four", "      five six",
    ]  # fmt: skip
    assert fitted("a line of words\nand one more", 12) == "a line of\nwords and\none more"
    assert fitted("So:\n\n    an example of words", 12) == "So:\n\n    an example of words"


@pytest.mark.parametrize("name", ["payload", "exit-codes", "env", "files", "routing", "errors"])
def test_the_topics_that_there_have_to_be(fan: Fan, name: str) -> None:
    assert name in TOPICS
    ran = fan("help", name)
    assert (ran.exit, ran.stderr) == (0, "")
    assert ran.stdout.count("\n") > 3


def test_every_topic_and_code_is_explained_to_who_asks_for_one_that_is_none(fan: Fan) -> None:
    assert "did you mean files?" in fan("help", "file").stderr
    ran = fan("help", "error", "deadline_exceded")
    assert (ran.exit, ran.stdout) == (2, "")
    assert "did you mean deadline_exceeded?" in ran.stderr


def test_the_list_of_topics_keeps_names_and_what_they_are_about_apart(fan: Fan) -> None:
    shown = fan("help").stdout.partition("Topics")[2].splitlines()[1:]
    assert {name: " ".join(about) for name, *about in map(str.split, shown)} == TOPICS
    ran = fan("help", "error", "nonsense")
    assert (ran.exit, ran.stderr.splitlines()[1]) == (2, "hint: fan help errors lists them")


def test_every_kind_of_registry_is_named_where_a_url_of_one_is_asked_for(fan: Fan) -> None:
    assert "zk://" in fan("call", "--help").stdout
    assert "zk://" in fan("help", "env").stdout
    assert "zk://" in fan("--registry", "zoo://h", "discover", "list").stderr
    assert "zk://" in fan("--registry", "h", "discover", "list").stderr


# --- manual pages ---


@cache
def made() -> dict[str, str]:
    return pages("1.2.3")


def test_every_command_has_a_page() -> None:
    assert set(made()) == {f"{'-'.join(['fan', *path])}.1" for path in PATHS}


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_a_page_says_what_the_help_says(path: tuple[str, ...]) -> None:
    text = made()[f"{'-'.join(['fan', *path])}.1"]
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "SEE ALSO"):
        assert f"\n.SH {heading}\n" in text
    plain = text.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\")
    for param in find(path).params:
        if isinstance(param, click.Option) and not param.hidden:
            assert param.opts[-1] in plain


#: What the pages are made of: the macros of man(7), and the escapes of groff_char(7) and roff(7).
MACROS = {"TH", "SH", "TP", "PP", "B", "nf", "fi"}
ESCAPE = re.compile(r"\\(?:-|e|&|\(aq|f[BR])")


def lines_of(page: str) -> list[str]:
    """A page as man(1) would show it, but for the breaking of lines."""
    shown: list[str] = []
    is_kept, is_open = False, False  # whether lines stay lines, and whether one goes on
    for line in page.splitlines():
        macro, _, rest = line[1:].partition(" ") if line[:1] == "." else ("", "", line)
        assert line[:1] != "'", "a line that begins with ' is a macro, too"
        assert not macro or macro in MACROS, line
        assert "\\" not in ESCAPE.sub("", line), f"an escape that is none of ours: {line}"
        if macro in ("nf", "fi"):
            is_kept = macro == "nf"
        text = re.sub(r"\\f[BR]|\\&", "", rest).replace("\\-", "-").replace("\\(aq", "'")
        text = text.replace("\\e", "\\")
        is_open = is_open and not is_kept and macro in ("", "B")
        if is_open:
            shown[-1] += f" {text}"
        elif text:
            shown.append(text)
        is_open = bool(text) and macro in ("", "B")
    return shown


@pytest.mark.parametrize("name", [f"{'-'.join(['fan', *path])}.1" for path in PATHS])
def test_a_page_is_roff_that_says_its_name(name: str) -> None:
    lines = lines_of(made()[name])
    assert lines[0].startswith(f'"{name.removesuffix(".1").upper()}" "1"')
    assert lines[1] == "NAME"
    assert lines[2].startswith(f"{name.removesuffix('.1')} - ")


def test_a_page_reads_as_a_person_wrote_it() -> None:
    lines = lines_of(made()["fan-bench.1"])
    assert "fan-bench - put load on a method and measure it" in lines
    assert any("'p99<50ms'" in line for line in lines)
    assert lines[lines.index("SYNOPSIS") + 1] == "fan bench [OPTIONS] TARGET [ITEMS]..."


def test_every_command_with_a_registry_says_what_one_looks_like() -> None:
    found = [option.help for path in PATHS for option in find(path).params
             if isinstance(option, click.Option) and option.name == "registry"]  # fmt: skip
    assert found
    assert {"zk://" in (text or "") for text in found} == {True}
