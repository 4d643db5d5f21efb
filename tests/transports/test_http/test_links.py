"""The idle connections of a client: none outlives its server by much."""

from __future__ import annotations

from typing import Any

from fan.transports.http import HttpTransport


def test_connections_to_servers_that_went_away_are_closed_at_the_next_connection(
    site: Any,
) -> None:
    servers = [HttpTransport().serve("", site.methods) for _ in range(3)]
    for server in servers:
        assert site.transport.call(server.address, site.ask("hello")).code == "ok"
    assert site.transport._links.idle == 3
    for server in servers:
        server.close()
    assert site.call("hello").code == "ok"
    assert site.transport._links.idle == 1


def test_a_connection_put_back_during_a_sweep_is_kept(site: Any) -> None:
    links = site.transport._links
    assert site.call("hello").code == "ok"
    (origin,) = links._idle
    link = links.take(origin)
    links.sweep()  # takes the empty list away
    links.give(origin, link)
    assert links.take(origin) is link
    link.close()


def test_a_connection_put_back_after_the_close_is_closed(site: Any) -> None:
    links = site.transport._links
    assert site.call("hello").code == "ok"
    (origin,) = links._idle
    link = links.take(origin)
    site.transport.close()
    links.give(origin, link)
    assert links.idle == 0
    assert link.sock.fileno() < 0
