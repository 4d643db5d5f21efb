"""The arguments of a call as they are typed: items, one JSON token, -d, or SHON; exactly one of
them.

Items are HTTPie's (https://httpie.io/docs/cli/json): `name=Bob` is text, which the method's schema
may turn into a number or a boolean; `n:=3` is JSON; `=@` and `:=@` take a file's. `tags[]=a` and
`addr[city]=X` nest; an empty key is a positional argument. SHON is that of https://www.npmjs.com/package/shon.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fancli.params import Usage, parse_json, read_bytes

if TYPE_CHECKING:
    from fancli.env import Environment

JSON = "application/json"
#: Positional and named arguments at once.
BOTH = "application/vnd.fan+json"

_FORMS = "name=Ada, n:=3, '{\"a\":1}', -d JSON|@FILE|-, or [ --a 1 ]; fan help payload"
#: A key with its escapes, and the leftmost separator.
_ITEM = r"(?s)((?:\\.|[^=\\:]|:(?!=))*)(:=@|:=|=@|=)(.*)"
_KEY = r"((?:\\.|[^\[\]\\])*)((?:\[[^\[\]]*\])*)"
_PART = r"\[([^\[\]]*)\]"
_NUMBER = r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?"
_WORDS = {"-t": True, "-f": False, "-n": None, "-u": None}


class Text:
    """A value typed without saying of which type: the method's schema decides. Bytes are a
    file's."""

    __slots__ = ("data",)

    def __init__(self, data: str | bytes) -> None:
        self.data = data


class Payload:
    """Positional and named arguments; values may be or hold `Text`. `raw` is a JSON document that
    is sent as it was given, and then the arguments in it are what was parsed from it."""

    __slots__ = ("args", "kwargs", "raw")

    def __init__(self, args: list[Any], kwargs: dict[str, Any], raw: bytes = b"") -> None:
        self.args = args
        self.kwargs = kwargs
        self.raw = raw

    @property
    def has_text(self) -> bool:
        """Whether a schema can change anything."""
        return any(_holds_text(value) for value in (*self.args, *self.kwargs.values()))

    def encode(self) -> tuple[str, bytes]:
        """Content type and body; every `Text` must have been replaced."""
        if self.raw:
            return JSON, self.raw
        if not self.args:
            return JSON, msgspec.json.encode(self.kwargs)
        if not self.kwargs:
            return JSON, msgspec.json.encode(self.args)
        return BOTH, msgspec.json.encode({"args": self.args, "kwargs": self.kwargs})


def read_payload(
    items: Sequence[str], data: Sequence[str], shon: Sequence[str] | None, env: Environment
) -> Payload:
    """The arguments from whichever source was used. Raises Usage for two, or for what does not
    parse."""
    documents = [item for item in items if item[:1] in ("{", "[")]
    pairs = [item for item in items if item[:1] not in ("{", "[")]
    sources = [
        name
        for name, used in (
            *(("-d", True) for _ in data),
            ("SHON", shon is not None),
            *(("a JSON argument", True) for _ in documents),
            ("items", bool(pairs)),
        )
        if used
    ]
    if len(sources) > 1:
        raise Usage(f"two payloads: {' and '.join(sources[:2])}", f"one of {_FORMS}")
    if data:
        text = data[0]
        is_file = text.startswith("@") or text == "-"
        return _document(read_bytes(text.removeprefix("@"), "-d", env) if is_file else text, "-d")
    if documents:
        return _document(documents[0], "PAYLOAD")
    if shon is not None:
        return _arguments(parse_shon(list(shon)), b"", "SHON")
    return parse_items(pairs, env)


def _document(text: str | bytes, option: str) -> Payload:
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return _arguments(parse_json(raw, option), raw.strip(), option)


def _arguments(value: Any, raw: bytes, option: str) -> Payload:
    if isinstance(value, dict):
        return Payload([], value, raw)
    if isinstance(value, list):
        return Payload(value, {}, raw)
    raise Usage(
        f"{option}: arguments are an object (by name) or an array (by position), not a bare value",
        f"one of {_FORMS}",
    )


# --- items ---


def parse_items(items: Sequence[str], env: Environment) -> Payload:
    """`name=Bob n:=3 tags[]=a addr[city]=X note=@f cfg:=@f.json =x :=1`."""
    payload = Payload([], {})
    for item in items:
        match = re.fullmatch(_ITEM, item)
        if not match:
            raise Usage(
                f"{item!r} is no item",
                f"NAME={item}, or ={item} for the first positional argument; fan help payload",
            )
        key, separator, text = match.groups()
        value = _item_value(item, separator, text, env)
        if not key:
            payload.args.append(value)
        else:
            _put(payload.kwargs, item, key, value)
    return payload


def _item_value(item: str, separator: str, text: str, env: Environment) -> Any:
    if separator == "=":
        return Text(text)
    if separator == "=@":
        return Text(read_bytes(text, item, env))
    raw = read_bytes(text, item, env) if separator == ":=@" else text.encode()
    return parse_json(raw, item if separator == ":=@" else f"{item!r}, behind :=")


def _put(kwargs: dict[str, Any], item: str, key: str, value: Any) -> None:
    """Store a value under `a`, `a[]`, `a[b][c]` or `a[0]`."""
    match = re.fullmatch(_KEY, key)
    name = re.sub(r"\\(.)", r"\1", match[1]) if match else ""
    if not match or not name:
        raise Usage(f"{item!r}: {key!r} is no key", "name, name[], name[key]")
    here: Any = kwargs
    step: str | int | None = name
    for part in re.findall(_PART, match[2]):
        is_list = part == "" or part.isdecimal()
        here = _enter(here, step, list if is_list else dict, item)
        step = None if part == "" else int(part) if is_list else part
    _store(here, step, value, item)


def _enter(here: Any, step: str | int | None, kind: type[Any], item: str) -> Any:
    """The container at `step` of `here`, made if need be."""
    inside = _look(here, step)
    if inside is None:
        inside = kind()
        _store(here, step, inside, item)
    if not isinstance(inside, kind):
        raise Usage(f"{item!r}: given before as something else")
    return inside


def _look(here: Any, step: str | int | None) -> Any:
    if isinstance(here, dict):
        return here.get(step)
    return here[step] if isinstance(step, int) and step < len(here) else None


def _store(here: Any, step: str | int | None, value: Any, item: str) -> None:
    if isinstance(here, dict):
        if step in here:
            raise Usage(f"{item!r}: {step} is given twice", f"{step}[]=... makes a list")
        here[step] = value
    elif step is None or step == len(here):
        here.append(value)
    else:
        raise Usage(f"{item!r}: index {step}, and {len(here)} is next")


def _holds_text(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_text(item) for item in value.values())
    if isinstance(value, list):
        return any(_holds_text(item) for item in value)
    return isinstance(value, Text)


# --- SHON ---


def lift_shon(args: list[str]) -> tuple[list[str], list[str] | None]:
    """Take `[ ... ]` out of a command's arguments before click sees the options in it. Raises
    Usage for one that does not end, and for two."""
    rest: list[str] = []
    found: list[str] | None = None
    here = 0
    while here < len(args):
        if args[here] not in ("[", "[--]"):
            rest.append(args[here])
            here += 1
            continue
        if found is not None:
            raise Usage("two payloads: SHON and SHON", f"one of {_FORMS}")
        end = _end_of(args, here)
        found = args[here:end]
        here = end
    return rest, found


def _end_of(args: list[str], start: int) -> int:
    depth = 0
    here = start
    while here < len(args):
        if args[here] == "[":
            depth += 1
        elif args[here] == "]":
            depth -= 1
        elif args[here] == "--":
            here += 1  # the next one is a literal
        here += 1
        if depth <= 0:
            return here
    raise Usage("SHON: a [ without its ]", "fan call SERVICE.METHOD [ --a 1 --b [ x y ] ]")


def parse_shon(tokens: list[str]) -> Any:
    """The value of `[ --a 1 --o [ --x -t ] ]`: an object when its first token is a key, else an
    array. `-t -f -n` are true, false and null, `-- x` is the text x, numbers are numbers, `[--]`
    is `{}`."""
    value, rest = _shon_value(tokens)
    if rest:
        raise Usage(f"SHON: {rest[0]!r} behind the last ]")
    return value


def _shon_value(tokens: list[str]) -> tuple[Any, list[str]]:
    if not tokens:
        raise Usage("SHON: a value is missing")
    token, rest = tokens[0], tokens[1:]
    if token == "[":
        return _shon_members(rest)
    if token in ("[]", "[--]"):
        return ([] if token == "[]" else {}), rest
    if token in _WORDS:
        return _WORDS[token], rest
    if token == "--":
        if not rest:
            raise Usage("SHON: nothing behind --")
        return rest[0], rest[1:]
    if token == "]" or token.startswith("--"):
        raise Usage(f"SHON: {token!r} where a value is needed", "a literal one is -- " + token)
    if re.fullmatch(_NUMBER, token):
        return msgspec.json.decode(token), rest
    return token, rest


def _shon_members(tokens: list[str]) -> tuple[Any, list[str]]:
    is_object = bool(tokens) and len(tokens[0]) > 2 and tokens[0].startswith("--")
    members: dict[str, Any] = {}
    elements: list[Any] = []
    while tokens and tokens[0] != "]":
        if is_object:
            key = tokens[0].removeprefix("--")
            if key == tokens[0] or not key:
                raise Usage(f"SHON: {tokens[0]!r} where a --key is needed")
            members[key], tokens = _shon_value(tokens[1:])
        else:
            value, tokens = _shon_value(tokens)
            elements.append(value)
    return (members if is_object else elements), tokens[1:]
