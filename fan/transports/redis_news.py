"""Tells the log that a Redis went away and that it is there again, once each: several connections
of a process share its fate, and a log is no place for a loop."""

from __future__ import annotations

import logging


class News:
    """What a process has told of one Redis. Connections that it keeps open say what befalls them,
    in the loop's thread; who cannot connect at all is told by an error."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_told = False

    def __repr__(self) -> str:
        return f"<News of {self._url} {'lost' if self._is_told else 'none'}>"

    def lost(self, why: str) -> None:
        """A connection is gone, and will be opened again."""
        if not self._is_told:
            self._is_told = True
            logging.getLogger("fan").warning(
                "the connection to %s was lost: %s; trying again", self._url, why
            )

    def back(self) -> None:
        """A connection is open."""
        if self._is_told:
            self._is_told = False
            logging.getLogger("fan").warning("%s is there again", self._url)
