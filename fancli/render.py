"""What results and failures look like as text and as JSON. Pure: `output` prints it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from fan import FanError

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PLAIN_YAML = re.compile(r"[A-Za-z_/][\w ./@+~-]*(?<! )")
_YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})

#: What to type next, by code and reason. `{service}` and `{target}` are filled in.
_HINTS: dict[tuple[str, str], str] = {
    ("not_found", "no_such_service"): "fan discover list shows what is registered",
    ("not_found", "no_such_letter"): "fan queue dead {target} shows what there is",
    ("not_found", "no_such_queue"): "fan queue list shows what there is",
    ("not_found", "no_such_config"): "fan config list shows what there is",
    ("unimplemented", "unknown_method"): "fan discover describe {service} lists its methods",
    ("failed_precondition", "version_missing"): "fan discover show {service} lists its versions",
    ("invalid_argument", "unknown_profile"): "fan profile list shows what there is",
    ("unavailable", "no_instance"): "start one: fan serve MODULE; fan discover show {service}",
    ("unavailable", "unroutable"): "fan discover show {service}",
    ("unavailable", "connect_failed"): "is it running? fan discover show {service}",
    ("unavailable", "peer"): "is it running? -p says where it should be",
    ("unavailable", "broker"): "is the broker running? fan settings show says where it should be",
    ("invalid_argument", "bad_signature"): "fan discover describe {target}",
    ("deadline_exceeded", "client_timer"): "--timeout gives it longer",
    ("deadline_exceeded", "server_timer"): "--timeout gives it longer",
    ("resource_exhausted", "bulkhead_full"): "it is busy; try again",
}


def hint_for(code: str, reason: str, target: str, details: Any = None) -> str:
    """What a person can do about an error, or nothing. Names in the details that are alike come
    first."""
    said = _HINTS.get((code, reason), "")
    if reason == "connect_failed" and not target:
        return ""  # not a service but the registry, which the message speaks of
    service = target.rpartition(".")[0] or target
    hint = said.format(service=service or "SERVICE", target=target or "SERVICE.METHOD")
    similar = details.get("similar") if isinstance(details, dict) else None
    if isinstance(similar, list) and similar:
        near = " or ".join(str(name) for name in similar[:3])
        hint = f"did you mean {near}? {hint}".rstrip()
    return hint


def plain_error(exc: FanError, target: str) -> str:
    """`deadline_exceeded: greeter.slow: no reply within 300ms (executed: maybe)`."""
    message = (str(exc) or exc.reason).removeprefix(f"{target}: ")  # a callee names it, too
    parts = [exc.code, target, message]
    return f"{': '.join(part for part in parts if part)} (executed: {exc.executed})"


def budget(message: str, timeout: float) -> str:
    """`no reply within 292 ms`, said of the budget that the user gave: `no reply within 300ms`."""
    if not message.startswith("no reply within "):
        return message
    span = f"{timeout:g}s" if timeout >= 1 else f"{timeout * 1000:g}ms"
    return f"no reply within {span}"


def failure(
    *,
    target: str | None,
    code: str,
    reason: str,
    exit: int,
    message: str,
    type: str | None = None,
    details: Any = None,
    executed: str = "no",
    is_retryable: bool = False,
    timing_ms: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The object that `--json` prints for a failure."""
    return {
        "v": 1,
        "ok": False,
        "target": target or None,
        "error": {
            "code": code,
            "reason": reason,
            "exit": exit,
            "message": message,
            "type": type,
            "details": details,
            "executed": executed,
            "retryable": is_retryable,
        },
        "timing_ms": times(timing_ms or {}),
    }


def times(timing_ms: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds to the microsecond: more digits are noise."""
    return {name: round(ms, 3) for name, ms in timing_ms.items()}


def to_json(value: Any) -> bytes:
    """Compact JSON; bytes as `{"$base64": ...}`, NaN and infinities as null."""
    return msgspec.json.encode(wrap_bytes(value))


def wrap_bytes(value: Any) -> Any:
    """`value` with all bytes in it as `{"$base64": ...}`."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        from base64 import b64encode

        return {"$base64": b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: wrap_bytes(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [wrap_bytes(item) for item in value]
    return value


def clean(text: str) -> str:
    """One line, and nothing in it that drives a terminal: what others sent may hold escapes."""
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", text.replace("\n", "\\n"))


def cell(value: Any, between: str = ",") -> str:
    """A value as a cell of a table; `between` joins the items of a list."""
    if value is None:
        return ""
    if isinstance(value, str):
        return clean(value).replace("\t", " ")
    if isinstance(value, (list, tuple)):
        return between.join(cell(item) for item in value)
    return to_json(value).decode()


def tab_separated(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], head: bool) -> str:
    """Rows for cut, awk and while-read loops."""
    names = list(columns)
    lines = ["\t".join(names)] if head else []
    lines += ["\t".join(cell(row.get(name)) for name in names) for row in rows]
    return "\n".join(lines)


#: What stays whole in a table.
TIME = r"\d{4}-\d\d-\d\dT[\d:.]+Z|"
#: A table this many times as wide as the terminal is printed as blocks.
_CROWDED = 1.5
#: Columns of which a word of a table keeps at least as many, if it has them.
_LEAST = 16


def is_crowded(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], width: int) -> bool:
    """Whether a table of the rows would be hard to read on a terminal of `width`: far too wide, or
    with words broken into scraps."""
    natural = least = 0
    for name in columns:
        cells = [cell(row.get(name)) for row in rows]
        natural += 2 + max(len(name), *map(len, cells))
        if all(re.fullmatch(TIME, text) for text in cells):
            least += 2 + max(len(name), *map(len, cells))
        else:
            words = (len(word) for text in cells for word in text.replace(",", ", ").split())
            least += 2 + max(len(name), min(_LEAST, max(words, default=0)))
    return natural > _CROWDED * width or (natural > width + 2 and least > width + 2)


def blocks(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], width: int) -> str:
    """Rows for a narrow terminal: the first column, and below it the others that are not empty.
    What has no spaces, an address say, stays in one piece."""
    return "\n".join(line for row in rows for line in _block(row, columns, width))


def _block(row: Mapping[str, Any], columns: Sequence[str], width: int) -> Iterator[str]:
    from textwrap import wrap

    yield cell(row.get(columns[0]))
    for name in columns[1:]:
        value = row.get(name)
        for item in value if isinstance(value, list) else [value]:
            if text := cell(item):
                yield from wrap(
                    text,
                    width,
                    initial_indent=f"  {name.replace('_', ' '):<12}",
                    subsequent_indent=" " * 14,
                    replace_whitespace=False,
                    break_long_words=False,
                    break_on_hyphens=False,
                )


def to_yaml(value: Any, indent: int = 0) -> str:
    """Block YAML of a JSON value. Scalars that YAML could take for something else are JSON, which
    YAML includes (https://yaml.org/spec/1.2.2/#13-terminology), so that this needs no library."""
    pad = "  " * indent
    if isinstance(value, Mapping) and value:
        lines = []
        for key, item in value.items():
            nested = isinstance(item, (Mapping, list, tuple)) and item
            text = to_yaml(item, indent + 1)
            lines.append(f"{pad}{_scalar(str(key))}:{chr(10) if nested else ' '}{text}")
        return "\n".join(lines)
    if isinstance(value, (list, tuple)) and value:
        return "\n".join(f"{pad}- {to_yaml(item, indent + 1).lstrip()}" for item in value)
    return _scalar(value)


def _scalar(value: Any) -> str:
    is_plain = isinstance(value, str) and _PLAIN_YAML.fullmatch(value)
    if is_plain and value.lower() not in _YAML_WORDS:
        return str(value)
    return to_json(value).decode()
