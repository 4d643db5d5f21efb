"""The user's editor: a text goes out to it as a file, and comes back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fancli.env import Environment


def write_draft(name: str, text: str, suffix: str) -> str:
    """A new file with the text, for the editor; its path."""
    from tempfile import mkstemp

    safe = "".join(c if c.isalnum() else "-" for c in name)[-40:]
    fd, path = mkstemp(prefix=f"fan-{safe}-", suffix=suffix)
    with open(fd, "w", encoding="utf-8", newline="") as file:
        file.write(f"{text}\n")  # as editors end a text; taken away again
    return path


def run_editor(env: Environment, path: str) -> None:
    """Run $VISUAL or $EDITOR on a file and wait for it. Raises FailedPrecondition (editor_failed)
    where it cannot be run or fails."""
    import shlex
    import signal
    import subprocess

    from fan import FailedPrecondition

    editor = env.vars.get("VISUAL") or env.vars.get("EDITOR") or "vi"
    # A Ctrl-C is the editor's. A handler, since what is ignored would be ignored by it, too.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        # As git does it: the variable is a command line of the shell.
        line = f"{editor} {shlex.quote(path)}"
        status = subprocess.run(
            ["/bin/sh", "-c", line], env=dict(env.vars), check=False,
            stdout=None if env.stdout_is_tty else 2,  # what is piped away is for our result
        ).returncode  # fmt: skip
    except OSError as exc:
        raise FailedPrecondition(
            f"the editor {editor} cannot be run: {exc.strerror}", reason="editor_failed"
        ) from exc
    finally:
        signal.signal(signal.SIGINT, before)
    if status:
        raise FailedPrecondition(
            f"the editor {editor} ended with {status}: nothing was changed", reason="editor_failed"
        )


def is_untouched(path: str, text: str) -> bool:
    """Whether a draft is as it was written: then there is nothing in it to be kept."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read() == f"{text}\n"
    except (OSError, UnicodeDecodeError):
        return False


def discard(path: str) -> None:
    """Remove a draft."""
    os.unlink(path)
