"""What a write of configs does to the store: changes of objects, and the check that they fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fan.config_history import no_such_config, pinned
from fan.config_values import (
    CONFIG,
    MISSING,
    SCHEMA,
    check_all,
    check_key,
    decode,
    encode,
    encode_schema,
    merge,
    warm_up,
)
from fan.errors import Aborted, AlreadyExists
from fan.stores.base import Change, Cut, Plan


def changes_of(
    values: Mapping[str, Any], schemas: Mapping[str, Any] | None = None
) -> tuple[Change, ...]:
    """Give configs values and schemas; a schema None is taken away. Raises InvalidArgument."""
    changes = [
        Change(object=CONFIG + check_key(key), body=encode(key, value))
        for key, value in values.items()
    ]
    for key, schema in (schemas or {}).items():
        body = None if schema is None else encode_schema(key, schema)
        changes.append(Change(object=SCHEMA + check_key(key), body=body))
    return tuple(changes)


def plan_of(cut: Cut, verb: str, changes: tuple[Change, ...]) -> Plan:
    """One generation of changes to configs and their schemas, refused where a value would not fit
    its schema. `cut` has both objects of each config that is changed."""
    keys = tuple(dict.fromkeys(c.object.partition("/")[2] for c in changes))
    for key in keys:
        found = cut.objects.get(SCHEMA + key)
        if found is not None and found.body is not None:
            warm_up(key, found.body)
    return Plan(changes=changes, verb=verb, check=lambda view: check_all(view, keys))


def set_plan(
    cut: Cut, key: str, value: Any, schema: Any, if_rev: int | None, is_new: bool
) -> Plan:
    """Give one config a value, and a schema unless that is `MISSING`. With `is_new` raises
    AlreadyExists (config_exists) where it is there."""
    found = cut.objects.get(CONFIG + key)
    if is_new and found is not None:
        raise AlreadyExists(
            f"config {key} exists already, at revision {found.rev}", reason="config_exists"
        )
    if if_rev and not (found or CONFIG + key in cut.deleted):
        raise Aborted(
            f"there is no config {key}: revision {if_rev} of it was expected",
            reason="conflict",
            details={"object": CONFIG + key, "gen": 0, "rev": 0, "expected": if_rev},
        )
    from_rev = 0 if is_new else if_rev
    change = Change(object=CONFIG + key, body=encode(key, value), from_rev=from_rev)
    schemas = {} if schema is MISSING else {key: schema}
    return plan_of(cut, "set", (change, *changes_of({}, schemas)))


def patch_plan(cut: Cut, key: str, patch: Any, if_rev: int | None) -> Plan:
    """Merge a patch into what a config holds. Raises NotFound."""
    now = pinned(key, cut)
    old = decode(CONFIG + key, now.body or b"null")
    body = encode(key, merge(old, patch))
    from_rev = now.rev if if_rev is None else if_rev
    return plan_of(cut, "patch", (Change(object=CONFIG + key, body=body, from_rev=from_rev),))


def delete_plan(cut: Cut, key: str, if_rev: int | None) -> Plan:
    """Delete a config, and leave its schema. Raises NotFound for one that never was."""
    object = CONFIG + key
    if object not in cut.objects and object not in cut.deleted:
        raise no_such_config(key)
    return plan_of(cut, "delete", (Change(object=object, from_rev=if_rev),))
