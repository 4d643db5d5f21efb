"""Keeping drivers from filling the log of a program that never asked for them, without touching the
level of anybody's logger: what the program itself does with the same library is logged as ever."""

from __future__ import annotations

import logging
import threading

_here = threading.local()


class _Ours(logging.Filter):
    """Drops what is logged in a thread of ours, less what is critical."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.CRITICAL or not getattr(_here, "is_quiet", False)


_ours = _Ours()


def quieten(*loggers: str) -> None:
    """Have the loggers of those names drop what this thread logs, for as long as it runs."""
    _here.is_quiet = True
    for name in loggers:
        logging.getLogger(name).addFilter(_ours)
