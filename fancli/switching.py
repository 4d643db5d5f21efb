"""What the commands share that change what is routed: their options, and what they tell."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from fancli.configs import shown, text_of
from fancli.exits import Exit, exit_of
from fancli.mask import mask_url
from fancli.options import Common

if TYPE_CHECKING:
    from fan import Consumer, Switched, Tally, Versions
    from fancli.writes import Writing

#: A weight of the whole, in basis points.
WHOLE = 10_000


@contextmanager
def opened(common: Common, service: str = "") -> Iterator[tuple[Versions, float]]:
    """The versions, and the deadline of the command. `service` is what an error in JSON is
    about."""
    from fan import Versions, plugins

    if common.env.is_json:
        common.env.target = service
    settings = common.load().settings
    deadline = time.monotonic() + settings.timeout
    with plugins.open_store(settings.registry_url, settings.namespace, settings) as store:
        yield Versions(lambda: store, timeout=settings.timeout), deadline


def undo_line(common: Common, gen: int) -> str:
    """The command that undoes a generation."""
    line = f"fan version rollback {gen}{common.again}"
    return line if common.env.show_secrets else mask_url(line)


def report(common: Common, writing: Writing, done: Switched) -> int:
    """Tell what a change of routes came to."""
    is_dry = writing.how.dry_run
    for warning in done.warnings:
        common.out.warn(warning)
    undo = None
    if done.is_changed and not is_dry and not done.rolled_back:
        undo = undo_line(common, done.gen)
    status = Exit.OK
    if done.failure is not None:
        status = exit_of(done.failure.code, done.failure.reason, done.failure.executed)
    if common.env.is_json:
        told = {
            "changed": done.is_changed,
            "gen": done.gen,
            "op": done.op or None,
            "changes": [change(common, done.gen, step) for step in done.steps],
            "undo": undo,
            "confirmed": tally_object(done.confirmed),
        }
        more: dict[str, Any] = {"dry_run": True} if is_dry else {}
        more |= {"rolled_back": done.rolled_back} if done.rolled_back else {}
        more |= {"undoes": done.undoes.gen} if done.undoes is not None else {}
        _object(common, {**told, **more}, done, status)
        return status
    if is_dry:
        if done.undoes is not None:
            common.out.note(f"undoes {author(done.undoes)}")
        for step in done.steps:
            common.out.text(line(common, step))
        if not done.steps:
            common.out.note("nothing would change")
        return status
    if not done.is_changed:
        common.out.note(f"unchanged, generation {done.gen}")
        return status
    tell_tally(common, done.confirmed)
    return status if done.failure is None else common.out.fail(done.failure)


def report_wait(common: Common, done: Switched) -> int:
    """Tell how the subscribers of a generation stand."""
    failure = done.failure
    status = exit_of(failure.code, failure.reason, failure.executed) if failure else Exit.OK
    if common.env.is_json:
        _object(common, {"gen": done.gen, "confirmed": tally_object(done.confirmed)}, done, status)
        return status
    tell_tally(common, done.confirmed)
    return status if failure is None else common.out.fail(failure)


def _object(common: Common, told: dict[str, Any], done: Switched, status: Exit) -> None:
    whole = {"v": 1, "ok": True, **told}
    if done.failure is not None:
        failed = common.out.failure_of(done.failure, status)
        whole = {**failed, **told, "error": failed["error"]}
    common.out.object(whole)


def tell_tally(common: Common, tally: Tally) -> None:
    """Who has it in force, in words."""
    if not tally.total:
        common.out.note("0 subscribers")
    else:
        common.out.note(f"confirmed {len(tally.applied)}/{tally.total}")
    for name, group in (("pending", tally.pending), ("nacked", tally.nacked), ("lost", tally.lost)):
        for consumer in group:
            found = consumer_object(consumer)
            why = f": {consumer.nack.error}" if name == "nacked" and consumer.nack else ""
            common.out.note(
                f"{name}: {found['app'] or found['id']} host {found['host']} pid {found['pid']}"
                f" at generation {found['gen']}{why}"
            )


def tally_object(tally: Tally) -> dict[str, Any]:
    """The same as JSON."""
    groups = {
        "applied": tally.applied,
        "pending": tally.pending,
        "nacked": tally.nacked,
        "lost": tally.lost,
    }
    return {name: [consumer_object(c) for c in group] for name, group in groups.items()}


def consumer_object(consumer: Consumer) -> dict[str, Any]:
    """One subscriber."""
    nack = {"gen": consumer.nack.gen, "error": consumer.nack.error} if consumer.nack else None
    return {
        "id": consumer.id,
        "app": consumer.app,
        "host": consumer.host,
        "pid": consumer.pid,
        "gen": consumer.applied.gen,
        "nack": nack,
    }


def change(common: Common, gen: int, step: Any) -> dict[str, Any]:
    """What was, or would be, done to one object."""
    kind, _, key = step.object.partition("/")
    is_new = step.after_rev in (0, gen)
    verb = "delete" if step.after is None else "set" if is_new else "rollback"
    return {
        "kind": kind,
        "key": key,
        "verb": verb,
        "from": {"rev": step.before_rev or None, "value": _value(common, kind, key, step.before)},
        "to": {"rev": step.after_rev or None, "value": _value(common, kind, key, step.after)},
    }


def _value(common: Common, kind: str, key: str, body: bytes | None) -> Any:
    if body is None:
        return None
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:  # somebody damaged it
        return None
    return shown(common.env, key, found) if kind == "config" else found


def line(common: Common, step: Any) -> str:
    """The same in a line: `route shop: 1.0.0 -> 2.0.0`."""
    kind, _, key = step.object.partition("/")
    sides = [_side(common, kind, key, body) for body in (step.before, step.after)]
    if step.before == step.after:
        return f"{kind} {key}: {sides[0]} (revision {step.before_rev} -> {step.after_rev})"
    return f"{kind} {key}: {' -> '.join(sides)}"


def _side(common: Common, kind: str, key: str, body: bytes | None) -> str:
    found = _value(common, kind, key, body)
    if kind == "route":
        return route_text(found)
    return "nothing" if body is None else text_of(found)


def route_text(route: Mapping[str, Any] | None) -> str:
    """A route in a line: `1.0.0 95%, 2.0.0 5%`."""
    if not isinstance(route, dict):
        return "unrouted"
    if route.get("replaced_by"):
        parts = [f"replaced by {route['replaced_by']}"]
    else:
        own = route.get("versions") or {}
        parts = [_shares(own)] if own else []
        overrides = sorted((route.get("overrides") or {}).items())
        parts += [f"{method} {_shares(weights)}" for method, weights in overrides]
    parts += [f"sticky {route['sticky']}"] if route.get("sticky") else []
    parts += ["paused"] if route.get("is_paused") else []
    parts += [f"retired {', '.join(route['retired'])}"] if route.get("retired") else []
    return "; ".join(parts) or "no version"


def _shares(weights: Mapping[str, int]) -> str:
    from fan import versions

    live = {v: weights[v] for v in versions.newest_last(weights) if weights[v] > 0}
    if len(live) == 1:
        return next(iter(live))
    return ", ".join(f"{v} {w * 100 / WHOLE:g}%" for v, w in live.items())


def author(entry: Any) -> str:
    """A generation with who made it, and why."""
    by = f" by {entry.who}" if entry.who else ""
    why = f": {entry.reason}" if entry.reason else ""
    return f"generation {entry.gen} ({entry.verb}{by}{why})"
