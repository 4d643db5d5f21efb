"""Puts the trace on every log record, foreign libraries' included; an access log if asked."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from fan.context import current
from fan.errors import FanError
from fan.middleware.base import Inbound, InboundNext, Middleware, Steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import LogRecord

#: What every record gets; empty outside of any call.
FIELDS = ("trace_id", "span_id", "service")
#: Logger of the access log.
ACCESS_LOGGER = "fan.access"

_lock = threading.Lock()


class Logs(Middleware):
    """While one of these is open, a format may use `%(trace_id)s`, `%(span_id)s` and `%(service)s`
    with any logger and handler. Wraps the record factory that it finds, once for all Apps of the
    process; the last `close()` takes the wrapper out again, or puts it to sleep where somebody
    wrapped it in turn."""

    def __init__(self) -> None:
        self._factory: _Factory | None = _install()

    def start_over(self) -> None:
        """It goes on; the lock is nobody's."""
        global _lock
        _lock = threading.Lock()

    def close(self) -> None:
        """Stop adding the fields."""
        factory, self._factory = self._factory, None
        if factory is not None:
            _remove(factory)


class AccessLog(Middleware):
    """One INFO line to `fan.access` for each request: target, outcome, milliseconds, caller."""

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        import logging

        self._clock = clock
        self._info = logging.getLogger(ACCESS_LOGGER).info

    def on_request(self, inbound: Inbound, next: InboundNext) -> Steps:
        """Raises nothing of its own."""
        begun, outcome = self._clock(), "closed"
        try:
            response = yield from next(inbound)
            outcome = response.code
            return response
        except FanError as error:
            outcome = f"{error.code}/{error.reason}" if error.reason else error.code
            raise
        finally:
            self._write(inbound, outcome, 1000 * (self._clock() - begun))

    def _write(self, inbound: Inbound, outcome: str, ms: float) -> None:
        request, context = inbound.request, inbound.context
        # The fields are given here, because the layers run outside of the handler's own context.
        extra = {
            "trace_id": context.trace_id,
            "span_id": context.span_id,
            "service": context.service,
        }
        self._info(
            "%s.%s %s %.1f ms caller=%s attempt=%d",
            *(request.service, request.method, outcome, ms, request.caller or "-", request.attempt),
            extra=extra,
        )


class _Factory:
    """A log record factory around another one."""

    def __init__(self, previous: Callable[..., LogRecord]) -> None:
        self.previous = previous
        self.users = 0

    def __call__(self, *args: Any, **kwargs: Any) -> LogRecord:
        record = self.previous(*args, **kwargs)
        if self.users:
            context = current()
            fields = _Fields(record.__dict__)
            if context is None:
                fields.update(trace_id="", span_id="", service="")
            else:
                fields.update(
                    trace_id=context.trace_id, span_id=context.span_id, service=context.service
                )
            record.__dict__ = fields
        return record


class _Fields(dict[str, Any]):
    """The attributes of a record, which seem not to contain ours: `Logger.makeRecord` raises
    KeyError where `extra=` names an existing one, and foreign code that logs `extra={"service":
    ...}` shall go on working. Its value wins."""

    def __contains__(self, key: object) -> bool:
        return key not in FIELDS and super().__contains__(key)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)  # a pickled record does not need fan to be read


def _install() -> _Factory:
    import logging

    with _lock:
        factory = found = logging.getLogRecordFactory()
        while not isinstance(found, _Factory):
            # A wrapper made by somebody else hides what is below it, but for the usual names.
            inner = getattr(found, "previous", None) or getattr(found, "__wrapped__", None)
            if not callable(inner):
                found = _Factory(factory)
                logging.setLogRecordFactory(found)
                break
            found = inner
        found.users += 1
        return found


def _remove(factory: _Factory) -> None:
    import logging

    with _lock:
        factory.users -= 1
        if not factory.users and logging.getLogRecordFactory() is factory:
            logging.setLogRecordFactory(factory.previous)
