"""Every error that fan raises; how one travels stands in `error_types`.

The tree (the seventeen gRPC codes, less `ok`)::

    FanError
    ├── Cancelled            ├── NotFound             ├── OutOfRange
    ├── Unknown              ├── AlreadyExists        ├── Unimplemented
    │   └── RemoteError      ├── Aborted              ├── Internal
    ├── InvalidArgument      ├── PermissionDenied     ├── Unavailable
    ├── DeadlineExceeded     ├── Unauthenticated      └── DataLoss
    │                        ├── ResourceExhausted
    │                        └── FailedPrecondition

`code` is one of the codes, `reason` a free word that says which case of the code it is, and
`executed` says whether the handler ran: "no", "maybe" or "yes". `executed` alone decides whether a
retry is safe. Code names and their HTTP statuses: https://grpc.io/docs/guides/status-codes/ and
google.rpc.Code.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

Executed = Literal["no", "maybe", "yes"]

NO: Executed = "no"
MAYBE: Executed = "maybe"
YES: Executed = "yes"

#: What the runtime's own reasons say about `executed`; anything else follows the class default.
EXECUTED_BY_REASON: dict[str, Executed] = {
    "expired_in_queue": NO,
    "client_timer": MAYBE,
    "server_timer": MAYBE,
    "connection_lost": MAYBE,
    "no_instance": NO,
    "unroutable": NO,
    "connect_failed": NO,
    "draining": NO,
    "circuit_open": NO,
    "downstream_failed": YES,
}


class FanError(Exception):
    """A failure that fan understands: the base of every error that it raises.

    `message` is a sentence for a person, `details` a JSON value for a program, `retry_after_ms` the
    milliseconds after which the callee wants to see a retry. `type` is the registered stable name
    of an application's own error. `target` is the `service.method` whose call failed: it is set
    when the error comes out of a call, and None on an error that somebody has just made.
    """

    code: str = "unknown"
    #: HTTP status of the code.
    http_status: ClassVar[int] = 500
    #: `executed` where neither the reason nor the caller says.
    default_executed: ClassVar[Executed] = MAYBE
    #: Stable name under which an application's own subclass travels.
    type: str | None = None

    # What a subclass has whose `__init__` does not call this one.
    message: str = ""
    reason: str = ""
    executed: Executed = MAYBE
    details: Any = None
    retry_after_ms: int | None = None
    target: str | None = None

    def __init__(
        self,
        message: str = "",
        *,
        reason: str = "",
        executed: Executed | None = None,
        details: Any = None,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.executed = executed or EXECUTED_BY_REASON.get(reason) or self.default_executed
        self.details = details
        self.retry_after_ms = retry_after_ms
        self.target = None

    def __str__(self) -> str:
        return str(self.message)

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may be sent again without knowing the method: it did not run."""
        return self.executed == NO and self.code in RETRYABLE_CODES

    @property
    def is_declared(self) -> bool:
        """Whether it is an application's own class: an answer of the callee, and no fault of it."""
        return self.__class__ is not RemoteError and self.__class__ is not CLASSES.get(self.code)


class Cancelled(FanError):
    """The caller gave up before there was a result."""

    code = "cancelled"
    http_status = 499


class Unknown(FanError):
    """The handler raised something that nobody registered, or a call it made failed."""

    code = "unknown"
    http_status = 500
    default_executed = YES


class RemoteError(Unknown):
    """An exception of the callee that has no class on this side: its code, type name and
    message."""

    def __init__(
        self, message: str = "", *, code: str = "unknown", type: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(message, **kwargs)
        self.code = code
        self.type = type

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.type else self.message


class InvalidArgument(FanError):
    """The arguments do not fit the method, or cannot be sent; the handler did not run."""

    code = "invalid_argument"
    http_status = 400
    default_executed = NO


class DeadlineExceeded(FanError):
    """No reply within the deadline."""

    code = "deadline_exceeded"
    http_status = 504


class NotFound(FanError):
    """Nothing of that name."""

    code = "not_found"
    http_status = 404
    default_executed = NO


class AlreadyExists(FanError):
    """Something of that name exists."""

    code = "already_exists"
    http_status = 409
    default_executed = NO


class Aborted(FanError):
    """Somebody else's change came first, or a participant said no."""

    code = "aborted"
    http_status = 409
    default_executed = NO


class PermissionDenied(FanError):
    """Known, and not allowed."""

    code = "permission_denied"
    http_status = 403
    default_executed = NO


class Unauthenticated(FanError):
    """Not known."""

    code = "unauthenticated"
    http_status = 401
    default_executed = NO


class ResourceExhausted(FanError):
    """A limit is reached; later or elsewhere it may work."""

    code = "resource_exhausted"
    http_status = 429
    default_executed = NO


class FailedPrecondition(FanError):
    """The system is not in the state that this needs; the same request fails until that changes."""

    code = "failed_precondition"
    http_status = 412
    default_executed = NO


class OutOfRange(FanError):
    """Past the end of what there is."""

    code = "out_of_range"
    http_status = 400
    default_executed = YES


class Unimplemented(FanError):
    """The callee has no such method, or the transport no such ability."""

    code = "unimplemented"
    http_status = 501
    default_executed = NO


class Internal(FanError):
    """fan or the callee broke its own rules: a result that cannot be sent, a reply that cannot
    be read."""

    code = "internal"
    http_status = 500
    default_executed = YES


class Unavailable(FanError):
    """Nobody can be reached now."""

    code = "unavailable"
    http_status = 503
    default_executed = NO


class DataLoss(FanError):
    """Data is damaged or gone."""

    code = "data_loss"
    http_status = 500
    default_executed = YES


#: The class of each code.
CLASSES: dict[str, type[FanError]] = {
    cls.code: cls
    for cls in (
        Cancelled,
        Unknown,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        Aborted,
        PermissionDenied,
        Unauthenticated,
        ResourceExhausted,
        FailedPrecondition,
        OutOfRange,
        Unimplemented,
        Internal,
        Unavailable,
        DataLoss,
    )
}

#: Codes whose "not executed" means that another try can succeed; the others fail the same way
#: again.
RETRYABLE_CODES = frozenset({"unavailable", "resource_exhausted", "deadline_exceeded", "aborted"})
