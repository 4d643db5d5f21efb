"""What a watch does for a program that knows nothing of fan: write a file, run a command."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fancli.configs import text_of
from fancli.files import content_of, replace_file

if TYPE_CHECKING:
    from fancli.output import Output

#: `${name}`, `${name:-default}`, and `$${` for `${` itself. A `$name` is left as it is.
_PLACE = re.compile(r"\$(\$)?\{([^{}]*?)(?::-([^{}]*))?\}")

#: Bytes of the longest value that a variable can carry: the kernel takes 128 KiB for one.
_LONGEST = 100_000


def fill_in(template: str, names: tuple[str, ...], values: Mapping[str, Any]) -> str:
    """A template with the values of configs in it. Raises NotFound (no_such_config) for a name
    that is nowhere and has no default."""

    def put(match: re.Match[str]) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match[0][1:]
        found = look_up(name, names, values)
        if found is not None:
            return text_of(found[0])
        if default is not None:
            return str(default)
        from fan import NotFound

        line = template.count("\n", 0, match.start()) + 1
        raise NotFound(
            f"line {line} of the template: no config for ${{{name}}}", reason="no_such_config"
        )

    return _PLACE.sub(put, template)


def look_up(name: str, names: tuple[str, ...], values: Mapping[str, Any]) -> tuple[Any] | None:
    """The value of a name in a template: `value` is all that is watched; else a key, or the rest of
    a key behind a watched prefix, or a member of a watched config, `/` between levels."""
    if name == "value":
        return whole_of(names, values)
    for start in ("", *(each for each in names if each.endswith("/"))):
        if start + name in values:
            return (values[start + name],)
    for each in names:
        found: Any = values.get(each)
        for step in name.split("/"):
            found = found.get(step) if isinstance(found, dict) else None
        if found is not None:
            return (found,)
    return None


def whole_of(names: tuple[str, ...], values: Mapping[str, Any]) -> tuple[Any] | None:
    """The value of the one key that is watched, else a map of all; None where the key is not
    there."""
    if len(names) == 1 and not names[0].endswith("/"):
        return (values[names[0]],) if names[0] in values else None
    return (dict(values),)


class Target:
    """`--out FILE`, with `--render TEMPLATE` or the value itself."""

    def __init__(self, path: str, template: str | None, names: tuple[str, ...]) -> None:
        self._path = path
        self._template = template
        self._names = names

    def write(self, values: Mapping[str, Any]) -> bool:
        """Write the file if it changes, and say whether it did. Raises NotFound where a config is
        not there, FailedPrecondition where the file cannot be written."""
        data = self._text(values).encode()
        if content_of(self._path) == data:
            return False
        replace_file(self._path, data)
        return True

    def _text(self, values: Mapping[str, Any]) -> str:
        if self._template is not None:
            return fill_in(self._template, self._names, values)
        found = whole_of(self._names, values)
        if found is None:
            from fan import NotFound

            raise NotFound(f"no such config: {self._names[0]}", reason="no_such_config")
        return found[0] if isinstance(found[0], str) else f"{text_of(found[0])}\n"


def run_command(
    line: str,
    event: Mapping[str, Any],
    timeout: float,
    out: Output,
    vars: Mapping[str, str],
    names: tuple[str, ...] = ("event", "key", "value", "rev", "gen"),
) -> int:
    """Run a command of the shell for an event, which it gets as JSON on stdin and its members
    `names` as `FAN_EVENT`, `FAN_KEY`, ...; its stdout is our stderr. Its exit status; a command
    that takes longer than `timeout` is killed."""
    import subprocess

    from fancli.render import to_json

    env = dict(vars)
    for name in names:
        env.pop(f"FAN_{name.upper()}", None)
        text = text_of(event[name]) if event.get(name) is not None else ""
        if len(text.encode()) <= _LONGEST and "\0" not in text:
            env[f"FAN_{name.upper()}"] = text
    process = subprocess.Popen(
        ["/bin/sh", "-c", line], stdin=subprocess.PIPE, stdout=2, env=env, process_group=0
    )
    with process:
        try:
            process.communicate(to_json(event) + b"\n", timeout)
        except subprocess.TimeoutExpired:
            out.warn(f"`{line}` took longer than {timeout:g}s and was killed")
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    return process.returncode
