"""Version 1.0.0 of the demo: `fan serve fan.demo.v1`."""

from __future__ import annotations

from fan.demo.greeter import BaseGreeter


class Greeter(BaseGreeter):
    """Says hello, and shows what a call can do."""

    version = "1.0.0"
