"""Behaviour 29, and pre-forking: processes that die, come back, or multiply."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fan.errors import Unavailable
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import Harness, World
from fan.testing.contracts.probe import BOUND

Face = Callable[[Any], Caller]


class Process:
    """A server in another process (`fan.testing.contracts.server`, or what `module` says)."""

    def __init__(self, arguments: list[str], module: str = "fan.testing.contracts.server") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        #: Lines that were read and not asked for yet: first word and rest.
        self._told: list[tuple[str, str]] = []
        try:
            self.instance_id = self.wait_for("ready")
        except BaseException:
            self.kill()
            self.close()
            raise

    def wait_for(self, word: str) -> str:
        """The rest of the next line that begins with `word`, in whatever order they come."""
        for told in self._told:
            if told[0] == word:
                self._told.remove(told)
                return told[1]
        assert self._process.stdout is not None
        for line in self._process.stdout:
            first, _, rest = line.strip().partition(" ")
            if first == word:
                return rest
            self._told.append((first, rest))
        raise AssertionError(f"the server ended without saying {word!r}")

    def left(self, word: str) -> list[str]:
        """The rest of each line that begins with `word` and was not read before it ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            first, _, rest = line.strip().partition(" ")
            self._told.append((first, rest))
        return [rest for first, rest in self._told if first == word]

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def freeze(self) -> None:
        """Stop it in whatever it does, until `thaw`."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as `kill -9` does, and wait for that."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(BOUND)

    def close(self) -> None:
        """Let it stop by itself."""
        self.end()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def end(self) -> None:
        """The same; what it wrote can still be read."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(2 * BOUND)
        except subprocess.TimeoutExpired:
            self.kill()


class Faults(Harness):
    """Servers in other processes, on a registry that is a file."""

    @pytest.fixture
    def start(self, world: World) -> Iterator[Callable[[], Process]]:
        """Starts a server process."""
        started: list[Process] = []

        def start() -> Process:
            process = Process([*self._common(world), *self._rest(world)])
            started.append(process)
            return process

        yield start
        for process in started:
            process.close()

    @pytest.fixture
    def outside(self, world: World, face: Face) -> Caller:
        """Calls into the server processes."""
        return face(world.app(on_file=True)).using(timeout=4 * BOUND)

    def _common(self, world: World) -> list[str]:
        return [world.registry, world.settings().runtime_dir, self.bind or self.scheme]

    def _rest(self, world: World) -> list[str]:
        return [self.make, json.dumps(world.broker)]

    def test_a_call_goes_to_another_process(
        self, start: Callable[[], Process], outside: Caller
    ) -> None:
        server = start()
        assert outside.call("probe.whoami")["instance"] == server.instance_id

    def test_a_server_killed_in_mid_call_is_connection_lost(
        self, start: Callable[[], Process], outside: Caller
    ) -> None:
        server = start()
        pending = outside.start("probe.hold", "held")
        server.wait_for("entered")
        server.kill()
        with pytest.raises(Unavailable) as info:
            pending.result()
        assert (info.value.reason, info.value.executed) == ("connection_lost", "maybe")

    def test_a_killed_server_is_unavailable_until_another_comes(
        self, start: Callable[[], Process], outside: Caller
    ) -> None:
        server = start()
        assert outside.call("probe.add", 1) == 2
        server.kill()
        failure = outside.failure("probe.add", 1)
        assert isinstance(failure, Unavailable)
        assert failure.executed == "no"
        again = start()
        assert outside.call("probe.whoami")["instance"] == again.instance_id

    def test_an_idempotent_call_goes_on_at_another_instance(
        self, start: Callable[[], Process], outside: Caller
    ) -> None:
        first = start()
        outside.call("probe.add", 1)
        pending = outside.start("probe.hold_the_first_attempt")
        first.wait_for("entered")
        second = start()
        first.kill()
        assert pending.result()["instance"] == second.instance_id

    def test_calls_go_on_while_one_of_two_servers_is_killed(
        self, start: Callable[[], Process], outside: Caller
    ) -> None:
        doomed, staying = start(), start()
        for _ in range(20):
            outside.call("probe.whoami")
        doomed.kill()
        # A broker gives calls to the dead one until it has noticed: what may run again goes on
        # then. It gives in turn, so that the second of these two has met the dead one.
        for _ in range(2):
            outside.call("probe.whoami_again")
        answers = {outside.call("probe.whoami")["instance"] for _ in range(20)}
        assert answers == {staying.instance_id}

    def test_a_client_that_forks_keeps_its_answers_apart(
        self, world: World, start: Callable[[], Process]
    ) -> None:
        start()
        registry, folder, bind = self._common(world)
        arguments = [registry, folder, bind.partition("=")[0], *self._rest(world)]
        done = subprocess.run(
            [sys.executable, "-m", "fan.testing.contracts.forking", *arguments],
            timeout=4 * BOUND,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
