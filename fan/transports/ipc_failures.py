"""What can go wrong with an ipc connection, as the FanErrors that a caller gets."""

from __future__ import annotations

from typing import Literal, NoReturn

from fan.errors import DeadlineExceeded, Internal, ResourceExhausted, Unavailable
from fan.transports.ipc_frames import Garbage, Gone, Late, TooLong


def too_large(
    what: str, size: int, limit: int, executed: Literal["no", "yes"]
) -> ResourceExhausted:
    """The error for a body above the limit."""
    return ResourceExhausted(
        f"{what} has {size} bytes and the limit is {limit}; raise the setting max_body",
        reason="payload_too_large",
        executed=executed,
    )


def lost(path: str, why: object, *, executed: Literal["no", "maybe"]) -> Unavailable:
    """The error for a connection that went away under a call."""
    text = "before the call was received" if executed == "no" else "before an answer came"
    return Unavailable(
        f"the connection to {path} was lost {text} ({why or 'closed'})",
        reason="connection_lost",
        executed=executed,
    )


def late(path: str, timeout_ms: int, *, was_sent: bool) -> DeadlineExceeded:
    """The error for a call that ran out of time."""
    return DeadlineExceeded(
        f"no reply within {timeout_ms} ms",
        reason="client_timer",
        executed="maybe" if was_sent else "no",
    )


def draining(path: str) -> Unavailable:
    """The error for a server that is about to stop."""
    return Unavailable(f"the server at {path} is stopping", reason="draining")


def refused(path: str, exc: OSError | ValueError) -> Unavailable:
    """The error for a socket that cannot be connected to."""
    if isinstance(exc, FileNotFoundError):
        why = "there is no such socket"
    elif isinstance(exc, ConnectionRefusedError):
        why = "nobody listens there"
    else:
        why = getattr(exc, "strerror", None) or str(exc)
    return Unavailable(f"cannot connect to {path}: {why}", reason="connect_failed")


def garbled(path: str, why: object, executed: Literal["no", "maybe"] = "maybe") -> Internal:
    """The error for an answer that is not one."""
    return Internal(
        f"{path} answered what is no answer: {why}", reason="malformed_reply", executed=executed
    )


def fail(
    exc: BaseException,
    path: str,
    timeout_ms: int,
    limit: int,
    executed: Literal["no", "maybe"] = "maybe",
) -> NoReturn:
    """Raise the FanError for what went wrong with a connection; anything else as it is."""
    if isinstance(exc, Gone):
        raise lost(path, exc, executed=executed) from exc
    if isinstance(exc, Late):
        raise late(path, timeout_ms, was_sent=executed != "no") from exc
    if isinstance(exc, TooLong):
        raise too_large(f"the answer of {path}", exc.length, limit, "yes") from exc
    if isinstance(exc, Garbage):
        raise garbled(path, exc) from exc
    raise exc
