"""One request on its way through the layers, the handler and back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from fan.codec import encode_result
from fan.context import Context, _current
from fan.error_types import text_of
from fan.errors import (
    NO,
    YES,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    Internal,
    InvalidArgument,
    Unavailable,
)
from fan.failures import error_response
from fan.hosting import Hosted
from fan.message import MAX_TIMEOUT, Request, Response
from fan.middleware.base import Inbound, InboundNext, Sleep
from fan.runner import Expired
from fan.service import Method
from fan.transports.base import Overdue, Stream

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.dispatch import Dispatcher


class Exchange:
    """One request on its way through the layers, the handler and back."""

    __slots__ = (
        "_args", "_dispatcher", "_has_answer", "_hosted", "_is_queued", "_kwargs", "_method",
        "_on_overdue", "_started", "_steps", "context", "request",
    )  # fmt: skip

    def __init__(
        self,
        dispatcher: Dispatcher,
        request: Request,
        hosted: Hosted,
        method: Method,
        is_cancelled: Callable[[], bool] | None,
        *,
        is_queued: bool = False,
        on_overdue: Overdue | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._hosted = hosted
        self._method = method
        self.request = request
        self._started = time.monotonic()
        is_call = request.kind in ("call", "stream")
        #: Whether whoever sent it waits for what the handler does: a caller, or a queue.
        self._has_answer = is_call or is_queued
        self._is_queued = is_queued
        self._on_overdue = on_overdue if is_queued and not is_call else None
        if is_call:
            seconds = request.timeout_ms / 1000
        else:  # the sender's time was for having it accepted
            seconds = min(method.timeout or dispatcher.push_timeout, MAX_TIMEOUT)
        self.context = Context(
            site=hosted.sites[method.name],
            request=request,
            own_deadline=self._started + seconds,
            # Whoever pushed has its answer; what its connection does then is no cancellation.
            cancel_probe=is_cancelled if is_call else None,
        )

    def run(self, chain: InboundNext, peer: str) -> Response | Future[Response] | Stream:
        """Through the layers to the handler; what it gives back depends on the kind of method."""
        method, dispatcher = self._method, self._dispatcher
        inbound = Inbound(
            request=self.request,
            context=self.context,
            peer=peer,
            is_idempotent=method.is_idempotent,
            dedupe=method.dedupe,
            is_queued=self._is_queued,
            exchange=self,
        )
        dispatcher.begin(self._hosted)
        if self._hosted.is_ousted:  # since the gate: who waits for its end sees this one, or it him
            gone = Unavailable(f"{self._hosted.name} has lost its place", reason="no_instance")
            return self._done(error_response(self.request, gone, self._hosted.served))
        try:
            self._steps = chain(inbound)
        except FanError as exc:  # a layer that only looks
            return self._done(error_response(self.request, exc, self._hosted.served))
        except Exception as exc:
            return self._done(self._bug(exc))
        outcome = self._go_on()
        while type(outcome) is Sleep:
            if not method.is_stream:
                return self._put_off(outcome)
            time.sleep(outcome.seconds)
            outcome = self._go_on()
        return outcome  # type: ignore[return-value]

    def _go_on(self) -> Response | Future[Response] | Stream | Sleep:
        """To the handler, or to where a layer has to wait."""
        method = self._method
        try:
            step = next(self._steps)
            if type(step) is Sleep:
                return step
            if not self._has_answer:
                return self._accept()
            if method.kind == "plain":
                if self._on_overdue is not None:
                    return self._run_watched(self._on_overdue)
                return self._finish(self._run_plain)
            if method.kind == "async":
                return self._run_async()
            return self._open_stream()
        except StopIteration as stop:  # a layer answered without the handler
            return self._done(stop.value)
        except FanError as exc:
            return self._done(error_response(self.request, exc, self._hosted.served))
        except Exception as exc:
            return self._done(self._bug(exc))

    def _put_off(self, step: Sleep) -> Future[Response]:
        """Go on after a while, and hold no thread until then."""
        from concurrent.futures import Future

        answer: Future[Response] = Future()
        if self._on_overdue is not None:  # whoever holds the message waits for this answer alone
            self._on_overdue = partial(_settle, answer)
        self._sleep(step, answer)
        return answer

    def _sleep(self, step: Sleep, answer: Future[Response]) -> None:
        self._dispatcher.watch.add(time.monotonic() + step.seconds, partial(self._wake, answer))

    def _wake(self, answer: Future[Response]) -> None:
        try:
            self._dispatcher._app.pool.submit(self._resume, answer)
        except (RuntimeError, FanError):
            self._steps.close()
            gone = Unavailable(f"{self.request.service} has stopped", reason="draining")
            _settle(answer, self._done(error_response(self.request, gone)))

    def _resume(self, answer: Future[Response]) -> None:
        if answer.cancelled():
            self._steps.close()
            gone = Cancelled("the caller gave up", reason="caller_cancelled", executed=NO)
            self._done(error_response(self.request, gone))
            return
        outcome = self._go_on()
        if isinstance(outcome, Response):
            _settle(answer, outcome)
        elif isinstance(outcome, Sleep):
            self._sleep(outcome, answer)
        elif not isinstance(outcome, Stream):
            work = outcome
            answer.add_done_callback(lambda done: work.cancel() if done.cancelled() else None)
            work.add_done_callback(lambda done: _pass_on(done, answer))

    def bind(self) -> None:
        """Check the arguments. Raises InvalidArgument before the handler has run."""
        request = self.request
        try:
            self._args, self._kwargs = self._method.signature.bind_body(
                request.content_type, request.body
            )
        except FanError as exc:
            exc.message = f"{request.service}.{request.method}: {exc.message}"
            raise

    def _run_plain(self) -> Response:
        token = _current.set(self.context)
        try:
            value = self._method.fn(*self._args, **self._kwargs)
        except BaseException as exc:  # a handler that exits ends its call, not the server
            raise self._leaving(exc) from exc
        finally:
            _current.reset(token)
        return self._reply(value)

    def _run_watched(self, on_overdue: Overdue) -> Response:
        """Run a plain handler, which nobody can end, of a message that somebody else may handle."""
        watch, deadline = self._dispatcher.watch, self.context.own_deadline
        assert deadline is not None
        number = watch.add(deadline + watch.grace, partial(self._overdue, on_overdue))
        try:
            return self._finish(self._run_plain)
        finally:
            watch.drop(number)

    def _overdue(self, on_overdue: Overdue) -> None:
        import logging

        request = self.request
        late = DeadlineExceeded(
            f"a handler of {request.service}.{request.method} has not come back after"
            f" {time.monotonic() - self._started:.1f} s",
            reason="server_timer",
        )
        logging.getLogger("fan").error("%s: its message goes on without it", late.message)
        on_overdue(error_response(request, late, self._hosted.served))

    def _finish(self, produce: Callable[[], Response]) -> Response:
        """Send the handler's outcome up through the layers, and count the call."""
        steps = self._steps
        try:
            try:
                response = produce()
            except FanError as exc:
                steps.throw(exc)
            else:
                steps.send(response)
        except StopIteration as stop:
            return self._done(stop.value)
        except FanError as exc:
            return self._done(error_response(self.request, exc, self._hosted.served))
        except Exception as exc:
            return self._done(self._bug(exc))
        except BaseException as exc:  # Ctrl-C, on its way out of the main thread
            self._done(self._bug(exc))
            raise
        return self._done(self._bug(RuntimeError("a middleware invoked the handler twice")))

    def _done(self, response: Response) -> Response:
        seconds = time.monotonic() - self._started
        self._hosted.count(self._method.name, seconds, response.code != "ok")
        self._dispatcher.end(self._hosted)
        return response

    def _accept(self) -> Response:
        """A push that arrives without a queue: checked, accepted, and handled after the answer."""

        def handle() -> None:
            if self._method.kind == "async":
                self._run_async().add_done_callback(lambda done: self._tell(done.result()))
            else:
                self._tell(self._finish(self._run_plain))

        try:
            self._dispatcher._app.pool.submit(handle)
        except RuntimeError:
            raise Unavailable(f"{self.request.service} has stopped", reason="draining") from None
        return Response(
            id=self.request.id,
            served=self._hosted.served,
            gen=self.request.gen,
            executed="maybe",
        )

    def _tell(self, response: Response) -> None:
        """Nobody waits for what became of an accepted push, and nobody delivers it again."""
        if response.code == "ok":
            return
        import logging

        request = self.request
        name = f"{response.code}/{response.reason}" if response.reason else response.code
        logging.getLogger("fan").error(
            "a push of %s.%s failed and is lost (%s): %s: %s",
            request.service, request.method, request.id, name, response.message,
        )  # fmt: skip

    def _run_async(self) -> Future[Response]:
        from concurrent.futures import Future

        answer: Future[Response] = Future()
        variables = copy_context()
        variables.run(_current.set, self.context)
        try:
            coroutine = self._method.fn(*self._args, **self._kwargs)
        except Exception as exc:  # the arguments do not fit after all
            answer.set_result(self._finish(partial(_raise, self._leaving(exc))))
            return answer
        # Who pushed has gone, and nobody delivers it again: it may take what it takes.
        timeout = self.context.remaining if self._has_answer else None
        work = self._dispatcher._app.runner.start(coroutine, variables, timeout)
        answer.add_done_callback(lambda f: work.cancel() if f.cancelled() else None)

        def finish(done: Future[Any]) -> None:
            response = self._finish(partial(self._result_of, done))
            if answer.set_running_or_notify_cancel():
                answer.set_result(response)

        def finish_apart(done: Future[Any]) -> None:
            try:
                self._dispatcher._app.pool.submit(finish, done)
            except (RuntimeError, FanError):
                finish(done)

        # What keeps the answer for all processes waits for a disk or a broker, and the loop is
        # everybody's.
        work.add_done_callback(finish_apart if self._method.dedupe == "shared" else finish)
        return answer

    def _result_of(self, work: Future[Any]) -> Response:
        if work.cancelled():
            raise Cancelled("the caller gave up", reason="caller_cancelled")
        exc = work.exception()
        if isinstance(exc, Expired):
            raise self._expired()
        if exc is not None:
            raise self._leaving(exc) from exc
        return self._reply(work.result())

    def _expired(self) -> FanError:
        return DeadlineExceeded(
            f"{self.request.service}.{self.request.method} did not end before its deadline",
            reason="server_timer",
        )

    def _open_stream(self) -> Response | Stream:
        if self._method.kind == "async_stream" and self._dispatcher._app.runner.is_current:
            target = f"{self.request.service}.{self.request.method}"
            blocked = FailedPrecondition(
                f"{target} runs on the event loop that this stream would block: read it by astream",
                executed=NO,
            )
            return self._finish(partial(_raise, blocked))
        variables = copy_context()
        variables.run(_current.set, self.context)
        try:
            produced = self._method.fn(*self._args, **self._kwargs)
        except Exception as exc:  # the arguments do not fit after all
            return self._finish(partial(_raise, self._leaving(exc)))
        if self._method.kind == "async_stream":
            from fan.pulling import pull

            produced = pull(produced, self._dispatcher._app.runner, variables, self.context)
        chunks = self._chunks(produced, variables)
        next(chunks)  # begun, so that closing it unread runs its finally too
        return Stream(chunks=chunks, close=chunks.close)

    def _chunks(self, produced: Any, variables: Any) -> Generator[Response, None, None]:
        request, seq = self.request, 0
        end = Response(id=request.id, kind="end", served=self._hosted.served, gen=request.gen)
        context, budget = self.context, self.context.remaining or 0.0
        try:
            yield end  # for `_open_stream`; nobody sees it
            while True:
                # The deadline covers the first item, and each further one has as long.
                context.own_deadline = time.monotonic() + budget
                try:
                    value = variables.run(next, produced)
                except StopIteration:
                    break
                except Expired:
                    raise self._expired() from None
                except BaseException as exc:
                    raise self._leaving(exc) from exc
                content_type, body = encode_result(value)
                yield Response(
                    id=request.id, kind="chunk", seq=seq, content_type=content_type, body=body
                )
                seq += 1
            final = self._finish(lambda: end)
        except GeneratorExit:
            self._finish(partial(_raise, Cancelled("the reader left", reason="caller_cancelled")))
            raise
        except FanError as exc:
            final = self._finish(partial(_raise, exc))
        finally:
            _close(produced, variables)
        yield msgspec.structs.replace(final, kind="end", seq=seq)

    def _reply(self, value: Any) -> Response:
        content_type, body = encode_result(value)
        return Response(
            id=self.request.id,
            served=self._hosted.served,
            gen=self.request.gen,
            content_type=content_type,
            body=body,
        )

    def _leaving(self, exc: BaseException) -> FanError:
        """What an exception of the handler is to the caller. Ctrl-C is not the handler's: raises
        it."""
        if isinstance(exc, KeyboardInterrupt) and _is_main():
            raise exc
        if isinstance(exc, Internal) and exc.reason == "unserializable_result":
            return exc
        trace = exc.__traceback__
        if type(exc) is TypeError and trace is not None and trace.tb_next is None:
            # Raised by the call itself: a `**kwargs` method was given `self`, say.
            return InvalidArgument(f"{self.context.method}: {exc}", reason="bad_signature")
        error = self._dispatcher._app.errors.leaving(exc)
        if self._dispatcher._app.settings.allow_tracebacks:
            import traceback

            text = "".join(traceback.format_exception(exc))
            error.details = {"traceback": text, "details": error.details}
        return error

    def _bug(self, exc: BaseException) -> Response:
        """A middleware raised something that is no FanError."""
        error = Internal(
            f"{type(exc).__name__} in the server's layers: {text_of(exc)}", executed="maybe"
        )
        return error_response(self.request, error, self._hosted.served)


def _settle(answer: Future[Response], response: Response) -> None:
    from concurrent.futures import InvalidStateError

    with contextlib.suppress(InvalidStateError):  # nobody waits any more, or it came too late
        answer.set_result(response)


def _pass_on(done: Future[Response], answer: Future[Response]) -> None:
    if not done.cancelled():
        _settle(answer, done.result())


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _raise(exc: FanError) -> Response:
    if exc.code == "cancelled":
        exc.executed = YES
    raise exc


def _close(produced: Any, variables: Any) -> None:
    """End a generator. What its own clean-up raises comes after the answer, and is logged."""
    try:
        variables.run(produced.close)
    except Exception:
        import logging

        logging.getLogger("fan").exception("a stream failed as it was closed")
