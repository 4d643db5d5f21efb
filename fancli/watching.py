"""Changes of what is registered, as events: the difference between two readings of the registry."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fan import App, ServiceInfo
    from fancli.options import Common

Facts = dict[tuple[str, ...], dict[str, Any]]


def watch_services(common: Common, service: str, *, once: bool) -> Iterator[dict[str, Any]]:
    """What is there now as events "present", then "came", "changed" and "gone" as it happens."""
    from fan import App

    changes: SimpleQueue[None] = SimpleQueue()
    with App(settings=common.load().settings, name="fan") as app:
        stop = app.discovery.watch(lambda: changes.put(None))
        try:
            known: Facts = {}
            is_first = True
            while True:
                changes.get()
                now = facts(app, service)
                yield from differences(known, now, is_first)
                known, is_first = now, False
                if once:
                    return
        finally:
            stop()


def facts(app: App, service: str) -> Facts:
    """Everything that can change, by what it is."""
    found: Facts = {}
    for info in app.discovery.services():
        if not service or info.name == service:
            found.update(_facts_of(info))
    return found


def _facts_of(info: ServiceInfo) -> Facts:
    found: Facts = {}
    for version in info.interfaces:
        found["version", info.name, version] = {"service": info.name, "version": version}
    if info.route is not None:
        weights = {version: weight for version, weight in info.route.versions.items() if weight}
        found["route", info.name] = {"service": info.name, "versions": weights}
    for instance in info.instances:
        found["instance", info.name, instance.id] = {
            "service": info.name,
            "version": instance.version,
            "instance": instance.id,
            "state": instance.state,
            "addresses": [address.url for address in instance.addresses],
            "unmet": list(instance.unmet),
        }
    return found


def differences(before: Facts, now: Facts, is_first: bool) -> Iterator[dict[str, Any]]:
    """The events that lead from one reading to the next."""
    for key, fact in now.items():
        if key not in before:
            event = "present" if is_first else "came"
            yield {"event": event, "kind": key[0], **fact}
        elif before[key] != fact:
            yield {"event": "changed", "kind": key[0], **fact}
    for key, fact in before.items():
        if key not in now:
            yield {"event": "gone", "kind": key[0], **fact}
