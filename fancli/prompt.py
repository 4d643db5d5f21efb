"""The line that is typed into `fan shell`: editing, history and completion; the only file that
knows prompt_toolkit."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.output import create_output
from prompt_toolkit.output.color_depth import ColorDepth

from fancli.history import history_file, open_history, without_secrets
from fancli.session import END, Session, is_target

if TYPE_CHECKING:
    from fancli.env import Environment


class Prompt:
    """Reads lines from the terminal."""

    def __init__(self, session: Session, env: Environment) -> None:
        path = history_file(env.vars)
        history: History = _Kept(path) if open_history(path) else InMemoryHistory()
        # What is typed is talk: a result that is piped away stays alone there.
        stream = env.stdout if env.stdout_is_tty else env.stderr
        has_color = env.wants_color(stream)
        self._prompt: PromptSession[str] = PromptSession(
            completer=_Words(session),
            complete_while_typing=False,
            history=history,
            enable_history_search=True,
            output=create_output(stdout=stream),
            color_depth=None if has_color else ColorDepth.DEPTH_1_BIT,
        )

    def read(self) -> str:
        """The next line. Raises EOFError at its end, KeyboardInterrupt for a line given up."""
        told = signal.set_wakeup_fd(-1)  # the prompt's loop takes it, and leaves none behind
        usual, seen = signal.getsignal(signal.SIGTERM), threading.Event()
        try:
            return self._prompt.prompt("fan> ", pre_run=lambda: self._mind_sigterm(seen))
        finally:
            signal.signal(signal.SIGTERM, usual)
            signal.set_wakeup_fd(told, warn_on_full_buffer=False)
            if seen.is_set():
                signal.raise_signal(signal.SIGTERM)

    def _mind_sigterm(self, seen: threading.Event) -> None:
        """End the prompt at a SIGTERM. What its usual handler raises would end whichever part of
        the prompt is at work just then, and not without a word."""

        def end() -> None:
            seen.set()
            with suppress(Exception):  # it has ended by itself
                self._prompt.app.exit(result="")

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)


class _Kept(FileHistory):
    """History whose secrets stay out of the file; in the session a line can be repeated."""

    def store_string(self, string: str) -> None:
        super().store_string(without_secrets(string))


class _Words(Completer):
    """What a TAB of a shell outside offers, too."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """The words that may stand at the cursor; none where anything fails: a TAB is silent."""
        try:
            yield from self._found(document.text_before_cursor)
        except Exception:  # noqa: BLE001  a broken plug-in or registry must not litter the prompt
            return

    def _found(self, line: str) -> Iterator[Completion]:
        from click.shell_completion import split_arg_string

        from fancli.tab import candidates

        words = split_arg_string(line)
        word = "" if not line or line[-1].isspace() else words.pop()
        words = words[1:] if words[:1] == ["fan"] else words
        env, root = self._session.environment(), self._session.root
        find: Callable[[list[str]], list[Any]] = lambda args: candidates(root, env, args, word)  # noqa: E731
        if words:
            found = find(["call", *words] if is_target(words[0], root) else words)
        else:
            found = [*find([]), *(find(["call"]) if not word.startswith("-") else [])]
            yield from (_completion(each, word) for each in END if each.startswith(word))
        for item in found:
            if item.type in ("plain", "part"):
                yield _completion(item.value, word, item.help or "")


def _completion(value: str, word: str, help: str = "") -> Completion:
    return Completion(value, start_position=-len(word), display_meta=help.partition("\n")[0])
