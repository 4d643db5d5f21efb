"""One run of `fan shell`: its lines as commands, in one process and over connections kept open.

A line is a command of `fan` without the word `fan`, or a call: `greeter.hello name=Ada`. `_` is the
last result, and `_.a[0]` a part of it, also within a line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fancli.env import Environment
from fancli.exits import Exit
from fancli.group import Root, dispatch, root_group
from fancli.keeper import Keeper
from fancli.output import Output, StdoutClosed, StdoutFailed
from fancli.params import Usage

#: `_`, `_.name`, `_[0].name`.
LAST = re.compile(r"_((?:\.[^.\[\]=]+|\[[^\]]+\])*)")
_ITEM = re.compile(r"(?P<key>.*?)(?P<sign>:?=)(?P<value>_.*)", re.DOTALL)
END = ("exit", "quit")


class Session:
    """Runs lines, each with the options that stand for `all`. `last` is the last result, `status`
    the exit status of the last line."""

    def __init__(
        self, env: Environment, vars: Mapping[str, str], keeper: Keeper, all: Sequence[str] = ()
    ) -> None:
        self._env = env
        self._vars = vars
        self._keeper = keeper
        self._all = all
        self.root: Root = root_group()
        self.has_last = False
        self.last: Any = None
        self.status: int = Exit.OK

    def environment(self) -> Environment:
        """What surrounds one line: as at the start of the shell, and not as the line before left
        it."""
        fresh = Environment(self._env.stdin, self._env.stdout, self._env.stderr, self._vars)
        fresh.color_mode = self._env.color_mode
        fresh.show_secrets = self._env.show_secrets
        fresh.is_quiet = self._env.is_quiet
        fresh.is_json = self._env.is_json
        fresh.keeper = self._keeper
        return fresh

    def run(self, line: str) -> bool:
        """Run one line; what fails is reported as ever. False for a line that ends the shell.
        Raises StdoutClosed and StdoutFailed, and KeyboardInterrupt."""
        env = self.environment()
        out = Output(env)
        try:
            words = self.words(line)
            if words and words[0] in END and len(words) == 1:
                return False
            if words:
                self.status = self._run(words, env, out)
        except (StdoutClosed, StdoutFailed):
            raise
        except Exception as exc:  # noqa: BLE001  as `main` does: one line instead of a traceback
            if env.is_debug:
                import traceback

                out.talk("".join(traceback.format_exception(exc)).rstrip())
            self.status = out.fail(exc)
        if env.last is not None and self.status in (Exit.OK, Exit.PARTIAL):
            self._keep(env.last)
        return True

    def words(self, line: str) -> list[str]:
        """The words of a line, `_` replaced, with `call` in front of a target. Raises Usage."""
        if line.lstrip().startswith("#"):
            return []
        try:
            words = shlex.split(line)
        except ValueError as exc:
            raise Usage(f"the line does not end: {str(exc).lower()}") from None
        if words[:1] == ["fan"]:
            words = words[1:]
        if not words or LAST.fullmatch(words[0]):
            return words
        words = words[:1] + [self._filled(word) for word in words[1:]]
        return ["call", *words] if is_target(words[0], self.root) else words

    def _run(self, words: list[str], env: Environment, out: Output) -> int:
        if (part := LAST.fullmatch(words[0])) is not None:
            out.object(self._part(part[1], words[0]))
            env.last = None
            return Exit.OK
        if words[0] == "shell":
            raise Usage("this is a shell already", "exit, or Ctrl-D")
        return dispatch([*self._all, *words], env)

    def _keep(self, data: bytes) -> None:
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError):
            value = data.decode("utf-8", "replace").removesuffix("\n")
        if isinstance(value, dict) and value.get("ok") is True and "result" in value:
            value = value["result"]  # what --json puts around it
        self.has_last, self.last = True, value

    def _filled(self, word: str) -> str:
        """A word with the last result in the place of `_`: as JSON, or a text as it is."""
        if (whole := LAST.fullmatch(word)) is not None:
            return _json(self._part(whole[1], word))
        item = _ITEM.fullmatch(word)
        part = LAST.fullmatch(item["value"]) if item is not None else None
        if item is None or part is None or word.startswith("-"):
            return word
        value = self._part(part[1], item["value"])
        if item["sign"] == "=" and isinstance(value, str):
            return f"{item['key']}={value}"
        return f"{item['key']}:={_json(value)}"

    def _part(self, path: str, word: str) -> Any:
        from fancli.paths import Missing, parse_path, part_of

        if not self.has_last:
            raise Usage(f"{word}: there is no result yet")
        try:
            return part_of(self.last, parse_path(path))
        except Missing:
            raise Usage(f"{word}: the last result has no such part") from None


def is_target(word: str, root: Root) -> bool:
    """Whether a line that begins with this word is a call: `greeter.hello`, `greeter/hello`."""
    return (
        word not in root.table
        and not word.startswith("-")
        and any(sign in word.partition("@")[0] for sign in (".", "::", "/"))
    )


def _json(value: Any) -> str:
    from fancli.render import to_json

    return to_json(value).decode()
