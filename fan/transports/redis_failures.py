"""What can go wrong with a Redis, as the FanErrors that a caller gets."""

from __future__ import annotations

from fan.errors import (
    DeadlineExceeded,
    Executed,
    FailedPrecondition,
    FanError,
    Internal,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from fan.message import Request, Response
from fan.transports.redis_resp import Refusal

#: First word of an error of Redis -> what it is to a caller. It was not executed, whatever it was:
#: Redis says so before it does anything. https://redis.io/docs/latest/develop/reference/
REFUSALS: dict[str, tuple[type[FanError], str, str]] = {
    "NOAUTH": (Unauthenticated, "bad_credentials", "wants a password"),
    "WRONGPASS": (Unauthenticated, "bad_credentials", "does not take this user and password"),
    "NOPERM": (PermissionDenied, "no_permission", "does not allow this user what fan needs"),
    "OOM": (ResourceExhausted, "quota", "is out of memory (maxmemory)"),
    "READONLY": (Unavailable, "connect_failed", "is a replica that cannot be written to"),
    "LOADING": (Unavailable, "connect_failed", "is loading its data"),
    "BUSY": (Unavailable, "connect_failed", "is busy with a script"),
    "MASTERDOWN": (Unavailable, "connect_failed", "is a replica that lost its master"),
    "MISCONF": (Unavailable, "connect_failed", "takes no writes, since it cannot save them"),
    "CLUSTERDOWN": (Unavailable, "connect_failed", "is a cluster that is down"),
    "NOREPLICAS": (Unavailable, "connect_failed", "takes no writes without its replicas"),
    "MOVED": (FailedPrecondition, "is_cluster", "is a node of a cluster, which fan does not use"),
    "CROSSSLOT": (FailedPrecondition, "is_cluster", "is a node of a cluster"),
    "WRONGTYPE": (Unavailable, "unroutable", "has something else under a key of fan's"),
    "NOGROUP": (Unavailable, "unroutable", "has lost a queue"),
}

#: The same for errors whose first word is the general one, by a part of their text.
GENERAL: dict[str, tuple[type[FanError], str, str]] = {
    "DB index is out of range": (NotFound, "no_such_database", "has no database of this number"),
    "max number of clients reached": (Unavailable, "connect_failed", "takes no more connections"),
    "invalid password": (Unauthenticated, "bad_credentials", "does not take this password"),
    "without any password configured": (
        Unauthenticated, "bad_credentials", "knows no password, and was given one",
    ),
    "no password is set": (
        Unauthenticated, "bad_credentials", "knows no password, and was given one",
    ),
    "unknown command": (FailedPrecondition, "too_old", "is too old: fan needs Redis 7.0"),
}  # fmt: skip


def failure_of(refusal: Refusal, where: str) -> FanError:
    """The error for what Redis answered; nothing was done."""
    found = REFUSALS.get(refusal.code)
    if found is None:
        text = str(refusal)
        found = next((row for part, row in GENERAL.items() if part in text), None)
    if found is None:
        return Internal(f"{where} answered {refusal}", reason="malformed_reply", executed="maybe")
    cls, reason, what = found
    return cls(f"{where} {what} ({refusal})", reason=reason, executed="no")


def refused(where: str, why: object) -> Unavailable:
    """The error for a server that cannot be connected to."""
    return Unavailable(f"cannot connect to {where}: {why}", reason="connect_failed")


def lost(where: str, why: object, executed: Executed = "maybe") -> Unavailable:
    """The error for a connection that went away under a command."""
    return Unavailable(
        f"the connection to {where} was lost before an answer came ({why or 'closed'})",
        reason="connection_lost",
        executed=executed,
    )


def forsaken(where: str, service: str) -> Unavailable:
    """The error for a call whose worker went away with it."""
    return Unavailable(
        f"the worker of {service} that took the call at {where} is gone",
        reason="connection_lost",
        executed="maybe",
    )


def late(timeout_ms: int, *, was_sent: bool, where: str = "") -> DeadlineExceeded:
    """The error for a call that ran out of time; `where` is what it had no connection to."""
    return DeadlineExceeded(
        f"no reply within {timeout_ms} ms" + (f": there is no connection to {where}" * bool(where)),
        reason="client_timer",
        executed="maybe" if was_sent else "no",
    )


def too_slow(where: str, *, was_sent: bool) -> DeadlineExceeded:
    """The error for a command that Redis did not answer in time."""
    return DeadlineExceeded(
        f"{where} did not answer in time"
        if was_sent
        else f"no connection to {where} was made in time",
        reason="client_timer",
        executed="maybe" if was_sent else "no",
    )


def too_large(what: str, size: int, limit: int, executed: Executed) -> ResourceExhausted:
    """The error for a body above the limit."""
    return ResourceExhausted(
        f"{what} has {size} bytes and the limit is {limit}; raise the setting max_body",
        reason="payload_too_large",
        executed=executed,
    )


def draining(service: str) -> Unavailable:
    """The error for a call that came while its server was about to stop."""
    return Unavailable(f"{service} is draining", reason="draining")


def answer(request: Request, why: FanError, served: str = "") -> Response:
    """The reply that carries an error of ours."""
    return Response(
        id=request.id,
        code=why.code,
        reason=why.reason,
        message=why.message,
        executed=why.executed,
        served=served,
        gen=request.gen,
    )


def unroutable(request: Request, where: str) -> Response:
    """The broker's answer to a call that nobody takes."""
    version = f"@{request.want}" if request.want else ""
    instance = f" as {request.instance}" if request.instance else ""
    return Response(
        id=request.id,
        code="unavailable",
        reason="unroutable",
        message=f"nobody serves {request.service}{version}{instance} at {where}",
        executed="no",
        gen=request.gen,
    )
