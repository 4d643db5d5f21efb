"""Virtual hosts of the run's RabbitMQ, so that no two tests share a queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

#: Virtual hosts that are made at once: a command of rabbitmqctl takes seconds, however many.
_BATCH = 40
_MAKE = """
[begin
  V = <<"w-", (integer_to_binary(N))/binary>>,
  rabbit_vhost:add(V, <<"test">>),
  rabbit_auth_backend_internal:set_permissions(
    <<"guest">>, V, <<".*">>, <<".*">>, <<".*">>, <<"test">>)
end || N <- lists:seq({}, {})], ok.
"""


@pytest.fixture(scope="session")
def new_vhost(rabbitmq_server: Any) -> Callable[[], str]:
    """The URL of a virtual host that nobody else has."""
    made = used = 0

    def new() -> str:
        nonlocal made, used
        if not hasattr(rabbitmq_server, "ctl"):
            pytest.skip("only a private RabbitMQ lets a test make virtual hosts")
        if used == made:
            rabbitmq_server.ctl("eval", _MAKE.format(made + 1, made + _BATCH))
            made += _BATCH
        used += 1
        return f"{rabbitmq_server.url}w-{used}"

    return new


@pytest.fixture(scope="session")
def shared_vhost(new_vhost: Callable[[], str]) -> str:
    """The URL of a virtual host for tests that delete their queues."""
    return new_vhost()
