"""The only file that prints. stdout is the result, stderr is talk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TextIO

from fancli.exits import Exit, exit_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from fan import FanError
    from fancli.env import Environment

Format = Literal["table", "json", "yaml", "name"]

#: Colours of words in tables: legible on light and dark backgrounds.
_STYLES = {"up": "green", "ok": "green", "starting": "yellow", "draining": "yellow", "down": "red"}


class StdoutClosed(Exception):
    """The reader of stdout went away (`| head -1`)."""


class StdoutFailed(Exception):
    """stdout, or the file that stands for it, cannot be written: a full disk, or closed by the
    shell."""

    def __init__(self, why: str, place: str = "stdout") -> None:
        super().__init__(why)
        self.place = place


class Output:
    """Results, tables, warnings and failures on the streams of one Environment."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        #: Whether the line on stderr is one that comes and goes.
        self._is_shown = False

    # --- stdout ---

    def write(self, data: bytes) -> None:
        """A result as it is, flushed. Raises StdoutClosed, StdoutFailed."""
        self.env.last = data
        self._put(data)

    def _put(self, data: bytes) -> None:
        stream = self.env.stdout
        if stream is None:
            raise StdoutFailed("it is closed")
        try:
            _write(stream, data)
        except BrokenPipeError as exc:
            raise StdoutClosed from exc
        except (OSError, ValueError) as exc:
            raise StdoutFailed(getattr(exc, "strerror", None) or str(exc)) from exc

    def text(self, text: str) -> None:
        """A line, or several. Piped it is UTF-8; a terminal gets what it can show."""
        line = f"{text}\n"
        encoding = (getattr(self.env.stdout, "encoding", None) or "utf-8").lower()
        if self.env.stdout_is_tty and encoding not in ("utf-8", "utf8"):
            self._put(line.encode(encoding, "backslashreplace"))
        else:
            self._put(line.encode("utf-8", "surrogateescape"))

    def json(self, body: bytes) -> None:
        """A JSON document: on a terminal indented and coloured, else in one line, which --json
        leaves without colour whatever is asked for: it is for programs."""
        import msgspec

        is_tty = self.env.stdout_is_tty
        text = msgspec.json.format(body, indent=2 if is_tty else -1).decode()
        has_color = self.env.wants_color(self.env.stdout) and (is_tty or not self.env.is_json)
        self.text(self._highlight(text) if has_color else text)
        self.env.last = body

    def check_reader(self) -> None:
        """Raise StdoutClosed when the reader of a pipe is gone: who writes seldom would not notice
        before the next time."""
        from select import POLLERR, poll

        if self.env.stdout is None or self.env.stdout_is_tty:
            return
        waiting = poll()
        try:
            waiting.register(self.env.stdout.fileno(), 0)
        except (OSError, ValueError):  # no file, as in a test
            return
        if any(event & POLLERR for _, event in waiting.poll(0)):
            raise StdoutClosed

    def object(self, value: Any) -> None:
        """A value as a JSON document."""
        from fancli.render import to_json

        self.json(to_json(self._marked(value)))

    def _marked(self, value: Any) -> Any:
        return {**value, **self.marks} if isinstance(value, dict) else value

    @property
    def marks(self) -> dict[str, Any]:
        """What a result says of itself when it is old, for its JSON object."""
        age = self.env.stale_age
        return {} if age is None else {"stale": True, "age_s": round(age, 3)}

    def line(self, value: Any) -> None:
        """A value as one line of NDJSON, on a terminal too."""
        from fancli.render import to_json

        self.text(to_json(value).decode())

    def rows(
        self,
        rows: Sequence[Mapping[str, Any]],
        columns: Sequence[str],
        format: Format = "table",
        *,
        wants_head: bool = False,
    ) -> None:
        """A list: aligned with a head on a terminal, else separated by tabs; or as `format` says.
        Columns are keys of the rows; `name` prints the first, each value once."""
        from fancli import render

        if format == "json":
            for row in rows:
                self.line(self._marked(row))
        elif not rows:
            return
        elif format == "yaml":
            self.text(render.to_yaml(list(rows)))
        elif format == "name":
            self.text("\n".join(dict.fromkeys(render.cell(row[columns[0]]) for row in rows)))
        elif self.env.stdout_is_tty:
            self.text(self.table(rows, columns))
        else:
            self.text(render.tab_separated(rows, columns, wants_head))

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
        """A list as it is shown on a terminal; empty without rows."""
        from fancli import render

        if not rows:
            return ""
        if render.is_crowded(rows, columns, self.env.width):
            return render.blocks(rows, columns, self.env.width)
        return self._table(rows, columns)

    # --- stderr ---

    def talk(self, text: str) -> None:
        """A line for the person. A stderr that is gone is nobody's failure."""
        if self.env.stderr is None:
            return
        self.progress("")
        try:
            _write(self.env.stderr, f"{text}\n".encode("utf-8", "surrogateescape"))
        except (OSError, ValueError):
            self.env.stderr = None

    def progress(self, text: str) -> None:
        """A line that replaces itself, on a terminal only; the empty one takes it away."""
        env = self.env
        if env.stderr is None or not (text or self._is_shown):
            return
        if env.is_quiet or env.is_json or env.is_dumb or not env.stderr_is_tty:
            return
        self._is_shown = bool(text)
        try:
            _write(env.stderr, f"\r\x1b[K{text}".encode())
        except (OSError, ValueError):
            env.stderr = None

    def paint(self, text: str, *, on_stdout: bool = False) -> None:
        """Text as it is, on a terminal: for what is redrawn in place."""
        if on_stdout:
            self._put(text.encode("utf-8", "surrogateescape"))
        elif self.env.stderr is not None:
            try:
                _write(self.env.stderr, text.encode("utf-8", "surrogateescape"))
            except (OSError, ValueError):
                self.env.stderr = None

    def note(self, text: str) -> None:
        """Talk that -q silences."""
        if not self.env.is_quiet:
            self.talk(text)

    def warn(self, text: str, *, is_error: bool = False) -> None:
        """`fan: text`; a warning unless it is the reason for a failure."""
        if is_error or not self.env.is_quiet:
            mark = "fan:"
            if self.env.wants_color(self.env.stderr):
                mark = f"\x1b[{'1;31' if is_error else '1;33'}m{mark}\x1b[0m"
            self.talk(f"{mark} {text}")

    def hint(self, text: str) -> None:
        """The line that says what to do; within `fan shell` without the word `fan`."""
        if text and self.env.keeper is not None:
            text = re.sub(r"\bfan (?=[a-z])", "", text.replace("fan --help", "help"))
        if text:
            self.note(f"hint: {text}")

    def ask(self, question: str) -> bool:
        """Whether a person says yes to what cannot be undone; without a terminal for both question
        and answer nobody is asked, and it is yes."""
        from fancli.env import is_tty

        if not (is_tty(self.env.stdin) and self.env.stderr_is_tty):
            return True
        assert self.env.stdin is not None
        assert self.env.stderr is not None
        _write(self.env.stderr, f"{question} [y/N] ".encode())
        return self.env.stdin.readline().strip().lower() in ("y", "yes")

    # --- failures ---

    def fail(self, exc: BaseException) -> Exit:
        """Report a failure, in one line or as JSON, and say with which status to exit."""
        import click

        from fan import FanError

        if isinstance(exc, FanError):
            return self._fan_error(exc)
        if isinstance(exc, click.ClickException):
            return self._usage(exc)
        from fancli.render import clean

        text = clean(f"{type(exc).__name__}: {exc}")
        if self.env.is_json:
            return self.fail_json("internal", "bug", text, Exit.BUG, executed="maybe")
        self.warn(f"bug: {text}", is_error=True)
        self.hint("FAN_DEBUG=1 shows where")
        return Exit.BUG

    def fail_json(
        self,
        code: str,
        reason: str,
        message: str,
        status: Exit,
        *,
        executed: Literal["no", "maybe"] = "maybe",
    ) -> Exit:
        """Report a failure that is no FanError as the object that `--json` promises."""
        from fancli.render import failure

        self.object(
            failure(
                target=self.env.target,
                code=code,
                reason=reason,
                exit=status,
                message=message,
                executed=executed,
            )
        )
        return status

    def _fan_error(self, exc: FanError) -> Exit:
        from fancli import render
        from fancli.mask import mask_url

        status = exit_of(exc.code, exc.reason, exc.executed)
        target = exc.target or self.env.target
        if exc.reason == "client_timer" and self.env.timeout is not None:
            # A transport knows what was left of the budget; the user typed the whole.
            exc.message = render.budget(exc.message, self.env.timeout)
        if self.env.is_json:
            self.object(self.failure_of(exc, status))
            return status
        line = render.clean(render.plain_error(exc, target))
        self.warn(line if self.env.show_secrets else mask_url(line), is_error=True)
        similar = None if "did you mean" in line else exc.details
        reason = exc.reason
        if reason == "connect_failed" and (self.env.asks_broker or self.env.asks_peer):
            reason = "broker" if self.env.asks_broker else "peer"
        hint = render.hint_for(exc.code, reason, target, similar)
        if exc.reason == "bad_signature" and "got str" in line and self.env.is_untyped:
            hint = "NAME:=3 is JSON; NAME=3 is text where the method's schema is not at hand"
        self.hint(render.clean(hint))
        return status

    def failure_of(self, exc: FanError, status: Exit) -> dict[str, Any]:
        """The object of `--json` for an error."""
        from fancli.mask import mask_url
        from fancli.render import failure

        return failure(
            target=exc.target or self.env.target,
            code=exc.code,
            reason=exc.reason,
            exit=status,
            message=exc.message if self.env.show_secrets else mask_url(exc.message),
            type=exc.type,
            details=exc.details,
            executed=exc.executed,
            is_retryable=exc.is_retryable,
            timing_ms=getattr(exc, "timing_ms", None),
        )

    def _usage(self, exc: Any) -> Exit:
        from fancli.params import usage_text

        message, hint, help = usage_text(exc)
        if self.env.is_json:
            return self.fail_json("invalid_argument", "usage", message, Exit.USAGE, executed="no")
        if help:
            self.talk(help)
        else:
            self.warn(f"usage: {message}", is_error=True)
            self.hint(hint)
        return Exit.USAGE

    # --- terminals: the only place that knows rich ---

    def _console(self) -> tuple[Console, Any]:
        from io import StringIO

        from rich.console import Console

        buffer = StringIO()
        has_color = self.env.wants_color(self.env.stdout)
        return Console(
            file=buffer,
            width=self.env.width,
            force_terminal=has_color,
            color_system="standard" if has_color else None,
            no_color=not has_color,
            legacy_windows=False,
            _environ={},
        ), buffer

    def _render(self, *what: RenderableType, **how: Any) -> str:
        console, buffer = self._console()
        console.print(*what, **how)
        return str(buffer.getvalue()).rstrip("\n")

    def _highlight(self, pretty: str) -> str:
        from rich.highlighter import JSONHighlighter
        from rich.text import Text

        text = Text(pretty, no_wrap=True)
        JSONHighlighter().highlight(text)
        return self._render(text, soft_wrap=True)

    def _table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
        from rich.table import Table
        from rich.text import Text

        from fancli.render import TIME, cell

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in columns:
            # A time stays whole.
            is_time = all(re.fullmatch(TIME, cell(row.get(name))) for row in rows)
            table.add_column(name.upper().replace("_", " "), overflow="fold", no_wrap=is_time)
        for row in rows:
            cells = [cell(row.get(name), ", ") for name in columns]
            table.add_row(*(Text(text or "-", style=_STYLES.get(text, "")) for text in cells))
        return "\n".join(line.rstrip() for line in self._render(table).split("\n"))


def _write(stream: TextIO, data: bytes) -> None:
    buffer: BinaryIO | None = getattr(stream, "buffer", None)
    if buffer is None:  # a StringIO of a test
        stream.write(data.decode("utf-8", "replace"))
    else:
        buffer.write(data)
        buffer.flush()
    stream.flush()
