"""Values of settings as they are given: text, or what a file holds, to what a field has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from fan.errors import InvalidArgument
from fan.message import MAX_TIMEOUT
from fan.references import anchored, is_reference, without_references

#: Seconds per unit of a duration.
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
#: Fields that may hold credentials.
URLS = ("registry", "amqp_url", "redis_url", "database_url")

_DURATION = r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h)?"
_NAMESPACE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
#: Fields of a number that is no duration.
_SHARES = {"retry_budget", "sample"}
#: Fields that 0 makes no sense for.
_POSITIVE = {
    "timeout", "workers", "max_body", "push_timeout", "deliveries", "lease",
}  # fmt: skip


def parse_duration(text: str) -> float:
    """Seconds of `300ms`, `5s`, `2m`, `1h` or a bare number of seconds. Raises ValueError."""
    match = re.fullmatch(_DURATION, text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration: 300ms, 5s, 2m, 1h, or a number of seconds")
    return float(match[1]) * UNITS[match[2] or "s"]


def converted(name: str, kind: Any, value: Any, folder: str = "") -> Any:
    """A value as the field of that name and type has it: `300ms` is 0.3 seconds, `a, b` a tuple.
    Relative paths in it are relative to `folder`. Raises ValueError for what it cannot be."""
    if isinstance(value, str):
        if kind is float and name not in _SHARES:
            value = parse_duration(value)
        elif kind is not str and "tuple" in str(kind):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        elif kind is bool:
            value = _parse_bool(value)
    value = msgspec.convert(value, kind, strict=not isinstance(value, str))
    return _checked(name, value, folder)  # msgspec.ValidationError is a ValueError


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _checked(name: str, value: Any, folder: str) -> Any:
    """The value with its path made absolute. Raises ValueError for one out of range."""
    if name in URLS:
        value = anchored(value, folder)
        if is_reference(value):
            return value  # what it stands for is checked when it is used
    if name == "registry":
        return normal_registry(value, folder)
    if name == "runtime_dir":
        return os.path.abspath(os.path.join(folder, os.path.expanduser(value))) if value else value
    if name == "database_url" and value.startswith("sqlite:"):
        return normal_registry(value, folder)
    if name == "namespace" and not re.fullmatch(_NAMESPACE, value):
        raise ValueError(f"{value!r} is not a name of letters, digits, '.', '_' and '-'")
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        raise ValueError(f"{value} is below 0")
    if isinstance(value, float) and name not in _SHARES and not value <= MAX_TIMEOUT:
        raise ValueError(f"{value:g} seconds are above {MAX_TIMEOUT:.0f}, which is 23 days")
    if name in _POSITIVE and not value:
        raise ValueError("must be above 0")
    return value


def normal_registry(url: str, folder: str = "") -> str:
    """A registry URL with its path made absolute. Raises InvalidArgument (unknown_scheme) for a
    scheme without a store, ValueError for a URL that is incomplete."""
    scheme, colon, rest = url.partition(":")
    if not colon:
        raise ValueError(
            f"{url!r} is not a registry: sqlite:PATH, memory: or zk://HOST[,HOST]/CHROOT"
        )
    if scheme == "sqlite":
        path = os.path.expanduser(rest.removeprefix("//"))
        if not path or path.endswith("/"):
            raise ValueError(f"{url!r} names no file: sqlite:PATH")
        return f"sqlite:{os.path.abspath(os.path.join(folder, path))}"
    if scheme == "zk":
        from fan.stores.zookeeper_url import normal

        plain, restore = without_references(rest)
        return restore(f"zk:{normal(plain, folder)}")
    if scheme != "memory":
        from fan.plugins import store_names

        known = store_names()
        if scheme not in known:
            raise InvalidArgument(
                f"no store for the registry {url!r}{did_you_mean(scheme, known)}",
                reason="unknown_scheme",
            )
    return url


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`: did you mean 'x'?`, or a list of what there is when nothing is close, or nothing."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name, names, 1, 0.6)
    if close:
        return f": did you mean {close[0]!r}?"
    return f": known are {', '.join(names)}" if 0 < len(names) <= 8 else ""


def bad_setting(message: str) -> InvalidArgument:
    """The error for a setting that cannot be understood."""
    return InvalidArgument(message, reason="bad_setting")
