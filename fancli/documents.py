"""Documents that people write: YAML, JSON or TOML, with the line that each member stands on.

Which of the three it is, the file's name says, else its first lines. YAML is that of version 1.2,
core schema (https://yaml.org/spec/1.2.2/#103-core-schema), as far as JSON reaches: `no` is a text,
and so is a date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import msgspec

from fancli.params import Usage, json_error

#: Where a member stands: the keys and indexes from the root.
Path = tuple[str | int, ...]

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OTHER_INT = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
#: A line that only TOML has: `key = value`, `[table]`.
_TOML = re.compile(r"\s*(?:[\w.\"'-]+\s*=|\[\[?[\w.\"' -]+\]\]?\s*(?:#.*)?$)")


class Document(NamedTuple):
    """What a document holds; `name` is what errors call it."""

    value: Any
    lines: dict[Path, int]
    name: str

    def at(self, path: Path) -> str:
        """`file:line` of a member, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"

    def refuse(self, path: Path, message: str, hint: str = "") -> NoReturn:
        """Raises Usage that names file and line."""
        raise Usage(f"{self.at(path)}: {message}", hint)


def read_document(data: bytes, name: str) -> Document:
    """The document in `data`. Raises Usage that names file and line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise Usage(f"{name}:{data.count(10, 0, exc.start) + 1}: not UTF-8") from None
    if text.startswith("#!"):
        text = "#" + text  # a comment whichever it is
    kind = _kind(text, name)
    if kind == "json":
        return _json(text, name)
    return _toml(text, name) if kind == "toml" else _yaml(text, name)


def _kind(text: str, name: str) -> str:
    extension = name.rpartition(".")[2].lower()
    if extension in ("json", "toml", "yaml", "yml"):
        return extension
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if first.startswith("{"):
        return "json"
    return "toml" if _TOML.match(first) else "yaml"


def _json(text: str, name: str) -> Document:
    head, newline, rest = text.partition("\n")
    if head.startswith("#"):
        text = newline + rest
    try:
        value = msgspec.json.decode(text)
    except RecursionError:
        raise Usage(f"{name}: nested too deeply") from None
    except msgspec.DecodeError as exc:
        raise json_error(text, name, exc) from None
    lines: dict[Path, int] = {}
    for path in _paths(value):
        key = path[-1]
        quoted = msgspec.json.encode(key).decode()
        found = re.search(rf"{re.escape(quoted)}\s*:", text) if isinstance(key, str) else None
        if found:
            lines[path] = text.count("\n", 0, found.start()) + 1
    return Document(value, lines, name)


def _toml(text: str, name: str) -> Document:
    import tomllib

    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        message, _, where = str(exc).partition(" (at line ")
        line = where.partition(",")[0] if where else str(text.count("\n") + 1)
        raise Usage(f"{name}:{line}: {message}") from None
    lines: dict[Path, int] = {}
    for path in _paths(value):
        key = re.escape(str(path[-1]))
        found = re.search(rf"^\s*(?:\[.*\b)?[\"']?{key}[\"']?\s*[=\].]", text, re.MULTILINE)
        if found:
            lines[path] = text.count("\n", 0, found.end()) + 1
    return Document(msgspec.to_builtins(value), lines, name)


def _paths(value: Any, above: Path = ()) -> Iterator[Path]:
    members = value.items() if isinstance(value, dict) else ()
    for key, item in members:
        yield (*above, key)
        yield from _paths(item, (*above, key))


def _yaml(text: str, name: str) -> Document:
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark is not None else 1
        hint = 'text with { } in it needs quotes: "${name}"' if "{" in _line(text, line) else ""
        raise Usage(f"{name}:{line}: {exc.problem or exc.context}", hint) from None
    except yaml.YAMLError as exc:
        raise Usage(f"{name}: {str(exc).splitlines()[0]}") from None
    except RecursionError:
        raise Usage(f"{name}: nested too deeply") from None
    lines: dict[Path, int] = {}
    try:
        return Document(_value(node, (), lines, name) if node else None, lines, name)
    except RecursionError:
        raise Usage(f"{name}: nested too deeply") from None


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number - 1] if 0 < number <= len(lines) else ""


def _value(node: Any, path: Path, lines: dict[Path, int], name: str) -> Any:
    if node.id == "scalar":
        return _scalar(node, name)
    if node.id == "sequence":
        items = []
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            items.append(_value(item, (*path, index), lines, name))
        return items
    members: dict[str, Any] = {}
    for key_node, item in node.value:
        line = key_node.start_mark.line + 1
        if key_node.id != "scalar":
            raise Usage(f"{name}:{line}: a key is a text")
        key = str(key_node.value)
        if key in members:
            raise Usage(f"{name}:{line}: {key} is given twice")
        lines[(*path, key)] = line
        members[key] = _value(item, (*path, key), lines, name)
    return members


def _scalar(node: Any, name: str) -> Any:
    text: str = node.value
    if node.style is not None:  # in quotes, or a block
        return text
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text)
    if _OTHER_INT.fullmatch(text):
        return int(text[2:], 8 if text[1] == "o" else 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NO_NUMBER.fullmatch(text):
        raise Usage(f"{name}:{node.start_mark.line + 1}: {text} is no number that JSON has")
    return text
