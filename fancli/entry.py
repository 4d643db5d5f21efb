"""Where the program begins. It imports next to nothing before a Ctrl-C is in good hands: from then
on none of them ends in a traceback, whatever is being imported."""

import _signal as signal  # type: ignore[import-not-found]  # `signal` costs 0.5 ms more, for enums
import os


def run() -> None:
    """The console script, and `python -m fancli`."""
    signal.signal(signal.SIGINT, end_at_once)
    signal.signal(signal.SIGTERM, end_at_once)
    from fancli import main

    main.run()


def end_at_once(number: int, frame: object) -> None:
    """End with the status of a signal: there is nothing to close yet, or any more."""
    os._exit(128 + number)
