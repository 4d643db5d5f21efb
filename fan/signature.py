"""A handler's signature: how wire arguments are checked and turned into the call, and its JSON
Schemas."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import msgspec

from fan.codec import decode_arguments
from fan.errors import InvalidArgument
from fan.message import JSON
from fan.model import Param

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Signature:
    """The parameters of one bound method. `bind_body` is on the way of every remote call."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        self.kind = _kind(fn)
        parameters = list(inspect.signature(fn).parameters.values())
        self._hints = _hints(fn)
        self._named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        self._positional = [p.name for p in self._named if p.kind in _POSITIONAL]
        self._positional_only = {p.name for p in self._named if p.kind is p.POSITIONAL_ONLY}
        self._keyword_only = [p.name for p in self._named if p.kind is p.KEYWORD_ONLY]
        self._var_positional = next((p for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self._var_keyword = next((p for p in parameters if p.kind is p.VAR_KEYWORD), None)
        self.parameters = parameters
        self._struct = msgspec.defstruct(
            "Arguments",
            [self._field(p) for p in self._named],
            kw_only=True,
            forbid_unknown_fields=True,
            gc=False,
        )
        is_simple = not (self._var_positional or self._var_keyword or self._positional_only)
        self._decode = msgspec.json.Decoder(self._struct).decode if is_simple else None
        #: `*args, **kwargs` and nothing else, of any type: there is nothing to check.
        self._takes_all = not self._named and all(
            p is not None and self._hints.get(p.name, Any) is Any
            for p in (self._var_positional, self._var_keyword)
        )

    def bind_body(self, content_type: str, body: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Checked positional and keyword arguments for the handler, from a request's body. Raises
        InvalidArgument: malformed for what is no JSON, bad_signature for what does not fit."""
        if self._decode is not None and body[:1] == b"{" and content_type == JSON:
            try:
                return self._spread(self._decode(body))
            except msgspec.ValidationError as exc:
                raise InvalidArgument(_sentence(exc), reason="bad_signature") from None
            except (ValueError, RecursionError):
                pass  # the slow way says what is wrong
        args, kwargs = decode_arguments(content_type, body)
        return (tuple(args), kwargs) if self._takes_all else self.bind(args, kwargs)

    def bind(
        self, args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same for decoded arguments."""
        named = dict(zip(self._positional, args, strict=False))
        extra = args[len(self._positional) :]
        if extra and self._var_positional is None:
            raise InvalidArgument(
                f"takes {len(self._positional)} positional arguments, got {len(args)}",
                reason="bad_signature",
            )
        others: dict[str, Any] = {}
        known = {p.name for p in self._named} - self._positional_only
        for name, value in kwargs.items():
            if name in known and name in named:
                raise InvalidArgument(f"{name}: given twice", reason="bad_signature")
            if name in known or self._var_keyword is None:
                named[name] = value
            else:
                others[name] = value
        if self._positional_only & kwargs.keys() and self._var_keyword is None:
            name = min(self._positional_only & kwargs.keys())
            raise InvalidArgument(f"{name}: is positional only", reason="bad_signature")
        extra = [self._convert(self._var_positional, v) for v in extra]
        others = {k: self._convert(self._var_keyword, v, k) for k, v in others.items()}
        try:
            positional, keyword = self._spread(msgspec.convert(named, self._struct))
        except msgspec.ValidationError as exc:
            raise InvalidArgument(_sentence(exc), reason="bad_signature") from None
        return (*positional, *extra), {**keyword, **others}

    def params(self, schemas: dict[str, dict[str, Any]]) -> tuple[Param, ...]:
        """The parameters for the registry, with the JSON Schema of each by name."""
        out = []
        for p in self.parameters:
            required = p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            try:
                default = None if p.default is p.empty else msgspec.to_builtins(p.default)
            except (TypeError, ValueError):
                default = None
            out.append(
                Param(
                    name=p.name,
                    schema=schemas.get(p.name, {}),
                    required=required,
                    default=default,
                    kind=p.kind.name.lower(),
                )
            )
        return tuple(out)

    def annotations(self) -> dict[str, Any]:
        """Name of each annotated parameter -> its type, and `return` -> the type of a result or
        item."""
        hints = dict(self._hints)
        if "stream" in self.kind and "return" in hints:
            hints["return"] = next(iter(get_args(hints["return"])), Any)
        return hints

    def _field(self, p: inspect.Parameter) -> Any:
        hint = self._hints.get(p.name, Any)
        if p.default is p.empty:
            return (p.name, hint)
        return (p.name, hint, msgspec.field(default_factory=lambda: p.default))

    def _spread(self, named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not self._keyword_only:
            return msgspec.structs.astuple(named), {}
        positional = tuple(getattr(named, name) for name in self._positional)
        return positional, {name: getattr(named, name) for name in self._keyword_only}

    def _convert(self, p: inspect.Parameter | None, value: Any, name: str = "") -> Any:
        hint = self._hints.get(p.name, Any) if p is not None else Any
        try:
            return msgspec.convert(value, hint)
        except msgspec.ValidationError as exc:
            where = name or (p.name if p is not None else "")
            raise InvalidArgument(f"{where}: {_sentence(exc)}", reason="bad_signature") from None


def _kind(fn: Callable[..., Any]) -> str:
    if inspect.isasyncgenfunction(fn):
        return "async_stream"
    if inspect.isgeneratorfunction(fn):
        return "stream"
    return "async" if inspect.iscoroutinefunction(fn) else "plain"


def _hints(fn: Callable[..., Any]) -> dict[str, Any]:
    """Type hints; those that name what exists for type checkers only count as no hint."""
    try:
        hints = get_type_hints(fn, include_extras=True)
    except (NameError, TypeError, AttributeError):
        hints = {}
    return {name: _supported(hint) for name, hint in hints.items()}


def _supported(hint: Any) -> Any:
    """The hint, or Any where msgspec cannot decode it (a bare TypeVar, two struct types in a
    union)."""
    try:
        msgspec.json.Decoder(hint)
    except (TypeError, ValueError):
        return Any
    return hint


def _sentence(exc: msgspec.ValidationError) -> str:
    """msgspec's `Expected `int`, got `str` - at `$.a`` as `a: expected int, got str`."""
    text, _, path = str(exc).replace("`", "").partition(" - at ")
    text = text.replace("Object missing required field ", "missing: ").replace(
        "Object contains unknown field ", "no such parameter: "
    )
    where = path.removeprefix("$").removeprefix(".")
    text = text[:1].lower() + text[1:]
    return f"{where}: {text}" if where else text
