"""Strings that a user types, and what they mean: targets, durations, headers, URLs.

What does not parse is a `Usage` error (exit 2): nothing was sent. The payload has a file of its
own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from fancli.env import Environment

#: Longest dotted name.
MAX_NAME = 255

_HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PEERS = "http://HOST:PORT, unix:///PATH, amqp://HOST/VHOST, redis://HOST/0, local:MODULE"
#: What click says of a text that is none of the numbers that it wants.
_IN_RANGE = r"is not a valid (?:integer|float)(?: range)?"
#: What a registry URL looks like.
_REGISTRIES = "sqlite:PATH, memory:, zk://h1,h2/chroot"
#: What a URL that is kept elsewhere begins with.
_REFERENCES = ("env", "file")

_URL = r"(?s)([A-Za-z][A-Za-z0-9+.-]*):(.*)"


class Usage(click.UsageError):
    """A mistake on the command line; `hint` says what to type instead."""

    def __init__(self, message: str, hint: str = "", ctx: click.Context | None = None) -> None:
        super().__init__(message, ctx)
        self.hint = hint


class BareGroup(click.UsageError):
    """A group without a command: its help is the answer, and a mistake all the same."""


class Target(NamedTuple):
    """What is called: `service.method`, and the version that is wanted, empty for the routed
    one."""

    service: str
    method: str
    want: str = ""

    @property
    def name(self) -> str:
        """`service.method`."""
        return f"{self.service}.{self.method}"


def parse_target(text: str) -> Target:
    """`greeter.hello`, `a.b.hello@2`, `greeter::hello@~=2.1`, `greeter/hello`. The last dot
    splits."""
    if "://" in text:
        from fancli.mask import mask_url

        raise Usage(
            f"TARGET {mask_url(text)!r}: an address is no target",
            "fan call greeter.hello -p http://HOST:PORT",
        )
    name, at, want = text.partition("@")
    name = name.replace("::", ".").replace("/", ".")
    if at and not want.strip():
        raise Usage(f"TARGET {text!r}: no version behind the @", "greeter.hello@2")
    service, _, method = name.rpartition(".")
    if not service:
        if name and "." not in name:
            raise Usage(
                f"TARGET {text!r}: a service and a method, separated by a dot, are needed",
                f"fan discover describe {name} lists its methods",
            )
        raise Usage(f"TARGET {text!r}: a service and a method are needed", "greeter.hello")
    check_name("TARGET", name)
    return Target(service, method, want.strip())


def parse_name(what: str, text: str) -> tuple[str, str]:
    """`greeter`, `greeter.hello@2`: a dotted name with dots alone, and the version that is wanted,
    empty for the routed one."""
    name, at, want = text.partition("@")
    if at and not want.strip():
        raise Usage(f"{what} {text!r}: no version behind the @", "greeter.hello@2")
    return check_name(what, name.replace("::", ".").replace("/", ".")), want.strip()


def check_name(what: str, name: str) -> str:
    """A dotted name, as it is. Raises Usage for one that no service can have."""
    if not name:
        raise Usage(f"{what}: the name is empty")
    if len(name) > MAX_NAME:
        raise Usage(f"{what}: {len(name)} characters; a name has at most {MAX_NAME}")
    for part in name.split("."):
        # Letters, digits and both dashes; without `re`, which every call would wait for.
        is_word = part.isascii() and part.replace("-", "_").isidentifier()
        if not is_word or part.startswith("-"):
            raise Usage(
                f"{what} {name!r}: {part!r} is no name",
                "names are letters, digits, '_' and '-', joined by dots",
            )
    return name


def parse_duration(text: str) -> float:
    """Seconds of `300ms`, `5s`, `2m`, `1h` or a bare number of seconds; above zero."""
    from fan import parse_duration as parse

    try:
        seconds = parse(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise Usage(f"{text!r} is not a duration", "300ms, 5s, 2m, 1h, or a number of seconds")
    return seconds


class Duration(click.ParamType[float]):
    """Option type of a duration; the value is seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_duration(value)
        except Usage as exc:
            raise Usage(f"{_named(param)}{exc.message}", exc.hint, ctx) from None


class Finite(click.FloatRange):
    """Option type of a number within bounds, which nan and inf are not."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        from math import isfinite

        number: float = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


def parse_shards(option: str, given: Iterable[str]) -> dict[str, list[str]]:
    """`shard1=a,b` as {"shard1": ["a", "b"]}."""
    found: dict[str, list[str]] = {}
    for text in given:
        name, _, values = text.partition("=")
        if not name.isidentifier() or not all(values.split(",")):
            raise Usage(f"{option} {text!r}: a name and its values", f"{option} shard1=a,b")
        found.setdefault(name, []).extend(values.split(","))
    return found


def parse_headers(given: Iterable[str], env: Environment) -> dict[str, str]:
    """Lower-case names and values of `-H 'K: V'`, `-H @FILE` (a header a line), `-H @-`."""
    headers: dict[str, str] = {}
    for text in given:
        lines = read_text(text[1:], "-H", env).splitlines() if text.startswith("@") else [text]
        for line in lines:
            if not line.strip() or (text.startswith("@") and line.startswith("#")):
                continue
            name, colon, value = line.partition(":")
            if not colon or not re.fullmatch(_HEADER_NAME, name.strip()):
                raise Usage(f"-H {line!r} is not a header", "-H 'Name: value', or -H @FILE")
            if "\n" in value or "\r" in value:
                raise Usage(f"-H {name}: a value is one line")
            headers[name.strip().lower()] = value.strip()
    return headers


def parse_baggage(given: Iterable[str]) -> dict[str, str]:
    """Pairs of `-B K=V`."""
    baggage: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(_HEADER_NAME, key):
            raise Usage(f"-B {text!r} is not a pair", "-B name=value")
        baggage[key] = value
    return baggage


def check_peers(
    peers: Iterable[str], option: str = "-p", vars: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """URLs of `-p`: a scheme that some transport knows, and something behind it. With `vars`, the
    references in them (`env:NAME`, `file:PATH`) are replaced by what they stand for."""
    out = []
    for text in peers:
        peer = text if vars is None else dereferenced(option, text, vars)
        match = re.fullmatch(_URL, peer)
        if not match:
            from fancli.mask import mask_url

            raise Usage(f"{option} {mask_url(peer)!r} is not a URL", _PEERS)
        scheme, rest = match[1].lower(), match[2]
        check_transport(option, scheme, is_scheme=True)
        if not rest.strip("/"):
            raise Usage(f"{option} {peer!r}: nothing behind {scheme}:", _PEERS)
        if scheme in ("http", "https") and "@" in rest[2:].partition("/")[0]:
            from fancli.mask import mask_url

            raise Usage(
                f"{option} {mask_url(peer)}: an http address holds no user and no password",
                "" if option == "--addr" else "-H @FILE, with the line Authorization: Basic ...",
            )
        out.append(f"{scheme}:{rest}")
    return tuple(out)


def dereferenced(option: str, url: str, vars: Mapping[str, str]) -> str:
    """A URL with the secrets in the place of its references. Raises Usage for one that leads
    nowhere."""
    if "env:" not in url and "file:" not in url:
        return url
    from fan import InvalidArgument, resolve_reference

    try:
        return resolve_reference(url, vars)
    except InvalidArgument as exc:
        raise Usage(f"{option} {exc.message}") from None


def check_transport(option: str, name: str, *, is_scheme: bool = False) -> str:
    """A transport's name, or with `is_scheme` that of an address; empty for `auto`."""
    from fan import plugins

    if name == "auto" and not is_scheme:
        return ""
    if name in plugins.TRANSPORTS or (is_scheme and name in plugins.ALIASES):
        return name
    known = plugins.transport_names()
    if name in known:
        return name
    words = [*known, *plugins.ALIASES] if is_scheme else ["auto", *known]
    kind = "scheme" if is_scheme else "transport"
    raise Usage(
        f"{option} {name}: unknown {kind}",
        did_you_mean(name, words) or f"there are {', '.join(sorted(words))}; see fan plugins",
    )


def check_bind(spec: str) -> str:
    """`ipc`, `http=127.0.0.1:8080`. Raises Usage for a transport that nobody brings."""
    name = spec.partition("=")[0]
    if not check_transport("--transport", name):
        raise Usage(f"--transport {name}: name one", "--transport ipc --transport http")
    if name == "local":
        raise Usage("--transport local: it is there without being served", "--transport ipc")
    return spec


def read_text(path: str, option: str, env: Environment) -> str:
    """Text of the file at `path`, of stdin for `-`. Raises Usage when it cannot be had."""
    data = read_bytes(path, option, env)
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise Usage(f"{option}: {_place(path)} is not UTF-8: {exc.reason}") from None


def read_bytes(path: str, option: str, env: Environment) -> bytes:
    """Bytes of the file at `path`, of stdin for `-`. Raises Usage when they cannot be had."""
    try:
        if path == "-":
            return env.read_stdin()
        with open(path, "rb") as file:
            return file.read()
    except OSError as exc:
        raise Usage(f"{option}: cannot read {_place(path)}: {exc.strerror}") from None
    except ValueError as exc:  # stdin is closed, or a NUL in the path
        raise Usage(f"{option}: cannot read {_place(path)}: {exc}") from None


def did_you_mean(name: str, known: Iterable[str], least: float = 0.7) -> str:
    """`did you mean list?`, or nothing where nothing is near: `least` is 1 for the same."""
    from difflib import SequenceMatcher

    alike = {each: SequenceMatcher(None, name, each).ratio() for each in known}
    best = max(alike.values(), default=0.0)
    # What is clearly farther off than the nearest is no candidate beside it.
    near = [each for each, ratio in alike.items() if ratio > least and ratio > best - 0.1][:3]
    return f"did you mean {' or '.join(near)}?" if near else ""


def usage_text(exc: click.ClickException) -> tuple[str, str, str]:
    """A usage error as (message, hint, help): one of the last two is empty, `help` a whole text."""
    ctx = getattr(exc, "ctx", None)
    if isinstance(exc, BareGroup) and ctx is not None:
        return "a command is needed", "", ctx.get_help()
    hint = getattr(exc, "hint", "")
    message = exc.format_message()
    if isinstance(exc, click.NoSuchOption):
        message = f"no such option: {exc.option_name}"
        takes_items = exc.option_name[:2] == "--" and hasattr(ctx and ctx.command, "takes_items")
        hint = did_you_mean(exc.option_name, _options_of(ctx), 0.8 if takes_items else 0.7)
        if takes_items and not hint:
            hint = f"an argument of the method is an item: {exc.option_name[2:]}=VALUE"
    if not hint and "malformed JSON" in message:
        hint = "fan help payload"
    elif not hint and ctx is not None:
        hint = f"{ctx.command_path} --help"
    if isinstance(exc, click.MissingParameter):
        message = " ".join(message.split())  # click gives each choice a line of its own
    message = re.sub(_IN_RANGE, "is no number", message.strip().rstrip("."))
    is_word = message[:2].isalpha() and message[:2].istitle()  # not a metavar: V=5%
    return message[:1].lower() + message[1:] if is_word else message, hint, ""


def _options_of(ctx: click.Context | None) -> list[str]:
    if ctx is None:
        return []
    return [name for param in ctx.command.get_params(ctx) for name in param.opts]


def _named(param: click.Parameter | None) -> str:
    return f"{max(param.opts, key=len)}: " if param is not None and param.opts else ""


def _place(path: str) -> str:
    return "stdin" if path == "-" else repr(path)


def parse_json(text: bytes | str, option: str) -> Any:
    """JSON that was typed. Raises Usage."""
    import msgspec

    raw = text.encode() if isinstance(text, str) else text
    if not raw.strip():
        raise Usage(f"{option}: empty, not JSON")
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise Usage(f"{option}: nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise json_error(raw, option, exc) from None


def json_error(text: bytes | str, option: str, exc: Exception) -> Usage:
    """Malformed JSON as a usage error with line and column. `exc` is msgspec's, which tells a
    byte."""
    data = text.encode() if isinstance(text, str) else text
    message, _, where = str(exc).partition(" (byte ")
    message = message.removeprefix("JSON is malformed: ")
    digits = where.rstrip(")")
    byte = int(digits) if digits.isdecimal() else len(data)
    before = data[:byte]
    line = before.count(b"\n") + 1
    column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
    return Usage(f"{option}: malformed JSON at line {line}, column {column}: {message}")


def check_registry(url: str, option: str = "--registry") -> str:
    """A registry URL as it is, when some store knows its scheme or it is a reference, which is
    read when the registry is used. Raises Usage."""
    from fan import plugins

    match = re.fullmatch(_URL, url)
    if not match:
        raise Usage(f"{option} {url!r} is not a URL", _REGISTRIES)
    if match[1] in _REFERENCES:
        return url
    if match[1] not in plugins.STORES and match[1] not in plugins.store_names():
        from fancli.mask import mask_url

        near = did_you_mean(match[1], plugins.store_names())
        raise Usage(f"{option} {mask_url(url)}: unknown scheme {match[1]}", near or _REGISTRIES)
    return url
