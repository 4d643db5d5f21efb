"""A call of a service in the same process: the method itself, in a child context."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from fan.codec import decode_result, encode_arguments, encode_result
from fan.context import Context, Site, _current, new_id
from fan.errors import (
    NO,
    YES,
    DeadlineExceeded,
    FailedPrecondition,
    FanError,
    InvalidArgument,
    Unimplemented,
)
from fan.message import MAX_HOPS, MAX_TIMEOUT, Request, Response
from fan.middleware.base import Options
from fan.runner import Expired

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fan.app import App
    from fan.endpoint import Endpoint
    from fan.hosting import Hosted
    from fan.service import Method


class LocalSite(Site, frozen=True, kw_only=True):
    """What a plain call of a hosted method needs: see `endpoint`. `timeout` is seconds."""

    fn: Callable[..., Any]
    timeout: float
    leaving: Callable[[Exception], BaseException]

    def child(self, parent: Context, start: float) -> Context:
        """The context below `parent`. Raises DeadlineExceeded, executed no, when its time is over,
        and FailedPrecondition (max_hops) when it is too deep."""
        deadline = parent.own_deadline or start + self.timeout
        if parent.hops >= MAX_HOPS:
            deep = FailedPrecondition(
                f"{self.service}.{self.method}: more than {MAX_HOPS} calls deep: a loop?",
                reason="max_hops",
            )
            deep.target = f"{self.service}.{self.method}"
            raise deep
        if start >= deadline:
            exc = DeadlineExceeded(
                f"{self.service}.{self.method}: the deadline is over, nothing was called",
                reason="client_timer",
                executed=NO,
            )
            exc.target = f"{self.service}.{self.method}"
            raise exc
        return Context(parent, self, deadline)


class LocalCall:
    """One method of a hosted service, as called from within its own App. Arguments and result go by
    reference; with `settings.strict_local` they are copied as a wire would. A plain method called
    with no options of its own has a `site`, and is then called by the endpoint itself."""

    __slots__ = (
        "_app",
        "_copies",
        "_has_options",
        "_method",
        "_options",
        "_site",
        "call",
        "site",
        "target",
    )

    def __init__(self, app: App, hosted: Hosted, method: Method, options: Options) -> None:
        self._app = app
        self._method = method
        self._options = options
        self.target = f"{hosted.name}.{method.name}"
        self._copies = app.settings.strict_local
        timeout = method.timeout if options.timeout is None else options.timeout
        self._site = LocalSite(
            app=app,
            service=hosted.name,
            method=method.name,
            instance=hosted.instance_id,
            fn=method.fn,
            timeout=min(app.settings.timeout if timeout is None else timeout, MAX_TIMEOUT),
            leaving=self._leaving,
        )
        is_plain = method.kind == "plain" and not self._copies
        bare = msgspec.structs.replace(options, timeout=None, want="", transport="", retries=None)
        self._has_options = bare != Options()
        is_fast = is_plain and timeout is None and not self._has_options
        self.site: LocalSite | None = self._site if is_fast else None
        self.call: Callable[..., Any] = self._call_plain
        if method.kind == "async":
            self.call = self._call_async_method
        elif method.is_stream:
            self.call = self._call_stream

    @classmethod
    def of(cls, app: App, hosted: Hosted, endpoint: Endpoint, options: Options) -> LocalCall | None:
        """The direct call of an endpoint; None where the service has no such method, so that the
        endpoint says so when it is called."""
        method = hosted.table.get(endpoint.method)
        return (
            cls(app, hosted, method, options)
            if method is not None
            else Missing(app, hosted, endpoint)
        )

    async def acall(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Await the call: an `async def` method on the App's loop thread, a plain one in the
        pool. When no thread is free before its deadline it does not run."""
        if self._method.kind != "async":
            from fan.pool import awaited

            start = time.monotonic()
            run = self.later(args, kwargs, start)
            deadline = self._deadline(_current.get(), start)
            return await awaited(self._app.pool, run, deadline, self._unbegun)
        if self._copies:
            args, kwargs = self._copied(args, kwargs)
        context = self._make(time.monotonic())
        try:
            if self._app.runner.is_current:
                value = await self._awaited_here(context, args, kwargs)
            else:
                import asyncio

                value = await asyncio.wrap_future(self._started(context, args, kwargs))
        except Expired as exc:
            raise self._expired() from exc
        except Exception as exc:
            error = self._leaving(exc)
            if error is exc:
                raise
            raise error from exc
        return self._returned(value, context)

    async def _awaited_here(
        self, context: Context, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The handler, in the task of another that runs on the same loop. Raises Expired."""
        import asyncio

        token = _current.set(context)
        try:
            async with asyncio.timeout(context.remaining) as timer:
                return await self._method.fn(*args, **kwargs)
        except TimeoutError as exc:
            if timer.expired():
                raise Expired from exc
            raise  # the handler's own
        finally:
            _current.reset(token)

    def _started(
        self, context: Context, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """The handler, on the loop thread, which has all that `async def` handlers made."""
        from contextvars import copy_context

        variables = copy_context()
        variables.run(_current.set, context)
        coroutine = self._method.fn(*args, **kwargs)
        return self._app.runner.start(coroutine, variables, context.remaining)

    def later(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], start: float
    ) -> Callable[[], Any]:
        """The call for another thread, with the caller's context; its time runs from `start`."""
        from contextvars import copy_context

        if self._method.kind == "plain":
            return partial(copy_context().run, self._run_plain, start, args, kwargs)
        return partial(copy_context().run, partial(self.call, *args, **kwargs))

    def _deadline(self, parent: Context | None, start: float) -> float:
        """When the time of a call that was made at `start` is over."""
        own = start + self._site.timeout
        if parent is None or parent.own_deadline is None:
            return own
        is_own = self._options.timeout is not None or self._method.timeout
        return min(own, parent.own_deadline) if is_own else parent.own_deadline

    def _make(self, start: float) -> Context:
        """The child context of one call. Raises as `LocalSite.child` does."""
        site, parent = self._site, _current.get()
        if parent is None:
            context = Context(None, site, self._deadline(parent, start))
        else:
            context = site.child(parent, start)
            context.own_deadline = self._deadline(parent, start)
        if (context.own_deadline or start) <= time.monotonic():
            raise self._unbegun()
        if self._has_options:
            context.request = self._request(context, parent)
        return context

    def _request(self, context: Context, parent: Context | None) -> Request:
        """The envelope of a local call that has options: what the handler sees of them."""
        options = self._options
        left = (context.own_deadline or 0.0) - time.monotonic()
        return Request(
            id=new_id(),
            service=self._site.service,
            method=self._site.method,
            timeout_ms=max(1, int(left * 1000)),
            key=options.key or (parent.child_key() if parent is not None else ""),
            want=options.want,
            gen=context.gen,
            shard=options.shard,
            traceparent=context.traceparent,
            tracestate=context.tracestate,
            baggage={**context.baggage, **options.baggage},
            headers=options.headers,
            caller=options.caller or context.caller,
            principal=options.principal or context.principal,
            hops=context.hops,
        )

    def _call_plain(self, *args: Any, **kwargs: Any) -> Any:
        return self._run_plain(time.monotonic(), args, kwargs)

    def _run_plain(self, start: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._copies:
            args, kwargs = self._copied(args, kwargs)
        context = self._make(start)
        token = _current.set(context)
        try:
            value = self._method.fn(*args, **kwargs)
        except Exception as exc:
            error = self._leaving(exc)
            if error is exc:
                raise
            raise error from exc
        finally:
            _current.reset(token)
        return self._returned(value, context)

    def _call_async_method(self, *args: Any, **kwargs: Any) -> Any:
        """An `async def` method for a caller who waits: on the loop thread."""
        if self._copies:
            args, kwargs = self._copied(args, kwargs)
        if self._app.runner.is_current:
            raise self._aimed(
                FailedPrecondition(
                    f"{self.target} runs on the event loop that this call would block: await acall",
                    executed=NO,
                )
            )
        context = self._make(time.monotonic())
        try:
            value = self._started(context, args, kwargs).result()
        except Expired as exc:
            raise self._expired() from exc
        except Exception as exc:
            error = self._leaving(exc)
            if error is exc:
                raise
            raise error from exc
        return self._returned(value, context)

    def _call_stream(self, *args: Any, **kwargs: Any) -> Any:
        raise self._aimed(
            Unimplemented(
                f"{self.target} is a stream: read it with stream()", reason="streaming_unsupported"
            )
        )

    def _copied(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            return self._method.signature.bind_body(*encode_arguments(args, kwargs))
        except FanError as exc:
            exc.message = f"{self.target}: {exc.message}"
            raise self._aimed(exc) from None

    def _returned(self, value: Any, context: Context) -> Any:
        if self._copies:
            try:
                content_type, body = encode_result(value)
            except FanError as exc:
                raise self._aimed(exc) from None
            value = decode_result(Response(id="", content_type=content_type, body=body))
        if context.own_deadline is not None and time.monotonic() > context.own_deadline:
            raise self._late()
        return value

    def _leaving(self, exc: Exception) -> BaseException:
        trace = exc.__traceback__
        if type(exc) is TypeError and trace is not None and trace.tb_next is None:
            # Raised by the call itself, not inside the handler: the arguments do not fit.
            return self._aimed(
                InvalidArgument(f"{self.target}: {exc}", reason="bad_signature", executed=NO)
            )
        if self._app.errors.is_plain(type(exc)) and not hasattr(exc, "__fan_target__"):
            exc.__fan_target__ = self.target  # type: ignore[attr-defined]
            return exc
        return self._aimed(self._app.errors.leaving(exc))

    def _unbegun(self) -> FanError:
        return self._aimed(
            DeadlineExceeded(
                f"{self.target}: no time is left to call it", reason="client_timer", executed=NO
            )
        )

    def _expired(self) -> FanError:
        return self._aimed(
            DeadlineExceeded(
                f"{self.target} did not end before its deadline", reason="server_timer"
            )
        )

    def _late(self) -> FanError:
        return self._aimed(
            DeadlineExceeded(
                f"{self.target} returned after its deadline", reason="server_timer", executed=YES
            )
        )

    def _aimed(self, exc: FanError) -> FanError:
        exc.target = self.target
        return exc


class Missing(LocalCall):
    """A method that the hosted service does not have."""

    __slots__ = ()

    def __init__(self, app: App, hosted: Hosted, endpoint: Endpoint) -> None:
        self._app = app
        self.target = f"{endpoint.service}.{endpoint.method}"
        self.site = None

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                hosted.method(endpoint.method)
            except FanError as exc:
                raise self._aimed(exc) from None

        self.call = call

    def later(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], start: float
    ) -> Callable[[], Any]:
        """Raises Unimplemented where it is called."""
        return self.call

    async def acall(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Raises Unimplemented."""
        return self.call()
