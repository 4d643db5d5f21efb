"""`fan discover describe` for a person: in lines that fit, and nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from fan import Interface
from fancli.describing import interface_text

if TYPE_CHECKING:
    from tests.cli.conftest import Demo, Fan, Ran


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize("target", ["greeter", "greeter.hello", "greeter.add", "greeter.slow"])
def test_a_description_fits_the_terminal_and_says_the_same_when_piped(
    fan: Fan, on_terminal: Callable[..., Ran], demo: Demo, target: str, columns: int
) -> None:
    shown = on_terminal("discover", "describe", target, columns=columns).stdout
    assert max(map(len, shown.splitlines())) <= columns
    assert shown.split() == fan("discover", "describe", target).stdout.split()


def test_documentation_is_filled_its_examples_stay_and_nothing_drives_the_terminal() -> None:
    doc = "Sells fruit and nuts.\n\n    shop.price(fruit)  # a line of code\n\n\x1b[31mRed."
    assert interface_text(Interface(service="shop", version="1.0.0", doc=doc), 20).splitlines() == [
        "shop 1.0.0",
        "  Sells fruit and",
        "  nuts.",
        "",
        "      shop.price(fruit)  # a line of code",
        "",
        "  \\x1b[31mRed.",
    ]
