"""Configs as typed values: a class of settings, filled from three layers and swapped when they
change.

The layers, the strongest first: variables of the environment, the registry, defaults. In the
registry a field `port` of the settings bound to `orders` is the config `orders/port`, or else the
member `port` of the config `orders`; a nested class is a folder, or a member that is an object.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from fan.config_live import Live
from fan.config_values import merge
from fan.errors import FanError, InvalidArgument

T = TypeVar("T")

_NO_NAME = re.compile(r"[^A-Za-z0-9]")

#: What the variables that override configs begin with.
VARIABLE = "FAN_CONFIG_"


def variable_of(key: str) -> str:
    """The variable that overrides a config: `FAN_CONFIG_ORDERS_THEME` for `orders/theme`."""
    return VARIABLE + variable_name(key)


def variable_name(key: str) -> str:
    """A key as the name of a variable: capitals, and _ for all that is no letter or digit."""
    return _NO_NAME.sub("_", key).upper()


def as_typed(text: str, instead_of: Any) -> Any:
    """The text of a variable as the type of the value that it overrides: JSON, unless that is a
    string or nothing."""
    if instead_of is None or isinstance(instead_of, str):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def tree(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a name: the members of the config `prefix`, and over them what lies below
    `prefix/`, a folder for each `/`."""
    whole = values.get(prefix)
    document: dict[str, Any] = {}
    for key in sorted(k for k in values if k.startswith(prefix + "/")):
        folders = key[len(prefix) + 1 :].split("/")
        here = document
        for folder in folders[:-1]:
            inside = here.get(folder)
            here[folder] = here = dict(inside) if isinstance(inside, dict) else {}
        last = folders[-1]
        here[last] = _over(here.get(last), values[key])
    merged = _over(whole if isinstance(whole, dict) else {}, document)
    return merged if isinstance(merged, dict) else {}


def _over(low: Any, high: Any) -> Any:
    """`high` over `low`: objects are united, anything else is replaced."""
    if isinstance(low, dict) and isinstance(high, dict):
        return {**low, **{name: _over(low.get(name), item) for name, item in high.items()}}
    return high


def overridden(document: Mapping[str, Any], prefix: str, variables: Mapping[str, str], fields:
Iterable[tuple[str, ...]]) -> dict[str, Any]:  # fmt: skip
    """The document with the variables of these fields over it."""
    result = dict(document)
    for path in fields:
        text = variables.get(variable_of("/".join((prefix, *path))))
        if text is not None:
            patch: Any = as_typed(text, _inside(document, path))
            for name in reversed(path):
                patch = {name: patch}
            result = merge(result, patch)
    return result


def _inside(document: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def fields_of(kind: Any, depth: int = 0) -> list[tuple[str, ...]]:
    """The fields of a Struct or dataclass as they are called in a document, nested ones by path."""
    found: list[tuple[str, ...]] = []
    info = msgspec.inspect.type_info(kind)
    for field in getattr(info, "fields", ()) if depth < 8 else ():
        name = field.encode_name if hasattr(field, "encode_name") else field.name
        inner = getattr(field.type, "cls", None)
        below = fields_of(inner, depth + 1) if inner is not None and _has_fields(field) else []
        found += [(name, *path) for path in below] or [(name,)]
    return found


def _has_fields(field: Any) -> bool:
    return bool(getattr(field.type, "fields", ()))


class View(Generic[T]):
    """Settings of one class that follow the registry: `view.value` is always a whole, valid one.
    Where a change does not fit the class the last good value stays, and `error` says why."""

    def __init__(
        self,
        prefix: str,
        kind: type[T],
        read: Callable[[Mapping[str, Any] | None], dict[str, Any]],
        on_change: Callable[[T], None] | None,
    ) -> None:
        self.prefix = prefix
        self._kind = kind
        self._read = read
        self._on_change = on_change
        #: Why the last change was refused, None where it was taken.
        self.error: FanError | None = None
        self._end: Callable[[], None] = lambda: None
        self._live: Live | None = None
        # Store threads and writers take over: whoever looks last has to be the last to swap.
        # Nothing is read of the registry meanwhile: that could wait for who waits for this.
        self._lock = threading.Lock()
        self._value: T = self._converted()

    def __repr__(self) -> str:
        state = "refused a change" if self.error is not None else "current"
        return f"<View {self.prefix} {self._kind.__name__} {state}>"

    @property
    def value(self) -> T:
        """The settings in force."""
        return self._value

    def close(self) -> None:
        """Follow no longer; the value stays. Twice does no harm."""
        self._end()

    def follow(self, live: Live) -> None:
        """Refuse what does not fit, and look again whenever values change."""
        self._live = live
        self._end = live.follow(self.check, self._take)
        self._take()  # what changed before it was heard of

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise InvalidArgument (bad_value) where these would not fit the class."""
        try:
            self._converted(values)
        except FanError as exc:
            self.error = exc
            raise
        self.error = None

    def _take(self) -> None:
        """Take over what is in force now, if it is valid and another."""
        assert self._live is not None
        with self._lock:
            try:
                value = self._converted(self._live.now)
            except FanError as exc:
                if str(exc) != str(self.error):
                    log = logging.getLogger("fan.config")
                    log.warning("the last good settings of %s stay: %s", self.prefix, exc)
                self.error = exc
                return
            self.error = None
            if value == self._value:
                return
            self._value = value
            if self._on_change is not None:
                self._live.tell(partial(self._tell, self._on_change, value))

    def _tell(self, on_change: Callable[[T], None], value: T) -> None:
        try:
            on_change(value)
        except Exception:
            logging.getLogger("fan.config").exception("on_change of %s failed", self.prefix)

    def _converted(self, values: Mapping[str, Any] | None = None) -> T:
        document = self._read(values)
        try:
            return msgspec.convert(document, self._kind, strict=False)
        except (msgspec.ValidationError, RecursionError) as exc:
            raise InvalidArgument(
                f"the configs of {self.prefix} do not fit {self._kind.__name__}: {exc}",
                reason="bad_value",
            ) from exc
