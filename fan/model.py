"""What is registered: services, their methods, instances, addresses and routes.

All of it is stored as JSON; a reader ignores fields that it does not know.
"""

from typing import Any, Literal, Self

import msgspec

from fan.message import Request

#: "down" is what an operator says of an instance; it says the others itself.
State = Literal["starting", "up", "draining", "down"]

#: Transports over a broker, where what was accepted waits for whoever handles it.
QUEUES = ("amqp", "redis", "database")

#: A weight of the whole: weights are basis points, and those of a route sum to this.
WHOLE = 10_000


class HttpForm(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a method of an HTTP service that knows nothing of fan is called: a `verb`, and a `path`
    with `{name}` for arguments. Of the others those in `query`, and all for a verb without a body,
    are in the query; the rest make up the body, a document of `content_type`, unless one of them,
    `body`, is all of it."""

    verb: str = "GET"
    path: str = "/"
    content_type: str = "application/json"
    query: tuple[str, ...] = ()
    body: str = ""


class Address(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an instance is reached: `unix:///run/x.sock`, `http://127.0.0.1:8080`. The scheme picks
    the transport; the rest is the transport's own. `form` is set for one call of a method that has
    one."""

    url: str
    form: HttpForm | None = None

    @property
    def scheme(self) -> str:
        """`http` of `http://127.0.0.1:8080`."""
        return self.url.partition(":")[0]


class Param(msgspec.Struct, frozen=True, omit_defaults=True):
    """One parameter of a method. `schema` is a JSON Schema, `kind` a name of `inspect.Parameter`:
    positional_only, positional_or_keyword, var_positional, keyword_only or var_keyword."""

    name: str
    schema: dict[str, Any] = {}
    required: bool = True
    default: Any = None
    kind: str = "positional_or_keyword"


class MethodInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a caller may know of a method without its service being up."""

    name: str
    doc: str = ""
    params: tuple[Param, ...] = ()
    #: JSON Schema of the result, or of one item of a stream.
    returns: dict[str, Any] = {}
    is_stream: bool = False
    is_idempotent: bool = False
    #: Seconds that one call may take by default; None is the caller's default.
    timeout: float | None = None
    #: Stable names of the errors it declares.
    raises: tuple[str, ...] = ()
    #: Whether it is meant to be pushed (`@push`).
    is_push: bool = False
    #: The events that it handles (`@subscribe`), as `TOPIC/GROUP`; without a group every instance
    #: gets each.
    topics: tuple[str, ...] = ()
    #: Shared definitions that the schemas refer to as `#/$defs/NAME`.
    definitions: dict[str, Any] = {}
    #: For a method of a service that knows nothing of fan: how it is called over HTTP.
    http: HttpForm | None = None


class Interface(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one version of a service offers: persistent, registered once."""

    service: str
    version: str
    doc: str = ""
    methods: tuple[MethodInfo, ...] = ()
    #: {"hard": {service: range}, "soft": {service: range}}
    depend: dict[str, dict[str, str]] = {}
    #: How it wants to be called: see `policies`.
    policy: dict[str, Any] = {}
    hash: str = ""

    def method(self, name: str) -> MethodInfo | None:
        """The method of that name, or None."""
        return next((m for m in self.methods if m.name == name), None)

    @property
    def needed(self) -> set[str]:
        """The services that it depends on, hard or soft."""
        return {name for ranges in self.depend.values() for name in ranges}

    @property
    def is_foreign(self) -> bool:
        """Whether the service knows nothing of fan: its methods are called each in its form."""
        return bool(self.methods) and self.methods[0].http is not None


class Instance(msgspec.Struct, frozen=True, omit_defaults=True):
    """One running copy of a service version."""

    id: str
    service: str
    version: str
    addresses: tuple[Address, ...] = ()
    state: State = "up"
    #: Hard dependencies that nobody meets: `integration_api>=1.2 (have 1.1.4)`.
    unmet: tuple[str, ...] = ()
    meta: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    shards: dict[str, list[str]] = {}
    #: Random, one per start: tells a restart from a duplicate.
    nonce: str = ""
    #: Hash of its interface.
    iface: str = ""
    pid: int = 0
    host: str = ""
    #: RFC 3339, UTC.
    started_at: str = ""


class Override(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an operator says of an instance against its own word: a persistent record of the kind
    `override`, named `<service>/<id>`."""

    state: Literal["draining", "down"]
    #: Epoch seconds after which it does not count any more; None: until it is taken back.
    until: float | None = None
    who: str = ""
    why: str = ""


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a service's calls go. Body of the object `route/<service>`.

    `versions` maps a version to its weight in basis points (they sum to 10000). The rest is what
    `fan version` sets: one-endpoint overrides, replacement by another service, stickiness, shards,
    the order of transports.
    """

    versions: dict[str, int] = {}
    overrides: dict[str, dict[str, int]] = {}
    replaced_by: str = ""
    sticky: str = ""
    shard: dict[str, Any] = {}
    transports: tuple[str, ...] = ()
    is_paused: bool = False
    #: Versions that take no calls any more: a call of one is `stale_route`.
    retired: tuple[str, ...] = ()


class ServiceInfo(msgspec.Struct, frozen=True):
    """All that the registry knows of one service, as of one reading."""

    name: str
    #: By version.
    interfaces: dict[str, Interface] = {}
    #: None: unrouted, or never adopted.
    route: Route | None = None
    #: Generation of the reading.
    gen: int = 0
    #: Generation since which the route is in force, 0 for none.
    routed_at: int = 0
    #: As they are to be treated: an operator's word counts above an instance's own.
    instances: tuple[Instance, ...] = ()
    #: What operators say now, by the id of the instance.
    overrides: dict[str, Override] = {}
    #: The config `SERVICE/policy`.
    policy: dict[str, Any] = {}

    @property
    def is_unrouted(self) -> bool:
        """Whether no route says where its calls go."""
        return self.route is None

    @property
    def is_known(self) -> bool:
        """Whether it was ever registered."""
        return bool(self.interfaces) or self.route is not None or bool(self.instances)

    def live(self, version: str) -> tuple[Instance, ...]:
        """The instances of a version that take calls: those that are up, unless it is retired."""
        if self.route is not None and version in self.route.retired:
            return ()
        return tuple(i for i in self.instances if i.version == version and i.state == "up")

    def interface_for(self, version: str = "") -> Interface | None:
        """The interface of a version; without one, of the routed version with the largest
        weight."""
        if not version and self.route is not None and self.route.versions:
            version = max(self.route.versions, key=lambda v: self.route.versions[v])  # type: ignore[union-attr]
        if version:
            return self.interfaces.get(version)
        return next(iter(self.interfaces.values()), None)


class Applied(msgspec.Struct, frozen=True):
    """The generation that somebody has in force, told apart from others of that number by its op.
    Generation 0: none yet."""

    epoch: str = ""
    gen: int = 0
    op: str = ""


class Vote(msgspec.Struct, frozen=True):
    """What a consumer says of a proposal: whether it could take it, and if not, why."""

    ok: bool
    error: str = ""


class Nack(msgspec.Struct, frozen=True):
    """The generation that a consumer refused, and why."""

    gen: int
    error: str


class Consumer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One App that uses services and configs, as a record of the kind `subs`. It is there before it
    reads, and `applied` says which generation is in force for all of its `uses`."""

    id: str
    #: Services: those that it calls, and the owners of the configs that it reads.
    uses: tuple[str, ...] = ()
    applied: Applied = Applied()
    #: By the id of the op that was proposed.
    votes: dict[str, Vote] = {}
    nack: Nack | None = None
    app: str = ""
    pid: int = 0
    host: str = ""
    #: RFC 3339, UTC: when it was written last.
    at: str = ""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """What a generation would change, for its consumers to say whether they can take it: a record
    of the kind `prep` under the id of its op, gone with its coordinator."""

    #: Object -> the body that it would have; None: it would be gone.
    changes: dict[str, bytes | None]
    verb: str = ""
    who: str = ""
    #: Epoch seconds after which nobody waits for a vote.
    until: float = 0.0


class Choice(msgspec.Struct, frozen=True):
    """Where a call goes, and why: one line a step. `instance` is None for an address that the
    caller named."""

    service: str
    method: str
    address: Address
    version: str = ""
    gen: int = 0
    instance: Instance | None = None
    why: tuple[str, ...] = ()

    @property
    def transport(self) -> str:
        """The scheme of the transport: `ipc`, `http`."""
        return transport_of(self.address)


#: Schemes of addresses that are another name of a transport.
ALIASES = {"unix": "ipc", "https": "http", "amqps": "amqp", "rediss": "redis"}


def transport_of(address: Address) -> str:
    """Name of the transport that carries to an address."""
    return ALIASES.get(address.scheme, address.scheme)


class QueueName(msgspec.Struct, frozen=True):
    """One queue, named the same on every broker: `greeter` holds the pushes of a service,
    `greeter@1.0.0` the calls of one version, `orders.created/shop` the events of a topic for a
    group."""

    service: str = ""
    version: str = ""
    topic: str = ""
    group: str = ""

    def __str__(self) -> str:
        if self.topic:
            return f"{self.topic}/{self.group}"
        return f"{self.service}@{self.version}" if self.version else self.service

    @property
    def kind(self) -> Literal["call", "push", "event"]:
        """What waits in it."""
        if self.topic:
            return "event"
        return "call" if self.version else "push"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The name that `str()` gives. Raises ValueError for what is none."""
        topic, slash, group = text.rpartition("/")
        if slash:
            if topic and group:
                return cls(topic=topic, group=group)
        else:
            service, at, version = text.partition("@")
            if service and bool(version) is bool(at):
                return cls(service, version)
        raise ValueError(
            f"{text!r} is no queue: SERVICE (pushes), SERVICE@VERSION (calls) or TOPIC/GROUP"
        )


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """How one queue stands. None: the broker does not tell."""

    name: QueueName
    #: Messages that wait for a worker.
    ready: int = 0
    #: Messages that a worker has in hand.
    in_flight: int | None = None
    #: Messages that nobody could handle, or that were not worth it any more.
    dead: int = 0
    consumers: int | None = None
    #: Seconds that the first message has waited.
    oldest: float | None = None


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One message in a queue, for who looks at it. `number` is the broker's own name of it."""

    number: str
    request: Request
    #: How often it was given to a worker.
    deliveries: int = 0
    #: When it was accepted, RFC 3339 UTC; empty where the broker does not tell.
    at: str = ""
    #: Of a dead letter: why nobody handled it, as `CODE/REASON: message`.
    error: str = ""
