"""What travels between a caller and a service: the envelope, free of any wire form.

Field names are the wire's (README, "The envelope"); `codec` turns them into bytes or headers.
"""

from typing import Any, Literal

import msgspec

#: The version of the envelope that is spoken here.
VERSION = 1

JSON = "application/json"
#: JSON of `{"args": [...], "kwargs": {...}}`, where both kinds of argument are used at once.
FAN_JSON = "application/vnd.fan+json"
BYTES = "application/octet-stream"

#: Milliseconds that a call may take where nobody says otherwise.
DEFAULT_TIMEOUT_MS = 5000
#: Seconds that a call may take at most, 23 days: more milliseconds than poll(2) can wait for. Who
#: asks for more gets this.
MAX_TIMEOUT = 2_000_000.0
#: Calls deeper than this are refused: they are a loop.
MAX_HOPS = 32
#: Bytes of arguments or result that a transport accepts, unless its settings say otherwise.
MAX_BODY = 16 * 1024 * 1024

RequestKind = Literal["call", "stream", "push", "event"]
ResponseKind = Literal["reply", "chunk", "end"]


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One attempt at one call, push or event. `kind` "stream" is a call that asks for chunks."""

    id: str
    service: str
    method: str
    #: Milliseconds left when it was sent, relative.
    timeout_ms: int
    v: int = 1
    kind: RequestKind = "call"
    #: Idempotency key; empty means the id.
    key: str = ""
    #: Version constraint of the caller, empty for the routed version.
    want: str = ""
    #: Registry generation that the route came from, pinned for the call tree; 0 is none.
    gen: int = 0
    #: Instance that was picked; a server that hosts several versions answers with that one.
    instance: str = ""
    shard: str = ""
    #: Absolute, epoch milliseconds, advisory: the server uses the smaller one.
    deadline_ms: int | None = None
    ttl_ms: int | None = None
    #: What an event is about; who handles it stands in its subscription, not in the message.
    topic: str = ""
    traceparent: str = ""
    tracestate: str = ""
    baggage: dict[str, str] = {}
    #: The user's own, lower-case names.
    headers: dict[str, str] = {}
    caller: str = ""
    caller_instance: str = ""
    principal: str = ""
    attempt: int = 0
    hops: int = 0
    content_type: str = JSON
    body: bytes = b""


class Response(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The answer to one request, or one item (`chunk`) or the `end` of a stream.

    `code` is "ok" or one of `errors.CLASSES`; for an error `body` is empty.
    """

    id: str
    v: int = 1
    kind: ResponseKind = "reply"
    code: str = "ok"
    reason: str = ""
    message: str = ""
    type: str | None = None
    details: Any = None
    executed: Literal["no", "maybe", "yes"] = "yes"
    retry_after_ms: int | None = None
    #: Version and instance that answered: `2.0.0/greeter-5f0c`.
    served: str = ""
    gen: int = 0
    headers: dict[str, str] = {}
    seq: int = 0
    content_type: str = JSON
    body: bytes = b""

    @property
    def version(self) -> str:
        """The version that answered, empty where it did not say."""
        return self.served.partition("/")[0]

    @property
    def instance(self) -> str:
        """The id of the instance that answered, empty where it did not say."""
        return self.served.partition("/")[2]
