"""Credentials by reference: `env:NAME` and `file:PATH` stand for a secret that is kept elsewhere.

A reference is a whole value (`redis_url = "env:REDIS_URL"`) or the password of a URL
(`amqp://shop:file:/run/secrets/rabbit@mq/`). It is resolved when what it belongs to is
used, so that nothing that shows settings ever holds the secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

from fan.errors import InvalidArgument

#: A reference, and what stands before it in a URL: `//user:`, or nothing.
_REFERENCE = (
    r"(?P<user>(?<=//)[^/?#@\s:]*:)(?P<inner>env:[A-Za-z_]\w*|file:[^@\s]+)(?=@)"
    r"|\A(?P<whole>env:[A-Za-z_]\w*|file:.+)\Z"
)


def has_reference(text: str) -> bool:
    """Whether any part of a setting is a reference."""
    return _may_hold(text) and re.search(_REFERENCE, text) is not None


def is_reference(text: str) -> bool:
    """Whether all of a setting is one reference."""
    found = re.fullmatch(_REFERENCE, text) if _may_hold(text) else None
    return found is not None and found["whole"] is not None


def anchored(text: str, folder: str) -> str:
    """The same with the paths of files made absolute, from `folder` on."""

    def absolute(reference: str) -> str:
        kind, _, place = reference.partition(":")
        if kind == "file":
            place = os.path.abspath(os.path.join(folder, os.path.expanduser(place)))
        return f"{kind}:{place}"

    return _replaced(text, absolute)


def without_references(text: str) -> tuple[str, Callable[[str], str]]:
    """A URL with a harmless word in the place of each password that is a reference, and the
    function that puts them back."""
    kept: dict[str, str] = {}

    def hide(reference: str) -> str:
        word = f"reference-{len(kept)}"
        kept[word] = reference
        return word

    def restore(shown: str) -> str:
        for word, reference in kept.items():
            shown = shown.replace(word, reference)
        return shown

    return _replaced(text, hide), restore


def resolve_reference(text: str, env: Mapping[str, str]) -> str:
    """A setting itself: every reference replaced by what it stands for, percent-encoded within a
    URL. Raises InvalidArgument (bad_setting) for one that leads nowhere."""
    if is_reference(text):
        return _secret(text, env)
    if not has_reference(text):
        return text
    from urllib.parse import quote

    return _replaced(text, lambda reference: quote(_secret(reference, env), safe=""))


def _replaced(text: str, change: Callable[[str], str]) -> str:
    if not _may_hold(text):
        return text

    def changed(found: re.Match[str]) -> str:
        return (found["user"] or "") + change(found["inner"] or found["whole"])

    return re.sub(_REFERENCE, changed, text)


def _may_hold(text: str) -> bool:
    """Whether it is worth a look: most settings hold none, and no command waits for the pattern."""
    return "env:" in text or "file:" in text


def _secret(reference: str, env: Mapping[str, str]) -> str:
    kind, _, place = reference.partition(":")
    if kind == "env":
        value = env.get(place, "")
        if not value:
            raise _nowhere(f"{reference}: the variable {place} is not set")
        return value
    try:
        with open(place, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, ValueError) as exc:
        raise _nowhere(f"{reference}: {getattr(exc, 'strerror', None) or exc}") from exc


def _nowhere(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="bad_setting")
