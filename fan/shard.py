"""Which instances of a version a key belongs to.

A service's route may hold a rule for it: a path template whose variables are the shards,
`/store/{shard1}/item/{shard2}/`, and a mode. `owned`: instances declare what is theirs, `shards =
{"shard1": ["a", "b"]}`. `hashed`: every key has one of the live instances, and one more instance
takes about 1/(n+1) of the keys. The rule's `map` gives single values to instances by their ids,
above both. As a part of the route, a change of it is a generation that can be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, Literal
from urllib.parse import quote, unquote

import msgspec

from fan.errors import FailedPrecondition, InvalidArgument, Unavailable
from fan.model import Instance, Route

_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

#: Combinations of values that a check goes through; above, each variable is checked alone.
_MOST_COMBINED = 10_000


class ShardRule(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a service is sharded. `map` is variable -> value -> ids of instances; `values` are those
    of a variable that somebody has to have: without them a check knows only what is declared."""

    template: str
    mode: Literal["owned", "hashed"] = "hashed"
    map: dict[str, dict[str, list[str]]] = {}
    values: dict[str, list[str]] = {}

    def check(self) -> None:
        """Raise InvalidArgument (bad_shard) for one that makes no sense."""
        Sharding(self)


class Sharding:
    """A rule at work."""

    def __init__(self, rule: ShardRule) -> None:
        """Raises InvalidArgument (bad_shard) for a rule that makes no sense."""
        self.rule = rule
        self.variables = _variables(rule.template)
        self._path = _pattern(rule.template)
        #: Whether a key is the one value as it is, and no path.
        self._is_bare = rule.template == f"{{{self.variables[0]}}}"
        for name in (rule.map.keys() | rule.values.keys()) - set(self.variables):
            raise _bad(f"{name!r} is no variable of {rule.template}")

    def __repr__(self) -> str:
        return f"<Sharding {self.rule.mode} by {self.rule.template}>"

    @classmethod
    def of(cls, service: str, route: Route | None) -> Sharding | None:
        """The sharding of a route, None for none. Raises FailedPrecondition (bad_shard) for one
        that cannot be understood: a guess would send a key to the wrong place."""
        if route is None or not route.shard:
            return None
        try:
            return cls(msgspec.convert(route.shard, ShardRule))
        except (msgspec.ValidationError, InvalidArgument) as exc:
            raise FailedPrecondition(
                f"how {service} is sharded cannot be understood: {exc}", reason="bad_shard"
            ) from exc

    # Keys

    def key(self, service: str, given: str, arguments: Callable[[], Mapping[str, Any]]) -> str:
        """The key of a call, as a path: of the shard key that the caller gave, else of its
        arguments. Raises InvalidArgument (bad_shard) where a value is missing."""
        if given:
            return self._path_of(self.parse(given))
        found = arguments()
        missing = [name for name in self.variables if found.get(name) is None]
        if missing:
            raise _bad(
                f"{service} is sharded by {self.rule.template}: {' and '.join(missing)} is"
                " missing, as an argument of the call or with a shard key"
            )
        return self._path_of({name: _text(name, found[name]) for name in self.variables})

    def parse(self, key: str) -> dict[str, str]:
        """The values of a key: of a path, or of the one variable that there is. Raises
        InvalidArgument (bad_shard)."""
        match = None if self._is_bare else self._path.fullmatch(key)
        if match is not None:
            return {name: unquote(value) for name, value in match.groupdict().items()}
        if len(self.variables) == 1 and key:
            return {self.variables[0]: key}
        raise _bad(f"{key!r} is no key of {self.rule.template}")

    def _path_of(self, values: Mapping[str, str]) -> str:
        if self._is_bare:
            return values[self.variables[0]]
        return _VARIABLE.sub(lambda m: quote(values[m[1]], safe=""), self.rule.template)

    # Instances

    def narrow(
        self, values: Mapping[str, str], live: Sequence[Instance], known: Iterable[Instance]
    ) -> tuple[Instance, ...]:
        """Those of the live instances that a key may go to; `known` are all of the version. More
        than one are candidates for hashing; none is a hole."""
        found, divided = tuple(live), self._divided(known)
        for name in self.variables:
            ids = self.rule.map.get(name, {}).get(values[name])
            if ids is not None:
                found = tuple(i for i in found if i.id in ids)
            elif self.rule.mode == "owned" and (name in divided or not divided):
                found = tuple(i for i in found if values[name] in i.shards.get(name, ()))
        return found

    def owners(
        self,
        service: str,
        values: Mapping[str, str],
        live: Sequence[Instance],
        known: Iterable[Instance],
    ) -> tuple[Instance, ...]:
        """The same. Raises Unavailable (no_instance) for a hole."""
        found = self.narrow(values, live, known)
        if not found:
            said = ", ".join(f"{name}={value}" for name, value in values.items())
            raise Unavailable(f"no live instance of {service} has {said}", reason="no_instance")
        return found

    def _divided(self, known: Iterable[Instance]) -> set[str]:
        """The variables that somebody's ownership speaks of; the others every owner has whole."""
        declared = {name for i in known for name, values in i.shards.items() if values}
        return (declared | self.rule.map.keys() | self.rule.values.keys()) & set(self.variables)

    # Checking

    def problems(self, live: Sequence[Instance], known: Sequence[Instance]) -> Iterator[str]:
        """What is wrong: values that no live instance has, and those that several have."""
        divided = sorted(self._divided(known))
        if self.rule.mode == "owned" and not divided:
            yield f"hole: no instance declares shards of {self.rule.template}"
            return
        values = {name: self._values(name, known) for name in divided}
        for name in sorted({n for i in known for n in i.shards} - set(self.variables)):
            yield f"unknown: instances declare {name}, which is not in {self.rule.template}"
        if prod(map(len, values.values())) <= _MOST_COMBINED:
            combined: Iterable[dict[str, str]] = (
                dict(zip(values, each, strict=True)) for each in product(*values.values())
            )
        else:
            combined = ({name: each} for name in values for each in values[name])
        for each in combined:
            yield from self._judge(each, live, known)

    def _judge(
        self, values: dict[str, str], live: Sequence[Instance], known: Sequence[Instance]
    ) -> Iterator[str]:
        named = Sharding(
            msgspec.structs.replace(
                self.rule,
                template="/".join(f"{{{name}}}" for name in values),
                map={name: given for name, given in self.rule.map.items() if name in values},
                values={},
            )
        )
        found = named.narrow(values, live, known)
        said = ", ".join(f"{name}={value}" for name, value in values.items())
        if not found:
            yield f"hole: no live instance has {said}"
        elif len(found) > 1 and self.rule.mode == "owned":
            yield f"overlap: {', '.join(sorted(i.id for i in found))} have {said}"

    def _values(self, name: str, known: Iterable[Instance]) -> list[str]:
        mapped = {*self.rule.map.get(name, {}), *self.rule.values.get(name, ())}
        if self.rule.mode == "hashed":
            return sorted(mapped)
        return sorted(mapped.union(*(i.shards.get(name, ()) for i in known)))


def _variables(template: str) -> tuple[str, ...]:
    names = tuple(_VARIABLE.findall(template))
    rest = _VARIABLE.sub("\0", template)
    if not names or "{" in rest or "}" in rest:
        raise _bad(f"{template!r} is no template: it looks like /store/{{shard1}}/item/{{shard2}}/")
    if len(set(names)) < len(names):
        raise _bad(f"{template!r} names a variable twice")
    if "\0\0" in rest:
        raise _bad(f"{template!r}: something must stand between two variables")
    return names


def _pattern(template: str) -> re.Pattern[str]:
    """What paths of a template match, with or without a slash at their end."""
    out, end = "", 0
    trimmed = template.rstrip("/") or template
    for match in _VARIABLE.finditer(trimmed):
        out += re.escape(trimmed[end : match.start()]) + f"(?P<{match[1]}>[^/]+)"
        end = match.end()
    return re.compile(out + re.escape(trimmed[end:]) + "/?")


def _text(name: str, value: Any) -> str:
    """The text of an argument as a shard value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | str) and value != "":
        return str(value)
    raise _bad(f"{name}={value!r} is no shard value: a text or a whole number")


def no_queue(service: str, sharding: Sharding) -> InvalidArgument:
    """The error for a push that would wait in the one queue that all instances take from."""
    return _bad(
        f"{service} is sharded by {sharding.rule.template}, and its queue of pushes is that of all"
        " instances: push over a transport that reaches the owner (ipc, http), or call it"
    )


def _bad(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="bad_shard")
