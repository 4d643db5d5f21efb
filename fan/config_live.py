"""The configs that an App uses, as values: what its mirror of the registry holds, decoded."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from fan.chores import Chore
from fan.config_values import CONFIG, decode
from fan.errors import FanError
from fan.mirror import Mirror, State


class Live:
    """Values of one mirror. Each body is decoded once; a reading is one state of the mirror, so
    that what belongs together is read together."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        #: Of the newest state, and that state; replaced in one assignment.
        self._decoded: tuple[State, dict[str, Any]] = (State(), {})
        self._news: deque[Callable[[], None]] = deque()
        self._telling = Chore("fan-config", "tell of a changed config", self._tell_all)

    def use(self, *names: str, deadline: float | None = None) -> Mapping[str, Any]:
        """The values of these keys and prefixes, and of what is in use besides."""
        wanted = [CONFIG + name for name in names]
        return self.of(self.mirror.use(*wanted, deadline=deadline))

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
        before, values = self._decoded
        if before is state:
            return values
        fresh = {}
        for object, revision in state.objects.items():
            if not object.startswith(CONFIG):
                continue
            key, old = object.removeprefix(CONFIG), before.objects.get(object)
            if old is not None and old.body == revision.body and key in values:
                fresh[key] = values[key]
            elif revision.body is not None:
                try:
                    fresh[key] = decode(object, revision.body)
                except FanError as exc:  # it must not keep the others from being read
                    logging.getLogger("fan.config").warning("%s", exc)
        if state is self.mirror.state:
            self._decoded = (state, fresh)
        return fresh

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
