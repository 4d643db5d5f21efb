"""A program that is run to be shown, on a terminal of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fancli.staged import run_staged

SHOWS = """
import os, sys
print(sys.stdin.read() == "", os.isatty(1), os.isatty(2), os.get_terminal_size(1).columns)
print("talk", file=sys.stderr)
print("x" * 200_000)
raise SystemExit(7)
"""


def test_what_a_program_shows_on_a_terminal_is_had_with_its_status(private: Path) -> None:
    command = [sys.executable, "-c", SHOWS]
    status, shown = run_staged(command, os.environ, cwd=str(private), columns=66)
    assert status == 7
    first, talk, rest = shown.decode().split("\n", 2)
    assert (first, talk) == ("True True True 66", "talk")
    assert rest == "x" * 200_000 + "\n"
