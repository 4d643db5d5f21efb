"""A stand-in for a service: its methods answer with what they are told to, with a schema's samples
or with what was recorded, after a delay and with failures where these are asked for."""

from __future__ import annotations

import inspect
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from fan.context import current
from fan.errors import (
    CLASSES,
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    InvalidArgument,
    RemoteError,
)
from fan.model import Interface, MethodInfo, Param
from fan.service import Service, method_table, rpc
from fan.tools.replay import Recorded

if TYPE_CHECKING:
    from fan.service import Method

#: Items of a stream that has a schema alone.
_ITEMS = 3
#: Nested schemas that are looked into; one that refers to itself ends there.
_DEPTH = 8
_KINDS: dict[str, Any] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "null": None,
}  # fmt: skip
_SAMPLES: dict[str, Any] = {
    "date-time": "2000-01-01T00:00:00Z",
    "date": "2000-01-01",
    "time": "00:00:00",
    "duration": "PT0S",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "decimal": "0",
}

#: The parameters of a method of which nothing is known.
_ANYTHING = (Param(name="args", kind="var_positional"), Param(name="kwargs", kind="var_keyword"))

#: The result for positional and named arguments; of a stream the list of its items.
Answer = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a stand-in: seconds that each answer is late, and the share of calls that
    fail with the error of a code."""

    delay: float = 0.0
    code: str = ""
    rate: float = 1.0

    def meet(self) -> None:
        """Be late, and raise the error if it is this call's turn."""
        if self.delay:
            context = current()
            left = context.remaining if context is not None else None
            time.sleep(self.delay if left is None else max(0.0, min(self.delay, left)))
            if left is not None and left < self.delay:  # nobody waits for the rest of it
                raise DeadlineExceeded("the answer would be late", reason="server_timer")
        if self.code and random.random() < self.rate:
            raise CLASSES[self.code](f"asked to fail with {self.code}", reason="mocked")


def mock_service(
    name: str,
    version: str,
    answers: Mapping[str, Answer],
    *,
    interface: Interface | None = None,
    trouble: Trouble | None = None,
) -> Service:
    """A service whose methods give these answers. With the `interface` of the real one it checks
    arguments as that one would, and is registered as that one is. Raises ValueError for a name that
    cannot be called."""
    trouble = trouble or Trouble()
    methods: dict[str, Any] = {"name": name, "version": version, "__doc__": "A stand-in."}
    for method, answer in answers.items():
        info = interface.method(method) if interface is not None else None
        methods[f"mock_{method}"] = rpc(method)(_method(answer, info, trouble))
    made: Service = type("Mock", (Service,), methods)()
    if interface is not None and interface.version == version:
        made.registered_interface = interface
    return made


def mock_samples(
    interface: Interface, methods: Iterable[MethodInfo], *, trouble: Trouble | None = None
) -> Service:
    """A service whose methods answer with a sample of what they return, and its streams with some
    of them."""

    def answer(method: MethodInfo) -> Answer:
        value = sample(method.returns, method.definitions)
        given = [value] * _ITEMS if method.is_stream else value
        return lambda args, kwargs: given

    answers = {method.name: answer(method) for method in methods}
    return mock_service(
        interface.service, interface.version, answers, interface=interface, trouble=trouble
    )


def _from_recorded(calls: Iterable[Recorded], method: Method) -> Answer:
    """What was recorded for the same arguments: one after the other where it was asked several
    times, and the last from then on. Other arguments are FailedPrecondition (not_recorded)."""
    replies: dict[bytes, list[dict[str, Any]]] = {}
    for call in calls:
        try:
            args, kwargs = method.signature.bind(*call.arguments)
        except InvalidArgument:
            continue  # refused before it is asked for
        replies.setdefault(_key(args, kwargs), []).append(call.reply)
    lock = threading.Lock()

    def answer(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        asked = _key(*method.signature.bind(list(args), kwargs))  # however they were given
        with lock:
            found = replies.get(asked)
            if not found:
                raise FailedPrecondition(
                    f"{method.name} was not recorded with these arguments", reason="not_recorded"
                )
            reply = found.pop(0) if len(found) > 1 else found[0]
        if reply.get("ok"):
            return reply.get("result")
        raise _error(reply.get("error") or {})

    return answer


def mock_recorded(
    name: str,
    version: str,
    calls: Iterable[Recorded],
    *,
    interface: Interface | None = None,
    trouble: Trouble | None = None,
) -> Service:
    """A service that answers as the recorded calls of it were answered."""
    by_method: dict[str, list[Recorded]] = {}
    for call in calls:
        by_method.setdefault(call.method, []).append(call)
    methods = tuple(
        MethodInfo(name=method, is_stream=found[0].is_stream, params=_ANYTHING)
        for method, found in by_method.items()
    )
    shaped = interface or Interface(service=name, version=version, methods=methods)
    answers: dict[str, Answer] = {}

    def late(method: str) -> Answer:
        return lambda args, kwargs: answers[method](args, kwargs)

    made = mock_service(
        name, version, {method: late(method) for method in by_method},
        interface=shaped, trouble=trouble,
    )  # fmt: skip
    if interface is None:
        made.registered_interface = None
    table = method_table(made)
    for method, found in by_method.items():
        answers[method] = _from_recorded(found, table[method])
    return made


def sample(schema: Mapping[str, Any], shared: Mapping[str, Any], depth: int = 0) -> Any:
    """A value that fits a JSON Schema: its default or first choice where there is one."""
    schema, shared = _resolve(schema, shared)
    if depth > _DEPTH:
        return None
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return sample(schema[key][0], shared, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object" or "properties" in schema:
        fields = schema.get("properties") or {}
        return {name: sample(each, shared, depth + 1) for name, each in fields.items()}
    if kind == "array":
        return _sample_items(schema, shared, depth)
    if kind == "string":
        text = _SAMPLES.get(schema.get("format", ""), "text")
        return str(text).ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
    if kind in ("integer", "number"):
        above = schema.get("exclusiveMinimum")
        return above + 1 if above is not None else schema.get("minimum", 0)
    return False if kind == "boolean" else None


def _sample_items(schema: Mapping[str, Any], shared: Mapping[str, Any], depth: int) -> list[Any]:
    if schema.get("prefixItems"):
        return [sample(each, shared, depth + 1) for each in schema["prefixItems"]]
    items = schema.get("items")
    if not isinstance(items, dict) or schema.get("maxItems") == 0:
        return []
    return [sample(items, shared, depth + 1)] * max(1, schema.get("minItems", 1))


def type_of(schema: Mapping[str, Any], shared: Mapping[str, Any], depth: int = 0) -> Any:
    """The type that a JSON Schema describes, as far as a service checks its arguments by it."""
    schema, shared = _resolve(schema, shared)
    if depth > _DEPTH:
        return Any
    if schema.get("enum"):
        return Literal[tuple(schema["enum"])]
    if schema.get("anyOf"):
        return _union(type_of(each, shared, depth + 1) for each in schema["anyOf"])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union(type_of({**schema, "type": each}, shared, depth + 1) for each in kind)
    if kind == "array":
        items = schema.get("items")
        return list[type_of(items, shared, depth + 1)] if isinstance(items, dict) else list[Any]  # type: ignore[misc]
    if kind == "object":
        other = schema.get("additionalProperties")
        if isinstance(other, dict) and not schema.get("properties"):
            return dict[str, type_of(other, shared, depth + 1)]  # type: ignore[misc]
        return dict[str, Any]
    if kind == "string" and schema.get("format"):
        return Any  # a number may stand for a decimal, a text for a date
    return _KINDS.get(str(kind), Any)


def _union(kinds: Iterable[Any]) -> Any:
    return reduce(lambda one, other: one | other, kinds)


def _resolve(
    schema: Mapping[str, Any], shared: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The schema behind `#/$defs/NAME`, and the definitions that are known within it."""
    for _ in range(_DEPTH):
        shared = schema.get("$defs") or shared
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            break
        schema = shared.get(reference.rpartition("/")[2], {})
    return schema, shared


def _method(answer: Answer, info: MethodInfo | None, trouble: Trouble) -> Any:
    """A function that gives the answer, with the parameters of the real one."""
    if info is not None and info.is_stream:

        def items(self: Service, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
            trouble.meet()
            found = answer(args, kwargs)
            yield from found if isinstance(found, list) else [found]

        made: Any = items
    else:

        def reply(self: Service, /, *args: Any, **kwargs: Any) -> Any:
            trouble.meet()
            return answer(args, kwargs)

        made = reply
    if info is not None:
        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        made.__signature__ = inspect.Signature([own, *map(_parameter, info.params)])
        made.__annotations__ = {
            param.name: type_of(param.schema, info.definitions) for param in info.params
        }
        made.__doc__ = info.doc
    return made


def _parameter(param: Any) -> inspect.Parameter:
    has_none = param.required or param.kind.startswith("var_")
    default = inspect.Parameter.empty if has_none else param.default
    kind = getattr(inspect.Parameter, param.kind.upper())
    return inspect.Parameter(param.name, kind, default=default)


def _key(args: Iterable[Any], kwargs: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode([list(args), kwargs], order="deterministic")


def _error(found: Mapping[str, Any]) -> FanError:
    """The error of a recorded reply."""
    code, kind = str(found.get("code") or "unknown"), found.get("type")
    how: dict[str, Any] = {"reason": found.get("reason") or "", "details": found.get("details")}
    message = str(found.get("message") or "")
    if kind or code not in CLASSES:
        return RemoteError(message, code=code, type=kind, **how)
    return CLASSES[code](message, **how)
