"""How an error travels: what leaves a handler, and what its caller raises for it."""

from __future__ import annotations

from typing import Any, Protocol

from fan.errors import CLASSES, YES, Executed, FanError, RemoteError, Unknown


class Failure(Protocol):
    """The fields of a response that describe an error."""

    @property
    def code(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def type(self) -> str | None: ...
    @property
    def details(self) -> Any: ...
    @property
    def executed(self) -> Executed: ...
    @property
    def retry_after_ms(self) -> int | None: ...


class ErrorTypes:
    """The application's own error classes of one App, by the stable name under which they travel.

    A FanError subclass travels with its code and details; any other exception class with its `args`
    as details, which must be JSON values, and the code given here.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, type[BaseException]] = {}
        self._by_class: dict[type[BaseException], tuple[str, str]] = {}

    def register(
        self,
        cls: type[BaseException],
        type: str = "",
        code: str = "failed_precondition",
        *,
        may_share: bool = False,
    ) -> None:
        """Let `cls` come back as itself. Its name is `type`, else its `type` attribute, else its
        class name. Raises ValueError when another class holds the name; where it `may_share` that,
        as two versions of a service do, it travels under it, and the first comes back."""
        own = getattr(cls, "type", None)
        name = type or (own if isinstance(own, str) else "") or cls.__name__
        held = self._by_name.setdefault(name, cls)
        if held is not cls and not may_share:
            raise ValueError(f"the error name {name!r} is taken by {held!r}")
        self._by_class[cls] = (name, cls.code if issubclass(cls, FanError) else code)

    def name_of(self, cls: type[BaseException]) -> str:
        """The stable name of a registered class, else its class name."""
        return self._by_class.get(cls, (cls.__name__, ""))[0]

    def is_plain(self, cls: type[BaseException]) -> bool:
        """Whether a class is registered that is no FanError."""
        return cls in self._by_class and not issubclass(cls, FanError)

    def leaving(self, exc: BaseException) -> FanError:
        """What a handler's exception is to its caller: the handler had started, so `executed`
        is yes."""
        if getattr(exc, "target", None) and isinstance(exc, FanError):
            return _downstream(exc)
        registered = self._by_class.get(exc.__class__)
        if isinstance(exc, FanError):
            exc.executed = YES
            if registered is not None:
                exc.type = registered[0]
            return exc
        if getattr(exc, "__fan_target__", None):
            inner = RemoteError(text_of(exc), type=exc.__class__.__name__)
            inner.target = exc.__fan_target__  # type: ignore[attr-defined]
            return _downstream(inner)
        if registered is not None:
            name, code = registered
            return RemoteError(
                text_of(exc), code=code, type=name, details={"args": list(exc.args)}, executed=YES
            )
        return RemoteError(text_of(exc), type=exc.__class__.__name__, executed=YES)

    def arriving(self, failure: Failure, target: str) -> BaseException:
        """The exception that a failed response stands for, its `target` set."""
        cls = self._by_name.get(failure.type) if failure.type else None
        if cls is not None and not issubclass(cls, FanError):
            return self._plain(cls, failure, target)
        kwargs: dict[str, Any] = {
            "reason": failure.reason,
            "executed": failure.executed,
            "details": failure.details,
            "retry_after_ms": failure.retry_after_ms,
        }
        exc: FanError
        if cls is not None:
            exc = cls.__new__(cls)
            FanError.__init__(
                exc, failure.message, **kwargs
            )  # its own __init__ may want other things
        elif failure.type or failure.code not in CLASSES:
            exc = RemoteError(failure.message, code=failure.code, type=failure.type, **kwargs)
        else:
            exc = CLASSES[failure.code](failure.message, **kwargs)
        exc.target = target
        return exc

    def _plain(self, cls: type[BaseException], failure: Failure, target: str) -> BaseException:
        details = failure.details
        args = details.get("args") if isinstance(details, dict) else None
        if not isinstance(args, list):
            args = [failure.message]
        try:
            exc = cls(*args)  # as pickle does it: its own attributes are there too
        except Exception:  # its __init__ wants other things than its args
            exc = cls.__new__(cls)
            exc.args = tuple(args)
        exc.__fan_target__ = target  # type: ignore[attr-defined]
        return exc


def text_of(value: object) -> str:
    """`str(value)`, whatever it is, and without what no wire carries (lone surrogates)."""
    try:
        text = str(value)
    except Exception:
        return f"<a {value.__class__.__name__} that has no text>"
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _downstream(exc: FanError) -> FanError:
    """A call made by a handler failed, and the handler let it out: to its own caller it has run."""
    original = {
        "target": exc.target,
        "code": exc.code,
        "reason": exc.reason,
        "type": exc.type,
        "message": exc.message,
        "details": exc.details,
        "executed": exc.executed,
    }
    return Unknown(
        f"{exc.target}: {exc.code}: {text_of(exc)}",
        reason="downstream_failed",
        details=original,
        executed=YES,
    )
