"""Apps that outlive a command, so that the next one finds its connections open: for `fan shell`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from fan import App, Settings


class Keeper:
    """One App for each set of settings. Its owner closes it."""

    def __init__(self) -> None:
        self._apps: dict[tuple[Settings, bool, bool], App] = {}
        self._on_stale: Callable[[float], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Keeper apps={len(self._apps)}>"

    def app(
        self, settings: Settings, *, live: bool, on_stale: Callable[[float], None] | None = None
    ) -> Any:
        """An App like any other, but that leaving its `with` block closes nothing. `on_stale` is
        told of what is old until the next App is asked for; without it nothing old is taken."""
        from fan import App

        self._on_stale = on_stale
        takes_old = on_stale is not None
        found = self._apps.get((settings, live, takes_old))
        if found is None:
            tell = self._tell if takes_old else None
            found = App(settings=settings, live=live, name="fan", on_stale=tell)
            self._apps[settings, live, takes_old] = found
        return _Kept(found)

    def _tell(self, age: float) -> None:
        if self._on_stale is not None:
            self._on_stale(age)

    def close(self) -> None:
        """Close every App. Twice does no harm."""
        while self._apps:
            self._apps.popitem()[1].close()


class _Kept:
    """An App in the hands of one command."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._sample = app.sample

    def __enter__(self) -> App:
        return self._app

    def __exit__(self, *exc: object) -> None:
        self._app.sample = self._sample  # what a command asked for is over with it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)
