"""`python -m fancli`, the same as `fan`."""

from fancli.entry import run

run()
