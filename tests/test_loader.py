"""What `fan serve MODULE[:CLASS]` says of a service that makes no sense, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fan.errors import InvalidArgument
from fan.loader import load_services

MODULE = """
from fan import Service, rpc

class Fruit(Service):
    name = "fruit"
    {line}
    @rpc
    def price(self) -> int:
        return 1

ready = Fruit()
"""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("name = 'two words'", "'two words' is no service name"),
        ("version = 'banana'", "'banana' is no version"),
        ("depend = {'hard': 'users'}", "depend has 'hard': 'users'"),
        ("secret = lambda self: 1; _secret = rpc(secret)", "_secret cannot be called"),
    ],
)
@pytest.mark.parametrize("what", ["Fruit", "ready"])
def test_a_service_that_makes_no_sense_is_refused_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, says: str, what: str
) -> None:
    module = tmp_path.name  # another for each test
    (tmp_path / f"{module}.py").write_text(MODULE.format(line=line))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument, match=says) as caught:
        load_services([f"{module}:{what}"])
    assert caught.value.reason == "bad_module"
