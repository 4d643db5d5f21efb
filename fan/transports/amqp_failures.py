"""What can go wrong with a broker, as the FanErrors that a caller gets."""

from __future__ import annotations

from typing import Literal

from fan.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

#: AMQP's reply codes (https://www.rabbitmq.com/amqp-0-9-1-reference.html#constants).
ACCESS_REFUSED, NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406
NOT_ALLOWED, INTERNAL_ERROR = 530, 541


class Refused(Exception):
    """The broker closed a channel because of what was asked for."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class Lost(Exception):
    """The connection or the channel ended under what was asked for."""


def connecting(url: str, user: str, exc: BaseException) -> FanError:
    """The error for a connection that could not be made."""
    cause = _cause(exc)
    name = type(cause).__name__
    code, text = _closed(cause)
    if name in ("ProbableAuthenticationError", "AuthenticationError") or code == ACCESS_REFUSED:
        if "vhost" in text:
            return PermissionDenied(
                f"{url}: {user} may not use this virtual host", reason="no_access"
            )
        return Unauthenticated(
            f"{url} does not let {user} in: user or password are wrong", reason="bad_login"
        )
    if name == "ProbableAccessDeniedError" or code == NOT_ALLOWED:
        if "not found" in text or "NOT_FOUND" in text:
            return NotFound(f"{url}: there is no such virtual host", reason="no_such_vhost")
        return PermissionDenied(f"{url}: {user} may not use this virtual host", reason="no_access")
    return Unavailable(f"cannot connect to {url}: {_sentence(cause)}", reason="connect_failed")


def _cause(exc: BaseException) -> BaseException:
    """The last attempt's own error, out of the ones that pika wraps around it."""
    while True:
        inner = getattr(exc, "exceptions", None) or getattr(exc, "exception", None)
        if isinstance(inner, list | tuple):
            inner = inner[-1] if inner else None
        if inner is None and exc.args:
            inner = exc.args[0]
        if not isinstance(inner, BaseException):
            return exc
        exc = inner


def _closed(exc: BaseException) -> tuple[int, str]:
    """The broker's reason for closing, where it gave one: pika tells some of them as text only."""
    code = getattr(exc, "reply_code", None)
    text = str(getattr(exc, "reply_text", "") or exc)
    if not isinstance(code, int):
        code = next((c for c in (ACCESS_REFUSED, NOT_ALLOWED) if f"({c})" in text), 0)
    return code, text


def _sentence(exc: BaseException) -> str:
    if isinstance(exc, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(exc, TimeoutError):
        return "it does not answer"
    if why := getattr(exc, "verify_message", ""):
        return f"its certificate is not trusted: {why}"
    if getattr(exc, "reason", "") == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS: without it, it is amqp://"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    if "Timeout" in type(exc).__name__ or "Timeout while setting up" in str(exc):
        return "it accepts connections and says nothing"
    if type(exc).__name__ == "IncompatibleProtocolError":
        return "it does not speak AMQP 0-9-1: over TLS, it is amqps://"
    text = str(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def lost(url: str, why: object, executed: Literal["no", "maybe"] = "maybe") -> Unavailable:
    """The error for a connection that went away under a call."""
    text = "before an answer came" if executed == "maybe" else "before it was sent"
    return Unavailable(
        f"the connection to {url} was lost {text} ({why})",
        reason="connection_lost",
        executed=executed,
    )


def closed() -> Unavailable:
    """The error of a transport that was closed, for what was not sent."""
    return Unavailable("this transport is closed", reason="connect_failed")


def late(timeout_ms: int, *, was_sent: bool, why: str = "") -> DeadlineExceeded:
    """The error for a call that ran out of time."""
    return DeadlineExceeded(
        f"no reply within {timeout_ms} ms" + (f": {why}" if why else ""),
        reason="client_timer",
        executed="maybe" if was_sent else "no",
    )


def unroutable(what: str, url: str) -> Unavailable:
    """The error for a queue that is not there."""
    return Unavailable(f"nobody takes {what} from {url}", reason="unroutable")


def nacked(url: str) -> Unavailable:
    """The error for a message that the broker could not take over."""
    return Unavailable(f"{url} could not take the message over", reason="unroutable")


def too_large(
    what: str, size: int, limit: int, executed: Literal["no", "yes"]
) -> ResourceExhausted:
    """The error for a body above the limit."""
    return ResourceExhausted(
        f"{what} has {size} bytes and the limit is {limit}; raise the setting max_body",
        reason="payload_too_large",
        executed=executed,
    )


def unsendable(exc: BaseException) -> InvalidArgument:
    """The error for what AMQP has no form for: a name above 255 bytes, a lone surrogate."""
    return InvalidArgument(f"the request cannot be sent: {exc}", reason="malformed")


def refused(url: str, what: str, exc: Refused) -> FanError:
    """The error for what the broker did not do."""
    text = f"{url} refused {what}: {exc.text}"
    if exc.code == ACCESS_REFUSED:
        return PermissionDenied(text, reason="no_access")
    if exc.code == NOT_FOUND:
        return NotFound(text, reason="no_such_queue")
    return FailedPrecondition(text, reason="bad_queue")
