"""The configs that an App uses, as values: what its mirror of the registry holds, decoded."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fan.chores import Chore
from fan.config_values import CONFIG, MISSING, decode
from fan.errors import FanError
from fan.mirror import Mirror, State
from fan.stores.base import Revision

#: Decoded values that are kept, at least.
_SPARE = 100


class Live:
    """Values of one mirror. Each body is decoded once, when it is looked at; a reading is one state
    of the mirror, so that what belongs together is read together."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        #: Of the newest state.
        self._values = _Values(State(), self._value)
        #: Object -> a body of it and what that holds.
        self._decoded: dict[str, tuple[bytes | None, Any]] = {}
        self._news: deque[Callable[[], None]] = deque()
        self._telling = Chore("fan-config", "tell of a changed config", self._tell_all)

    def use(
        self, *names: str, deadline: float | None = None, is_passing: bool = False
    ) -> Mapping[str, Any]:
        """The values of these keys and prefixes, and of what is in use besides; see
        `Mirror.use`."""
        wanted = [CONFIG + name for name in names]
        return self.of(self.mirror.use(*wanted, deadline=deadline, is_passing=is_passing))

    def tell(self, news: Callable[[], None]) -> None:
        """Have a program's own function called behind the change, by a thread for that."""
        self._news.append(news)
        self._telling.ask()

    def _tell_all(self) -> None:
        while self._news:
            try:
                self._news.popleft()()
            except Exception:  # the others are told all the same
                logging.getLogger("fan.config").exception("who follows a config failed")

    def close(self) -> None:
        """Tell nobody any more. Twice does no harm."""
        self._news.clear()
        self._telling.close()

    def of(self, state: State) -> Mapping[str, Any]:
        """The values of a state. One that somebody damaged is left out."""
        values = self._values
        if values.state is not state:
            values = _Values(state, self._value)
            if state is self.mirror.state:
                self._values = values
        return values

    def _value(self, revision: Revision) -> Any:
        """What a revision holds, `MISSING` for nothing, and for what is damaged."""
        object, body = revision.object, revision.body
        found = self._decoded.get(object)
        if found is not None and found[0] == body:
            return found[1]
        value: Any = MISSING
        if body is not None:
            try:
                value = decode(object, body)
            except FanError as exc:  # it must not keep the others from being read
                logging.getLogger("fan.config").warning("%s", exc)
        if len(self._decoded) > 2 * len(self.mirror.state.objects) + _SPARE:
            self._decoded = {}  # most of it is of what nobody uses any more
        self._decoded[object] = (body, value)
        return value

    def refresh(self) -> None:
        """Catch up with the registry. Raises what the store raises."""
        self.mirror.refresh()

    @property
    def now(self) -> Mapping[str, Any]:
        """The values that are in force, of what is in use: this waits for nobody."""
        return self.of(self.mirror.state)

    def follow(
        self, check: Callable[[Mapping[str, Any]], None], changed: Callable[[], None]
    ) -> Callable[[], None]:
        """Have `check` asked before values are put in force (it raises FanError to refuse them),
        and `changed` called with that: it takes them over, and waits for nobody. Returns what ends
        both."""
        end_check = self.mirror.validate(lambda state: check(self.of(state)))
        end_listening = self.mirror.listen(lambda _: changed())

        def end() -> None:
            end_check()
            end_listening()

        return end


class _Values(Mapping[str, Any]):
    """The values of one state by key: there may be many, of which one is wanted."""

    def __init__(self, state: State, value: Callable[[Revision], Any]) -> None:
        self.state = state
        self._value = value

    def __getitem__(self, key: str) -> Any:
        found = self.get(key, MISSING)
        if found is MISSING:
            raise KeyError(key)
        return found

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or `default`."""
        revision = self.state.objects.get(CONFIG + key)
        if revision is None:
            return default
        value = self._value(revision)
        return default if value is MISSING else value

    def __iter__(self) -> Iterator[str]:
        for object, revision in self.state.objects.items():
            if object.startswith(CONFIG) and self._value(revision) is not MISSING:
                yield object.removeprefix(CONFIG)

    def __len__(self) -> int:
        return sum(1 for _ in self)
