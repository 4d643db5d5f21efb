"""Manual pages, one for each command, from the same text as `--help`: the build of the package
installs them as `share/man/man1`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from fancli import topics
from fancli.exits import MEANINGS
from fancli.group import root_group

_WORDS = re.compile(r"`([^`]+)`")


def pages(version: str) -> dict[str, str]:
    """Every page by its file's name: `fan.1`, `fan-config-get.1`."""
    root = root_group()
    ctx = click.Context(root, info_name="fan")
    return {f"{name}.1": text for name, text in _walk(root, ctx, version)}


def _walk(command: click.Command, ctx: click.Context, version: str) -> Iterator[tuple[str, str]]:
    name = ctx.command_path.replace(" ", "-")
    children = _children(command, ctx)
    yield name, "\n".join(_page(command, ctx, version, list(children))) + "\n"
    for child, found in children.items():
        yield from _walk(found, click.Context(found, info_name=child, parent=ctx), version)


def _children(command: click.Command, ctx: click.Context) -> dict[str, click.Command]:
    """The commands below it; a plug-in's are its own distribution's business."""
    if not isinstance(command, click.Group):
        return {}
    table = getattr(command, "table", {})
    names = [*table, *command.commands]
    return {name: found for name in names if (found := command.get_command(ctx, name)) is not None}


def _page(
    command: click.Command, ctx: click.Context, version: str, children: list[str]
) -> Iterator[str]:
    path = ctx.command_path
    name = path.replace(" ", "-")
    short = (command.short_help or command.get_short_help_str(100)).rstrip(".")
    yield f'.TH "{name.upper()}" "1" "" "fan {version}" "fan"'
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text(short[:1].lower() + short[1:])}"
    yield ".SH SYNOPSIS"
    yield f".B {_text(path)}"
    yield _text(" ".join(command.collect_usage_pieces(ctx)))
    if command.help:
        yield ".SH DESCRIPTION"
        yield from _paragraphs(command.help)
    yield from _options(command, ctx)
    if children and isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for child in children:
            found = command.get_command(ctx, child)
            assert found is not None
            yield from _item(child, found.short_help or found.get_short_help_str(100))
    yield from _examples(getattr(command, "examples", ()))
    if ctx.parent is None:
        yield from _statuses()
        yield ".SH ENVIRONMENT"
        yield from _as_is(topics.topic("env") or "")
    yield ".SH SEE ALSO"
    yield _see_also(ctx, children)


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    records = [
        record
        for param in command.get_params(ctx)
        if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None
    ]
    if records:
        yield ".SH OPTIONS"
        for names, about in records:
            yield from _item(names, about)


def _item(names: str, about: str) -> Iterator[str]:
    yield ".TP"
    yield f".B {_text(names)}"
    yield _text(about)


def _examples(examples: tuple[str, ...]) -> Iterator[str]:
    if examples:
        yield ".SH EXAMPLES"
        yield from _as_is("\n".join(examples))


def _statuses() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in MEANINGS.items():
        yield from _item(str(code.value), meaning)


def _see_also(ctx: click.Context, children: list[str]) -> str:
    name = ctx.command_path.replace(" ", "-")
    parent = [ctx.parent.command_path.replace(" ", "-")] if ctx.parent is not None else []
    names = [*parent, *(f"{name}-{child}" for child in children)]
    return ", ".join(f"\\fB{_text(each)}\\fR(1)" for each in dict.fromkeys(["fan", *names])
                     if each != name)  # fmt: skip


def _paragraphs(text: str) -> Iterator[str]:
    """Prose, a paragraph after the other; click's mark `\\b` keeps the lines of one."""
    for index, part in enumerate(re.split(r"\n[ \t]*\n", text.strip())):
        if index:
            yield ".PP"
        if part.lstrip().startswith("\b"):
            yield from _as_is(part.replace("\b", "").strip("\n"))
        else:
            yield _text(" ".join(part.split()))


def _as_is(text: str) -> Iterator[str]:
    """Lines that stay lines."""
    yield ".nf"
    yield from (_text(line) for line in text.rstrip("\n").splitlines())
    yield ".fi"


def _text(text: str) -> str:
    """Text that roff does not read as its own: names between backquotes are bold."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = _WORDS.sub(lambda m: f"\\fB{m[1]}\\fR", text)
    return f"\\&{text}" if text.startswith(".") else text
