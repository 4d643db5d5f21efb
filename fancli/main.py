"""The way in and the way out: runs one command and turns whatever happens into an exit status.

Nothing heavy is imported up here: what is meets no `except` of `main`, and a Ctrl-C during it
prints no object where --json asks for one.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` costs 0.5 ms more, for enums
import _thread
import gc
import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from fancli.entry import end_at_once
from fancli.env import Environment
from fancli.exits import Exit

#: Objects that are made before the first look for garbage. A start makes 20,000 that stay: looking
#: through them after every 700, as Python does, takes 2 ms and finds nothing.
FIRST_LOOK = 60_000

#: Seconds after a signal, and after each other, at which it is made sure that it was heard.
KNOCKS = (0.0, 0.05, 0.5)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. A kind of Ctrl-C, so that whatever lets that through, a handler in this
    very process among it, lets this through too."""


#: What fell into a destructor and has to come again.
_lost: list[type[KeyboardInterrupt]] = []


def run() -> NoReturn:
    """Run the process's command line and end."""
    _put_off_garbage()
    signal.signal(signal.SIGALRM, _on_alarm)
    _have_signals_heard()
    sys.unraisablehook = _on_unraisable
    status = 0
    try:
        status = main()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end_at_once)
    except KeyboardInterrupt as exc:  # between the end of `main` and here
        status = Exit.TERMINATED if isinstance(exc, Terminated) else Exit.INTERRUPTED
    # What is left at this point is interpreter teardown, several milliseconds of it, in which a
    # late Ctrl-C prints a traceback. Everything of ours is closed and flushed by now.
    if threads_are_done():
        os._exit(status)
    sys.exit(status)


def _have_signals_heard() -> None:
    """Wake this thread for every signal, whatever it waits for. The kernel may give a signal to
    any other thread, and this one may be just about to wait: Python's note of it wakes nobody
    then, and a wait without an end has none."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    this = _thread.get_ident()

    def knock() -> None:
        while number := os.read(told, 1)[0]:
            for pause in KNOCKS if number != signal.SIGALRM else ():
                time.sleep(pause)
                signal.pthread_kill(this, signal.SIGALRM)

    _thread.start_new_thread(knock, ())


def _put_off_garbage() -> None:
    """Look for garbage when the start is over, and from then on as ever."""
    usual = gc.get_threshold()

    def go_back(phase: str, info: dict[str, int]) -> None:
        gc.set_threshold(*usual)
        gc.callbacks.remove(go_back)

    gc.callbacks.append(go_back)
    gc.set_threshold(FIRST_LOOK)


def _on_unraisable(unraisable: Any) -> None:
    """What happens in a destructor or a callback of the interpreter goes nowhere. A Ctrl-C that
    fell into one comes again a moment later; of anything else a line is enough."""
    kind = unraisable.exc_type
    if issubclass(kind, KeyboardInterrupt):
        # From a timer: what is raised in here would be ignored, too.
        _lost.append(kind)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
    elif os.environ.get("FAN_DEBUG", "") not in ("", "0"):
        sys.__unraisablehook__(unraisable)
    elif sys.stderr is not None:
        line = f"fan: ignored in {unraisable.object!r}: {kind.__name__}: {unraisable.exc_value}\n"
        with suppress(OSError, ValueError):
            sys.stderr.write(line)


def _on_alarm(signum: int, frame: FrameType | None) -> None:
    """A timer's, or a knock: what it wakes does the rest."""
    if _lost:
        raise _lost.pop()


def threads_are_done() -> bool:
    """Whether nothing but this thread would keep the process alive."""
    threading = sys.modules.get("threading")
    return threading is None or all(
        thread.daemon or thread is threading.main_thread() for thread in threading.enumerate()
    )


def main(args: Sequence[str] | None = None, env: Environment | None = None) -> int:
    """Run the command line `args` (default: the process's) and return the exit status."""
    env = env or Environment.of_process()
    args = text_of(sys.argv[1:]) if args is None else list(args)
    try:
        signal.signal(signal.SIGTERM, _on_sigterm)
        # A child of `&` in a script starts with SIGINT ignored. Who sends it all the same means it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return _run(args, env)
    except Terminated:
        return _interrupted(env, "terminated", Exit.TERMINATED)
    except KeyboardInterrupt:
        return _interrupted(env, "interrupted", Exit.INTERRUPTED)


def text_of(args: Sequence[str]) -> list[str]:
    """The command line as UTF-8, whatever the locale says that it is."""
    if sys.getfilesystemencoding() == "utf-8":
        return list(args)
    return [os.fsencode(arg).decode("utf-8", "surrogateescape") for arg in args]


def _run(args: list[str], env: Environment) -> int:
    instruction = env.vars.get("_FAN_COMPLETE", "")
    if instruction:
        from fancli.tab import answer

        return answer(instruction, env)
    from fancli.group import dispatch
    from fancli.output import Output, StdoutClosed, StdoutFailed

    out = Output(env)
    # A warning, of a broken plug-in say, is a sentence for the user too, not a line of our source.
    warnings.showwarning = lambda message, *where, **more: out.warn(str(message))
    try:
        try:
            return dispatch(args, env)
        except (StdoutClosed, StdoutFailed):
            raise
        except Exception as exc:  # noqa: BLE001  the last resort: one line instead of a traceback
            if env.is_debug:
                import traceback

                out.talk("".join(traceback.format_exception(exc)).rstrip())
            return out.fail(exc)
    except StdoutClosed:
        return _abandon(env, Exit.CLOSED_PIPE)
    except StdoutFailed as exc:
        out.warn(f"cannot write to {exc.place}: {exc}", is_error=True)
        return _abandon(env, Exit.BUG)


def _interrupted(env: Environment, reason: str, status: Exit) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if env.is_json:
        from fancli.output import Output, StdoutClosed, StdoutFailed

        try:
            Output(env).fail_json("cancelled", reason, reason, status)
        except (StdoutClosed, StdoutFailed):
            return _abandon(env, status)
    return status


def _abandon(env: Environment, status: Exit) -> int:
    """Point stdout at nothing, so that the interpreter's own flush at the end cannot fail again."""
    if env.stdout is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, env.stdout.fileno())
        os.close(null)
    return status


def _on_sigterm(signum: int, frame: FrameType | None) -> None:
    raise Terminated
