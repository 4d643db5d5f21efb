"""What surrounds one run of the program: streams, variables, terminals, and whether to use colour.

Everything that looks outside goes through an `Environment`, so that a test can hand in its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO, Literal, TextIO

if TYPE_CHECKING:
    from fancli.keeper import Keeper

ColorMode = Literal["auto", "always", "never"]

#: Columns of a terminal that does not say.
DEFAULT_WIDTH = 80


class Environment:
    """Streams and variables of a run. A stream that the shell closed (`<&-`, `>&-`) is None."""

    def __init__(
        self,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        vars: Mapping[str, str] | None = None,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.vars: Mapping[str, str] = os.environ if vars is None else vars
        self.color_mode: ColorMode = "auto"
        self.show_secrets = False
        #: Whether stderr holds errors only.
        self.is_quiet = False
        #: Whether the result, failures included, is one JSON object.
        self.is_json = False
        #: Seconds since what answers was read, where the registry is down.
        self.stale_age: float | None = None
        #: `service.method`, as soon as it is known, for an error that has no target of its own.
        self.target = ""
        #: Whether what is reached, or not, is a broker.
        self.asks_broker = False
        #: Whether the user says where the service is, so that the registry knows nothing of it.
        self.asks_peer = False
        #: Whether items went out as text, since no schema of the method was at hand.
        self.is_untyped = False
        #: What keeps Apps open from one command to the next; None where there is but one.
        self.keeper: Keeper | None = None
        #: The last result that was printed: a JSON document, or bytes as they are.
        self.last: bytes | None = None
        #: The budget of the command in seconds, for an error that knows only what was left of it.
        self.timeout: float | None = None

    @classmethod
    def of_process(cls) -> Environment:
        """The real one. Reserves descriptors 0 to 2, since a file or socket that got the number of
        a closed stream would receive what is meant for the user."""
        for fd in range(3):
            try:
                os.fstat(fd)
            except OSError:
                os.open(os.devnull, os.O_RDWR)
        return cls(sys.stdin, sys.stdout, sys.stderr)

    @property
    def is_debug(self) -> bool:
        """Whether a traceback may reach the user."""
        return self.vars.get("FAN_DEBUG", "") not in ("", "0")

    @property
    def stdout_is_tty(self) -> bool:
        """Whether a person reads the result."""
        return is_tty(self.stdout)

    @property
    def stderr_is_tty(self) -> bool:
        """Whether a person reads the talk."""
        return is_tty(self.stderr)

    @property
    def is_dumb(self) -> bool:
        """Whether the terminal understands no control sequences."""
        return self.vars.get("TERM", "") == "dumb"

    def wants_color(self, stream: TextIO | None) -> bool:
        """Whether to write colour to `stream`: --color, then NO_COLOR, FORCE_COLOR
        (https://no-color.org, https://force-color.org), then what the stream is."""
        if self.color_mode != "auto":
            return self.color_mode == "always"
        if self.vars.get("NO_COLOR"):
            return False
        if self.vars.get("FORCE_COLOR", "") not in ("", "0"):
            return True
        return is_tty(stream) and not self.is_dumb

    @property
    def width(self) -> int:
        """Columns of the terminal that the result goes to; COLUMNS wins."""
        said = self.vars.get("COLUMNS", "")
        if said.isdecimal() and int(said) > 0:
            return int(said)
        for stream in (self.stdout, self.stderr):
            if stream is not None and is_tty(stream):
                try:
                    return os.get_terminal_size(stream.fileno()).columns or DEFAULT_WIDTH
                except OSError:
                    continue
        return DEFAULT_WIDTH

    def text_width(self, elsewhere: int) -> int:
        """Columns to fill a text to: of the terminal that it is read on, or COLUMNS, else these."""
        return self.width if self.stdout_is_tty or self.vars.get("COLUMNS") else elsewhere

    def read_stdin(self) -> bytes:
        """All of stdin, when the user asked for it (`-`). Raises ValueError when it is closed."""
        if self.stdin is None:
            raise ValueError("stdin is closed")
        stream: BinaryIO = self.stdin.buffer
        return stream.read()


def is_tty(stream: TextIO | None) -> bool:
    """Whether a person is at the other end."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed since
        return False
