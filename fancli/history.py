"""The lines of `fan shell`, kept for the next time in a file of the user's own, less secrets."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

import msgspec

from fancli.mask import MASK, is_secret, mask_url, mask_value

#: Options whose value is a header or a baggage pair.
_PAIRS = ("-H", "--header", "-B", "--baggage")


def history_file(vars: Mapping[str, str]) -> str:
    """Where lines are kept: `$XDG_STATE_HOME/fan/history`."""
    state = vars.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        home = vars.get("HOME") or os.path.expanduser("~")
        state = os.path.join(home, ".local", "state")
    return os.path.join(state, "fan", "history")


def open_history(path: str) -> bool:
    """Make the file and its folder if need be, for the user alone. Whether it can be written."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return False
    return True


def without_secrets(line: str) -> str:
    """A line as it may be kept: what a name says to be a secret is masked. One without any stays
    letter by letter."""
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that does not end: it was no command
        return mask_url(line)
    kept = [
        _word(word, before, is_inside)
        for word, before, is_inside in zip(words, ["", *words], _depths(words), strict=False)
    ]
    return line if kept == words else " ".join(map(_quoted, kept))


def _quoted(word: str) -> str:
    """A word as `shlex.split` reads it back, in quotes only where it needs them."""
    return word if word and not set(word) & set(" \t\n\r\\'\"") else shlex.quote(word)


def _depths(words: list[str]) -> list[bool]:
    """For each word whether it stands inside of SHON, `[ --a 1 ]`."""
    depth, found = 0, []
    for word in words:
        depth += (word == "[") - (word == "]")
        found.append(depth > 0)
    return found


def _word(word: str, before: str, is_inside: bool) -> str:
    if is_inside:
        is_value = before.startswith("--") and is_secret(before) and not word.startswith("--")
        return MASK if is_value else mask_url(word)
    option, equals, rest = word.partition("=")
    if option in ("--header", "--baggage") and equals:
        return f"{option}={_pair(rest)}"
    if before in _PAIRS:
        return _pair(word)
    if word[:2] in ("-H", "-B") and len(word) > 2:
        return word[:2] + _pair(word[2:])
    if word[:1] in ("{", "["):
        return _document(word)
    if not word.startswith("-") and equals and is_secret(option):
        return f"{option}={MASK}"
    return mask_url(word)


def _pair(text: str) -> str:
    """A header `Name: value` or a pair `name=value`."""
    for sign in (":", "="):
        name, found, _ = text.partition(sign)
        if found and is_secret(name):
            return f"{name}{sign}{' ' * (sign == ':')}{MASK}"
    return mask_url(text)


def _document(text: str) -> str:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return mask_url(text)
    masked = mask_value(value)
    return text if masked == value else msgspec.json.encode(masked).decode()
