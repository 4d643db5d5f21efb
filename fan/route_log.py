"""The generations of routes, for who follows them (`following.Follower`)."""

from __future__ import annotations

from fan.model import Route
from fan.readings import ROUTE, decode_route, safely
from fan.stores.base import Entry, Head, Store


def all_routes(store: Store, deadline: float) -> tuple[Head, dict[str, Route | None]]:
    """All routes, and the head that they are of."""
    cut = store.read(prefix=ROUTE, deadline=deadline)
    found = {name: safely(decode_route, r.body or b"") for name, r in cut.objects.items()}
    return cut.head, {name.removeprefix(ROUTE): route for name, route in found.items()}


def routes_in(store: Store, entry: Entry, deadline: float) -> dict[str, Route | None] | None:
    """The routes that a generation changed; None where it changed none."""
    found = {}
    for diff in entry.diff:
        if diff.object.startswith(ROUTE):
            body = None
            if diff.after:
                body = store.revision(diff.object, diff.after, deadline=deadline).body
            found[diff.object.removeprefix(ROUTE)] = safely(decode_route, body or b"")
    return found or None
