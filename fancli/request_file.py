"""-f FILE: a request in a file, and the `${}` in it that -A and the environment fill.

    target: greeter.hello        timeout: 2s           headers: {x-team: blue}
    args: {name: "${name:-World}"}                     expect: {result: "Hello World"}

`args` are the arguments, by name or by position; so is `data`, which may be JSON or `@FILE`, too.
Beside `data` by name, `args` by name are what `${}` stands for where no -A says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fancli.documents import Document, Path, read_document
from fancli.params import (
    Usage,
    did_you_mean,
    parse_baggage,
    parse_duration,
    parse_headers,
    read_bytes,
)
from fancli.payload import Payload, Text, parse_items, read_payload

if TYPE_CHECKING:
    from fancli.env import Environment

KEYS = ("target", "timeout", "headers", "baggage", "args", "data", "expect")

_PLACE = re.compile(r"\$(?P<literal>\$(?=\{))|\$\{(?P<inside>[^{}]*)\}")
_INSIDE = re.compile(r"(?P<env>env:)?(?P<name>[A-Za-z_][\w.-]*?)(?::-(?P<default>.*))?", re.DOTALL)


class RequestFile(msgspec.Struct, frozen=True):
    """What a file asks for; None and empty: it does not say."""

    target: str
    timeout: float | None
    headers: dict[str, str]
    baggage: dict[str, str]
    payload: Payload | None
    #: What the outcome has to be; UNSET: anything that is no failure.
    expect: Any


def read_request(path: str, arguments: Sequence[str], env: Environment) -> RequestFile:
    """The request in a file, filled. Raises Usage that names file and line."""
    document = read_document(read_bytes(path, "-f", env), "stdin" if path == "-" else path)
    members = document.value
    if not isinstance(members, dict):
        document.refuse((), "a request is a map", f"of {', '.join(KEYS)}")
    for key in members:
        if key not in KEYS:
            near = did_you_mean(str(key), KEYS)
            document.refuse((key,), f"unknown key {key!r}", near or f"there are {', '.join(KEYS)}")
    given = parse_items(arguments, env)
    if given.args:
        raise Usage("-A: a name is needed", "-A name=Bob")
    return _Filling(document, given.kwargs, env).request()


class _Filling:
    """The way from a document to the request."""

    def __init__(self, document: Document, given: dict[str, Any], env: Environment) -> None:
        self._document = document
        self._members: dict[str, Any] = document.value
        self._given = given
        self._env = env
        #: Names of `${}` that occurred.
        self._used: set[str] = set()
        self._defaults: dict[str, Any] = {}

    def request(self) -> RequestFile:
        members = self._members
        payload = self._payload()
        timeout = self._plain("timeout")
        target = self._plain("target")
        if target is not None and not isinstance(target, str):
            self._document.refuse(("target",), "target is a text", "target: greeter.hello")
        filled = RequestFile(
            target=target or "",
            timeout=None if timeout is None else self._duration(timeout),
            headers=self._pairs("headers"),
            baggage=self._pairs("baggage"),
            payload=payload,
            expect=self._fill(members["expect"], ("expect",))
            if "expect" in members
            else msgspec.UNSET,
        )
        return msgspec.structs.replace(filled, payload=self._with_the_rest(payload))

    # --- ${} ---

    def _fill(self, value: Any, path: Path) -> Any:
        """The value with every `${}` in it filled; what was one alone may be a `Text`."""
        if isinstance(value, dict):
            return {key: self._fill(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._fill(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "$" not in value:
            return value
        alone = _PLACE.fullmatch(value)
        if alone and alone["inside"] is not None:
            return self._value(alone["inside"], path)
        return _PLACE.sub(lambda m: "$" if m["literal"] else self._text(m["inside"], path), value)

    def _text(self, inside: str, path: Path) -> str:
        return _text_of(self._value(inside, path))

    def _value(self, inside: str, path: Path) -> Any:
        match = _INSIDE.fullmatch(inside)
        if not match:
            self._document.refuse(
                path, f"${{{inside}}} cannot be read", "${name}, ${name:-default}, ${env:NAME}"
            )
        name, default = match["name"], match["default"]
        if match["env"]:
            found = self._env.vars.get(name, "")
            if found or (default is None and name in self._env.vars):
                return Text(found)
            hint = f"export {name}=..."
        else:
            self._used.add(name)
            if name in self._given:
                return self._given[name]
            if name in self._defaults:
                return self._defaults[name]
            hint = f"-A {name}=..."
        if default is None:
            self._document.refuse(path, f"${{{inside}}} has no value", hint)
        return Text(default)

    # --- the members ---

    def _plain(self, key: str) -> Any:
        value = self._fill(self._members.get(key), (key,))
        return _text_of(value) if isinstance(value, Text) else value

    def _duration(self, value: Any) -> float:
        try:
            return parse_duration(_text_of(value))
        except Usage as exc:
            self._document.refuse(("timeout",), f"timeout: {exc.message}", exc.hint)

    def _pairs(self, key: str) -> dict[str, str]:
        pairs = self._members.get(key)
        if pairs is None:
            return {}
        if not isinstance(pairs, dict):
            self._document.refuse((key,), f"{key} is a map of name to text")
        found: dict[str, str] = {}
        for name, value in pairs.items():
            if isinstance(value, (dict, list)):
                self._document.refuse((key, name), f"{key}: {name} is a text")
            text = _text_of(self._fill(value, (key, name)))
            try:
                if key == "headers":
                    found |= parse_headers([f"{name}: {text}"], self._env)
                else:
                    found |= parse_baggage([f"{name}={text}"])
            except Usage as exc:
                self._document.refuse((key, name), exc.message, exc.hint)
        return found

    def _payload(self) -> Payload | None:
        args, data = self._members.get("args"), self._members.get("data")
        if args is not None and not isinstance(args, (dict, list)):
            self._document.refuse(("args",), "args are a map (by name) or a list (by position)")
        if isinstance(args, dict) and isinstance(data, dict):
            self._defaults = self._fill(args, ("args",))
            self._used |= args.keys()
            args = None
        if data is None:
            return None if args is None else _payload_of(self._fill(args, ("args",)))
        found = self._data(data)
        if args is None:
            return found
        if found.args or isinstance(args, dict):
            self._document.refuse(("data",), "two payloads: args and data", "one of them")
        return Payload(self._fill(args, ("args",)), found.kwargs)

    def _data(self, data: Any) -> Payload:
        if isinstance(data, (dict, list)):
            return _payload_of(self._fill(data, ("data",)))
        if not isinstance(data, str):
            self._document.refuse(("data",), "data are a map, a list, JSON or @FILE")
        try:
            found = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError):
            found = None
        if isinstance(found, (dict, list)):  # filled in its strings, which may hold anything
            return _payload_of(self._fill(found, ("data",)))
        text = data if data.startswith("@") else _text_of(self._fill(data, ("data",)))
        if text.startswith("@") and self._document.name != "stdin":
            text = "@" + os.path.join(os.path.dirname(self._document.name), text[1:])
        try:
            return read_payload((), (text,), None, self._env)
        except Usage as exc:
            self._document.refuse(("data",), exc.message.replace("-d", "data", 1), exc.hint)

    def _with_the_rest(self, payload: Payload | None) -> Payload | None:
        """The payload, and as arguments by name what -A gives and no `${}` stands for."""
        rest = {name: value for name, value in self._given.items() if name not in self._used}
        if not rest:
            return payload
        if payload is None:
            return Payload([], rest)
        if payload.args and not payload.kwargs:
            name = next(iter(rest))
            near = did_you_mean(name, self._used)
            raise Usage(f"-A {name}: {self._document.name} has no ${{{name}}}", near)
        return Payload(payload.args, {**payload.kwargs, **rest})


def _payload_of(value: dict[str, Any] | list[Any]) -> Payload:
    return Payload([], value) if isinstance(value, dict) else Payload(value, {})


def _text_of(value: Any) -> str:
    """A value as it stands in a text, in a header or a target."""
    if isinstance(value, Text):
        value = value.data
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
