"""Answers held against each other: what of them counts, who gave them, and a diff of the two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from fancli.answers import as_value

if TYPE_CHECKING:
    from fan import FanError


#: Codes of a callee that has looked at the request, and refused it.
_REFUSALS = frozenset({"invalid_argument", "unimplemented", "permission_denied", "unauthenticated"})


def has_answered(error: FanError) -> bool:
    """Whether an error is somebody's answer, which may be compared with another's."""
    return error.executed == "yes" or error.code in _REFUSALS


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """What of the object of an answer is compared: its result, or what its error says."""
    found = as_value(found)
    if found.get("ok"):
        return {"result": found.get("result")}
    error = found.get("error") or {}
    return {"error": {n: error.get(n) for n in ("code", "reason", "type", "message", "details")}}


def label_of(found: dict[str, Any], name: str) -> str:
    """Who answered: instance and version where they are known, else `name`."""
    version = found.get("version")
    return " ".join(filter(None, (found.get("instance") or name, version)))


def unified(left: dict[str, Any], right: dict[str, Any], left_name: str, right_name: str) -> str:
    """Two of what `comparable` gives as a unified diff of their JSON."""
    from difflib import unified_diff

    lines = unified_diff(_pretty(left), _pretty(right), left_name, right_name, lineterm="", n=2)
    return "\n".join(lines)


def _pretty(value: dict[str, Any]) -> list[str]:
    shown = value.get("result", value) if "error" not in value else value
    return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode().splitlines()
