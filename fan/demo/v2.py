"""Version 2.0.0 of the demo, which greets with another word: `fan serve fan.demo.v2`."""

from __future__ import annotations

from fan.demo.greeter import BaseGreeter


class Greeter(BaseGreeter):
    """Says hi, and shows what a call can do."""

    version = "2.0.0"
    greeting = "Hi"
