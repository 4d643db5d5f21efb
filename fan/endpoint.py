"""How a call looks in code: `app.rpc.service.method(...)`, and a bound endpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fan.codec import decode_result, encode_arguments
from fan.context import Context, _current
from fan.errors import FanError
from fan.routing import parse_target

if TYPE_CHECKING:
    from fan.client import Client
    from fan.local import LocalCall, LocalSite


class Endpoint:
    """One target of one client. `call` is what `bind` gives away; `local` is set while the service
    is hosted in this process and routed to."""

    __slots__ = (
        "__weakref__",
        "_local",
        "_set_site",
        "call",
        "client",
        "method",
        "service",
        "want",
    )

    def __init__(self, client: Client, target: str) -> None:
        self.client = client
        self.service, self.method, self.want = parse_target(target)
        self._local: LocalCall | None = None
        self.call, self._set_site = _callable(self)

    def __repr__(self) -> str:
        where = "local" if self._local is not None else "remote"
        return f"<Endpoint {self.service}.{self.method} {where}>"

    @property
    def local(self) -> LocalCall | None:
        """The direct call, or None."""
        return self._local

    @local.setter
    def local(self, local: LocalCall | None) -> None:
        self._local = local
        self._set_site(local.site if local is not None else None)

    def slow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Every call that is not a plain method of this process."""
        if self._local is not None:
            return self._local.call(*args, **kwargs)
        try:
            content_type, body = encode_arguments(args, kwargs)
            return decode_result(self.client.exchange("call", self, content_type, body))
        except FanError as exc:
            self.aim(exc)
            raise

    def aim(self, exc: FanError) -> FanError:
        """An error of a call of this endpoint, which says so: to a handler that lets it out it is
        one of a call that it made, not its own."""
        exc.target = exc.target or f"{self.service}.{self.method}"
        return exc


def _callable(endpoint: Endpoint) -> tuple[Callable[..., Any], Callable[[LocalSite | None], None]]:
    """The function that calls an endpoint, and the one that tells it of a new local target.

    One frame, and nothing but a child context around the method: these lines are what a local call
    costs. A changed target is swapped in by one assignment, so a call never asks. Nor does it look
    at the clock again when the method has come back: one that does so late has run, and a caller
    who waits for it from elsewhere goes by a clock of its own.
    """
    get, enter, leave, now = _current.get, _current.set, _current.reset, time.monotonic
    site: LocalSite | None = None

    def call(*args: Any, **kwargs: Any) -> Any:
        here = site
        if here is None:
            return endpoint.slow(args, kwargs)
        parent = get()
        if parent is None:
            context = Context(None, here, now() + here.timeout)
        else:
            context = here.child(parent, now())
        token = enter(context)
        try:
            return here.fn(*args, **kwargs)
        except Exception as exc:
            error = here.leaving(exc)
            if error is exc:
                raise
            raise error from exc
        finally:
            leave(token)

    def set_site(new: LocalSite | None) -> None:
        nonlocal site
        site = new

    call.__name__ = call.__qualname__ = f"{endpoint.service}.{endpoint.method}"
    call.__doc__ = f"Call {endpoint.service}.{endpoint.method}."
    return call, set_site


class Rpc:
    """An attribute path that ends in a call. It has no names of its own that a method could
    want."""

    def __init__(self, client: Client, path: str = "") -> None:
        self.__dict__["_Rpc__client"] = client
        self.__dict__["_Rpc__path"] = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        path = f"{self.__path}.{name}" if self.__path else name
        # Found in the instance from now on, so that a path costs its look-ups only once.
        child = self.__dict__[name] = Rpc(self.__client, path)
        return child

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        call = self.__dict__.get("_Rpc__call")
        if call is None:
            call = self.__dict__["_Rpc__call"] = self.__client.bind(self.__path)
        return call(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Rpc {self.__path}>"
