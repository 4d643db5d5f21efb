"""A service: a class whose `@rpc` methods can be called from anywhere.

class Greeter(Service):
    name = "greeter"
    version = "1.0.0"

    @rpc
    def hello(self, name: str = "World") -> str:
        return f"Hello {name}"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, overload

import msgspec

from fan.signature import Signature

F = TypeVar("F", bound=Callable[..., Any])

_SEGMENT = r"[A-Za-z_][A-Za-z0-9_-]*"
_SERVICE_NAME = rf"{_SEGMENT}(\.{_SEGMENT})*"
_TOPIC = _SERVICE_NAME
_METHOD_NAME = r"[A-Za-z][A-Za-z0-9_-]*"
_MAX_NAME = 255
# The lifecycle's own, never a caller's.
_HOOKS = frozenset({"service_start", "service_stop"})

#: Attribute under which `@rpc` leaves its settings on the function.
_MARK = "__fan_rpc__"


class Topic(msgspec.Struct, frozen=True):
    """What one `@subscribe` says: a topic, and the group that shares its events. None is the
    service's own name, empty is none at all."""

    name: str
    group: str | None = None


class RpcOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `@rpc`, `@push` and `@subscribe` say of a method. `timeout` is seconds; `dedupe` is
    "memory" or "shared"."""

    name: str = ""
    idempotent: bool = False
    timeout: float | None = None
    raises: tuple[type[BaseException], ...] = ()
    dedupe: str = "memory"
    is_push: bool = False
    topics: tuple[Topic, ...] = ()


@overload
def rpc(fn: F, /) -> F: ...


@overload
def rpc(
    name: str = "",
    /,
    *,
    idempotent: bool = False,
    timeout: float | None = None,
    raises: Iterable[type[BaseException]] = (),
    dedupe: str = "memory",
) -> Callable[[F], F]: ...


def rpc(fn: Any = "", /, **options: Any) -> Any:
    """Make a method callable from outside: `@rpc`, `@rpc()`, `@rpc("name", idempotent=True)`.

    `idempotent` promises that running twice does what running once does, for the whole subtree of
    calls, so that a call whose outcome is unknown may be repeated. `timeout` (seconds) is the
    default of its callers. `raises` lists the application's own errors that come back to the caller
    as themselves.
    """
    return _mark(fn, options)


@overload
def push(fn: F, /) -> F: ...


@overload
def push(
    name: str = "",
    /,
    *,
    idempotent: bool = False,
    timeout: float | None = None,
    raises: Iterable[type[BaseException]] = (),
    dedupe: str = "memory",
) -> Callable[[F], F]: ...


def push(fn: Any = "", /, **options: Any) -> Any:
    """Make a method that is meant to be pushed: `@push`, `@push("name", timeout=300)`.

    It takes the options of `@rpc`, and can be called like any other; a service that has one is
    served over a queue too, so that what was accepted outlives whoever was to handle it. `timeout`
    (seconds) is what one delivery may take; a message is delivered until it was handled, five times
    by default, then it is a dead letter: it may come twice.
    """
    return _mark(fn, {**options, "is_push": True})


def subscribe(
    topic: str, /, *, group: str = "", broadcast: bool = False, timeout: float | None = None
) -> Callable[[F], F]:
    """Make a method that handles the events of a topic: `@subscribe("orders.created")`.

    Each event goes to one instance of a `group`, by default that of all instances of the service
    whose version is routed; with `broadcast` to every instance that is there. An event is delivered
    as a push is. A method may subscribe to several topics, and be called by name as well.
    """
    check_topic(topic)
    if group and (broadcast or not re.fullmatch(_SERVICE_NAME, group)):
        raise ValueError(f"{group!r} is no group: a dotted name, and none for a broadcast")

    def decorate(function: Any) -> Any:
        marked: RpcOptions = getattr(function, _MARK, RpcOptions())
        new = Topic(topic, "" if broadcast else group or None)
        changes: dict[str, Any] = {"topics": (*marked.topics, new)}
        if timeout is not None:
            changes["timeout"] = _checked_timeout(timeout)
        setattr(function, _MARK, msgspec.structs.replace(marked, **changes))
        return function

    return decorate


def check_topic(topic: str) -> None:
    """Raise ValueError for what is no topic."""
    if not re.fullmatch(_TOPIC, topic) or len(topic) > _MAX_NAME:
        raise ValueError(
            f"{topic!r} is no topic: dotted parts of letters, digits, '_' and '-', "
            f"at most {_MAX_NAME} characters"
        )


def _checked_timeout(timeout: float) -> float:
    if not 0 < timeout < float("inf"):
        raise ValueError(f"a timeout of {timeout} seconds leaves no time, or no end")
    return timeout


def _mark(fn: Any, options: dict[str, Any]) -> Any:
    if callable(fn):
        topics = getattr(fn, _MARK, RpcOptions()).topics  # of a `@subscribe` below
        setattr(fn, _MARK, RpcOptions(topics=topics, **options))
        return fn
    if "raises" in options:
        options["raises"] = tuple(options["raises"])
    marked = RpcOptions(name=fn, **options)
    if marked.timeout is not None:
        _checked_timeout(marked.timeout)
    if marked.dedupe not in ("memory", "shared"):
        raise ValueError(f"dedupe is {marked.dedupe!r}, and not 'memory' or 'shared'")
    if fn and not re.fullmatch(_METHOD_NAME, fn):
        raise ValueError(f"{fn!r} is no method name: letters, digits, '_' and '-', a letter first")

    def decorate(function: Any) -> Any:
        topics = getattr(function, _MARK, marked).topics
        setattr(function, _MARK, msgspec.structs.replace(marked, topics=topics))
        return function

    return decorate


class Service:
    """Base of every service.

    `name` may hold dots (or be a list of its parts); `version` is a PEP 440 version; `unique`
    allows one live instance per version; `depend` names the services it needs: `{"hard": ["users"],
    "soft": {"mail": ">=2"}}`, a plain list meaning any version. `policy` says how it wants to be
    called, where that is not as the settings have it: `{"retries": 0, "methods": {"report":
    {"timeout": 30}}}`. `shards` are the shards that an instance owns: `{"shard1": ["a", "b"]}`.
    """

    name: ClassVar[Any] = ""
    version: ClassVar[str] = "0.0.0"
    unique: ClassVar[bool] = False
    depend: ClassVar[Mapping[str, Any]] = {}
    policy: ClassVar[Mapping[str, Any]] = {}
    #: May also be set on a single object, before it starts.
    shards: Mapping[str, Sequence[str]] = {}

    #: The App that hosts it, set before `service_start`.
    app: Any = None
    #: Id of the instance it runs as, set with `app`.
    instance_id: str = ""
    #: What is registered of it where its class does not say: a stand-in has the real one's.
    registered_interface: Any = None

    def service_start(self) -> Any:
        """Called before the service takes calls; may be `async def`. An error ends the start."""

    def service_stop(self) -> Any:
        """Called after its last call; may be `async def`."""

    @rpc(idempotent=True)
    def health(self) -> Any:
        """Whether the service can do its work: "ok", anything else says what is wrong."""
        return "ok"

    @rpc(idempotent=True)
    def info(self) -> dict[str, Any]:
        """Name, version, instance and methods of what answers."""
        methods = sorted(method_names(type(self)))
        served = {"name": service_name(self), "version": self.version, "instance": self.instance_id}
        return {**served, "unique": self.unique, "methods": methods}

    @rpc(idempotent=True)
    def stats(self) -> dict[str, Any]:
        """Calls, errors and milliseconds spent per method since the start.

        And calls in flight, this one among them.
        """
        stats: dict[str, Any] = self.app.dispatcher.stats(self.instance_id) if self.app else {}
        return stats


class Method:
    """One callable method of one service object: its options, its signature, and how it is run."""

    __slots__ = (
        "dedupe", "fn", "is_idempotent", "is_push", "is_stream", "kind", "name", "raises",
        "signature", "timeout", "topics",
    )  # fmt: skip

    def __init__(self, name: str, fn: Callable[..., Any], options: RpcOptions) -> None:
        self.name = name
        self.fn = fn
        self.signature = Signature(fn)
        #: plain, async, stream or async_stream.
        self.kind = self.signature.kind
        #: Whether it answers with a stream of chunks.
        self.is_stream = self.kind.endswith("stream")
        self.is_idempotent = options.idempotent
        self.timeout = options.timeout
        self.raises = options.raises
        self.dedupe = options.dedupe
        self.is_push = options.is_push
        self.topics = options.topics


def service_name(service: Service | type[Service]) -> str:
    """The dotted name of a service. Raises ValueError for one that cannot be called."""
    name = service.name
    if isinstance(name, Sequence) and not isinstance(name, str):
        name = ".".join(name)
    cls = service if isinstance(service, type) else type(service)
    if not isinstance(name, str) or not name:
        raise ValueError(f"{cls.__name__} has no name: set `name = '...'` in the class")
    if len(name) > _MAX_NAME or not re.fullmatch(_SERVICE_NAME, name):
        raise ValueError(
            f"{name!r} is no service name: dotted parts of letters, digits, '_' and '-', "
            f"at most {_MAX_NAME} characters"
        )
    return name


def method_names(cls: type[Service]) -> dict[str, str]:
    """Name of each callable method -> the attribute that holds it. The nearest class decides; an
    override without `@rpc` keeps the method callable. Raises ValueError for a method that must not
    be called from outside, and for two of one name."""
    names: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        own: dict[str, str] = {}
        for attribute, value in vars(base).items():
            options = _mark_of(value)
            if options is None:
                continue
            name = options.name or attribute
            if attribute in _HOOKS or not re.fullmatch(_METHOD_NAME, name):
                raise ValueError(f"{base.__name__}.{attribute} cannot be called from outside")
            if own.setdefault(name, attribute) != attribute:
                raise ValueError(f"{base.__name__} has two methods that are called {name!r}")
        names.update(own)
    return names


def _mark_of(value: Any) -> RpcOptions | None:
    """What `@rpc` left, above or below a `@staticmethod` or `@classmethod`."""
    marked = getattr(value, _MARK, None) or getattr(getattr(value, "__func__", None), _MARK, None)
    return marked if isinstance(marked, RpcOptions) else None


def _options(cls: type[Service], attribute: str) -> RpcOptions:
    for base in cls.__mro__:
        options = _mark_of(vars(base).get(attribute))
        if options is not None:
            return options
    return RpcOptions()


def method_table(service: Service) -> dict[str, Method]:
    """Every method of a service object that can be called from outside, by name."""
    cls = type(service)
    return {
        name: Method(name, getattr(service, attribute), _options(cls, attribute))
        for name, attribute in method_names(cls).items()
    }
