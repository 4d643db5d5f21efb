"""The calls of an App: those of its client, under the App's own name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from fan.client import Client
from fan.context import current
from fan.endpoint import Rpc

if TYPE_CHECKING:
    from concurrent.futures import Future


class Calls:
    """What calls, pushes and publishes through `client`; `Client` says more of each."""

    client: Client

    @property
    def rpc(self) -> Rpc:
        """`app.rpc.greeter.hello(name="Ada")`."""
        found = self.__dict__.get("_rpc")
        if found is None:
            found = self.__dict__["_rpc"] = Rpc(self.client)
        return found

    def using(self, **options: Any) -> Client:
        """Call with other options: `app.using(timeout=0.3, want="2").call(...)`; see `Options`."""
        return self.client.using(**options)

    def bind(self, target: str) -> Callable[..., Any]:
        """A callable for one target."""
        return self.client.bind(target)

    def call(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call `service.method` and wait for the result."""
        return self.client.bind(target)(*args, **kwargs)

    async def acall(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call from a coroutine."""
        return await self.client.acall(target, *args, **kwargs)

    def submit(self, target: str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call in the background."""
        return self.client.submit(target, *args, **kwargs)

    def push(self, target: str, /, *args: Any, **kwargs: Any) -> None:
        """Hand a message over; return once it is accepted."""
        self.client.push(target, *args, **kwargs)

    async def apush(self, target: str, /, *args: Any, **kwargs: Any) -> None:
        """Hand a message over from a coroutine."""
        await self.client.apush(target, *args, **kwargs)

    def publish(self, topic: str, /, *args: Any, **kwargs: Any) -> None:
        """Tell an event to all who subscribed to its topic; return once the broker has it."""
        self.client.publish(topic, *args, **kwargs)

    async def apublish(self, topic: str, /, *args: Any, **kwargs: Any) -> None:
        """Tell an event from a coroutine."""
        await self.client.apublish(topic, *args, **kwargs)

    def stream(self, target: str, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """The items of a streaming method."""
        return self.client.stream(target, *args, **kwargs)

    def astream(self, target: str, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """The items of a streaming method, awaited."""
        return self.client.astream(target, *args, **kwargs)

    @property
    def context(self) -> Any:
        """The context of the call that is being served here, None outside of any."""
        return current()
