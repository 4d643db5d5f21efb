"""The cursor of a watch in a file: where a later run goes on."""

from __future__ import annotations

import os

from fancli.files import replace_file
from fancli.params import Usage


class CursorFile:
    """`--cursor-file PATH`: one line, replaced as a whole. A missing or empty file is no cursor."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._kept = ""

    def read(self) -> str:
        """The cursor, empty for none. Raises Usage for a file that cannot be read."""
        try:
            with open(self._path, encoding="utf-8") as file:
                self._kept = file.read().strip()
        except FileNotFoundError:
            folder = os.path.dirname(os.path.abspath(self._path))
            if not os.path.isdir(folder):
                raise Usage(f"--cursor-file: there is no folder {folder!r}") from None
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
            raise Usage(f"--cursor-file: cannot read {self._path!r}: {why}") from None
        return self._kept

    def store(self, cursor: str) -> None:
        """Keep a cursor, once everything up to it was handled. Raises FailedPrecondition."""
        if cursor and cursor != self._kept:
            replace_file(self._path, f"{cursor}\n".encode())
            self._kept = cursor
