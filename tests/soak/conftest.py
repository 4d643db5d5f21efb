"""The fleet of one run, on a broker of the run's or of its own."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.soak.fleet import Fleet


class Chance(random.Random):
    """Chance whose seed a failed test shows."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._seed = seed

    def __repr__(self) -> str:
        return f"Chance({self._seed})"


@pytest.fixture
def chance() -> random.Random:
    """What is random in a run."""
    return Chance(random.randrange(1 << 32))


@pytest.fixture
def new_fleet(private: Path) -> Iterator[Callable[..., Fleet]]:
    """`new_fleet(bind, **settings)` makes the workers of a service that no other test has."""
    with ExitStack() as stack:

        def new(bind: str, **settings: Any) -> Fleet:
            fleet = Fleet(private, bind, f"soak-{uuid.uuid4().hex[:8]}", settings)
            stack.callback(fleet.close)
            return fleet

        yield new


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Callable[[str], dict[str, Any]]:
    """`broker(scheme)` are the settings of the run's server, or of the private file."""

    def settings(scheme: str) -> dict[str, Any]:
        if scheme == "redis":
            url = request.getfixturevalue("redis_server").url
            return {"queue": scheme, "redis_url": url}
        if scheme == "amqp":
            return {"queue": scheme, "amqp_url": request.getfixturevalue("rabbitmq_server").url}
        return {"queue": "database"}

    return settings
