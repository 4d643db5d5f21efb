"""Behaviours 13, 20 and 29 over a broker: processes that die with a message in hand, messages that
nobody can read, and what came too late."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fan.app import App
from fan.context import new_id
from fan.errors import Unavailable
from fan.model import QueueName
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.faults import Process
from fan.testing.contracts.harness import World, needs
from fan.testing.contracts.probe import BOUND
from fan.testing.contracts.queue_harness import PUSHES, QueueHarness
from fan.testing.contracts.queue_probe import SHARED, Inbox, Seen

Face = Callable[[Any], Caller]

#: Seconds that a message stays with a worker that shows no sign of life, in these tests.
LEASE = 3.0


class QueueFaults(QueueHarness):
    """Workers in other processes (`fan.testing.contracts.queue_server`)."""

    @pytest.fixture
    def start(self, world: World) -> Iterator[Callable[..., Process]]:
        """Starts a worker process, with settings of its own."""
        started: list[Process] = []

        def start(**settings: Any) -> Process:
            chosen = {"lease": LEASE, "deliveries": 5, **world.broker, **settings}
            arguments = [world.registry, world.settings().runtime_dir, self.bind or self.scheme]
            process = Process(
                [*arguments, self.make, json.dumps(chosen)],
                module="fan.testing.contracts.queue_server",
            )
            started.append(process)
            return process

        yield start
        for process in started:
            process.close()

    @pytest.fixture
    def outside(self, world: World) -> App:
        """An App that sends to the worker processes, and looks."""
        return world.app(on_file=True, lease=LEASE)

    def test_a_push_in_the_hand_of_a_killed_worker_goes_to_another(
        self, start: Callable[..., Process], outside: App, face: Face
    ) -> None:
        first = start()
        self.sender_of(face, outside).push("inbox.keep", "held")
        assert first.wait_for("seen") == "keep held 0"
        second = start()
        first.kill()
        assert second.wait_for("seen") == "keep held 1"
        second.say("held")
        self.settle(outside)
        assert self.letters(outside, dead=True) == []

    def test_a_push_in_the_hand_of_a_killed_worker_waits_for_the_next_one(
        self, start: Callable[..., Process], outside: App, face: Face
    ) -> None:
        first = start()
        sender = self.sender_of(face, outside)
        sender.push("inbox.keep", "held")
        assert first.wait_for("seen") == "keep held 0"
        first.kill()
        self.wait_noticed(outside)
        sender.push("inbox.take", "meanwhile")
        again = start()
        seen = {again.wait_for("seen"), again.wait_for("seen")}
        assert seen == {"keep held 1", "take meanwhile 0"}
        again.say("held")
        self.settle(outside)

    def test_events_go_on_to_the_other_members_when_one_is_killed(
        self, start: Callable[..., Process], outside: App, face: Face
    ) -> None:
        first = start()
        self.sender_of(face, outside).push("inbox.keep", "busy")
        assert first.wait_for("seen") == "keep busy 0"
        first.freeze()
        for n in range(20):
            face(outside).publish(SHARED, n)
        second = start()
        first.kill()
        seen = {second.wait_for("seen").rpartition(" ")[0] for _ in range(21)}
        assert seen == {"keep busy", *(f"share {n}" for n in range(20))}
        second.say("busy")
        self.settle(outside, QueueName(topic=SHARED, group="inbox"))

    def test_a_push_that_kills_its_workers_is_a_dead_letter_in_the_end(
        self, start: Callable[..., Process], outside: App, face: Face
    ) -> None:
        self.sender_of(face, _known(start, outside)).push("inbox.keep", "deadly")
        for attempt in range(2):
            worker = start(deliveries=2)
            assert worker.wait_for("seen") == f"keep deadly {attempt}"
            worker.kill()
            self.wait_noticed(outside)
        survivor = start(deliveries=2)
        self.sender_of(face, outside).push("inbox.take", "harmless")
        assert survivor.wait_for("seen") == "take harmless 0"
        (letter,) = self.dead(outside)
        assert letter.request.body == b'["deadly"]'
        assert letter.error

    def test_a_worker_that_was_frozen_leaves_what_became_another_s_alone(
        self, start: Callable[..., Process], outside: App, face: Face
    ) -> None:
        frozen = start(workers=1)
        sender = self.sender_of(face, outside)
        sender.push("inbox.keep", "held")
        assert frozen.wait_for("seen") == "keep held 0"
        frozen.freeze()
        other = start(workers=1)
        assert other.wait_for("seen") == "keep held 1"  # after the lease
        frozen.say("held")
        frozen.thaw()
        sender.push("inbox.take", "then")
        assert frozen.wait_for("seen") == "take then 0"  # it is done with the other one
        frozen.end()
        assert self.look(outside).in_flight in (1, None)
        again = start(workers=1)
        other.kill()
        assert again.wait_for("seen") == "keep held 2"
        again.say("held")
        self.settle(outside)
        assert self.letters(outside, dead=True) == []

    def test_a_handler_that_outlasts_several_leases_keeps_its_push(
        self, start: Callable[..., Process], outside: App, face: Face
    ) -> None:
        worker = start()
        sender = self.sender_of(face, outside)
        sender.push("inbox.keep", "long")
        assert worker.wait_for("seen") == "keep long 0"
        other = start()
        threading.Event().wait(3 * LEASE)  # the leases themselves
        worker.say("long")
        self.settle(outside)
        worker.close()
        sender.push("inbox.take", "then")
        assert other.wait_for("seen") == "take then 0"

    def test_workers_that_are_killed_at_random_lose_no_push(
        self, start: Callable[..., Process], outside: App, face: Face
    ) -> None:
        sender = self.sender_of(face, _known(start, outside))
        seen: list[str] = []
        for share in range(0, 150, 50):  # so each has some, were the one before it done with all
            for n in range(share, share + 50):
                sender.push("inbox.take", n)
            doomed = start(workers=4)
            seen.append(doomed.wait_for("seen"))
            doomed.kill()
            seen += doomed.left("seen")
        for n in range(150, 200):
            sender.push("inbox.take", n)
        self.wait_noticed(outside)  # what it had in hand is in the queue again
        last = start(workers=4)
        self.settle(outside)
        last.end()
        seen += last.left("seen")
        assert {line.split()[1] for line in seen} == {str(n) for n in range(200)}
        assert max(int(line.split()[2]) for line in seen) <= 3
        assert self.letters(outside, dead=True) == []

    def test_garbage_in_a_queue_never_stops_a_consumer(
        self, world: World, client: App, sender: Caller, box: Inbox
    ) -> None:
        group = QueueName(topic=SHARED, group="inbox")
        sender.push("inbox.take", "before")
        sender.on(client).publish(SHARED, "before")
        assert {box.wait_seen().tag for _ in range(2)} == {"before"}
        for _ in range(3):
            for name in (PUSHES, group):
                self.spoil(world, client, name)
        for n in range(10):
            sender.push("inbox.take", n)
            sender.on(client).publish(SHARED, n)
        assert sorted(box.wait_tags(20)) == sorted([*range(10)] * 2)
        for name in (PUSHES, group):
            self.settle(client, name)

    def test_looking_at_queues_with_garbage_does_no_harm(
        self, world: World, client: App, sender: Caller, box: Inbox
    ) -> None:
        self.spoil(world, client, PUSHES)
        sender.push("inbox.take", "after")
        assert box.wait_seen() == Seen("take", "after", 0)
        for dead in (False, True):
            for letter in self.letters(client, dead=dead):
                assert letter.number
        self.queues(client).requeue(PUSHES, deadline=time.monotonic() + BOUND)
        sender.push("inbox.take", "later")
        assert box.wait_seen().tag == "later"

    def test_a_client_that_forks_pushes_from_both_sides(
        self, world: World, start: Callable[..., Process], outside: App
    ) -> None:
        worker = start()
        arguments = [world.registry, world.settings().runtime_dir, self.scheme, self.make]
        done = subprocess.run(
            [
                sys.executable, "-m", "fan.testing.contracts.queue_forking",
                *arguments, json.dumps(world.broker),
            ],
            timeout=4 * BOUND,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        seen = {worker.wait_for("seen") for _ in range(60)}
        assert seen == {f"take {who}-{n} 0" for who in ("parent", "a", "b") for n in range(20)}
        self.settle(outside)

    @needs("ledger")
    def test_processes_share_the_answers_of_a_ledger(
        self, start: Callable[..., Process], outside: App
    ) -> None:
        sender = outside.using(transport=self.scheme)
        for expected in ("", None, None):
            worker = start()
            sender.push("inbox.claim", self.scheme, "a-key", new_id())
            assert json.loads(worker.wait_for("told")) == expected
            worker.close()

    @needs("call")
    def test_a_call_in_the_hand_of_a_killed_worker_is_never_run_twice(
        self, start: Callable[..., Process], outside: App, face: Face
    ) -> None:
        first = start()
        caller = face(outside).using(transport=self.scheme, timeout=4 * BOUND, retries=0)
        pending = caller.start("inbox.hold", "held")
        assert first.wait_for("entered") == "held"
        second = start()
        first.kill()
        with pytest.raises(Unavailable) as info:
            pending.result()
        assert (info.value.reason, info.value.executed) == ("connection_lost", "maybe")
        self.wait_noticed(outside, left=1)
        # Calls have queues of their own, of which that says nothing: see `Faults`.
        for _ in range(2):
            caller.call("inbox.whoami_again")
        assert caller.call("inbox.whoami")["instance"] == second.instance_id
        caller.push("inbox.take", "after")
        assert second.wait_for("seen") == "take after 0"

    @needs("call")
    def test_a_call_that_expired_in_a_queue_never_runs_and_its_caller_is_told(
        self, world: World, client: App, box: Inbox
    ) -> None:
        past = int(time.time() * 1000) - 1000
        request = world.request("inbox.add", b"[1]", deadline_ms=past, want=box.version)
        transport = client.transport(self.scheme)
        response = transport.call(transport.home(), request)
        assert (response.code, response.reason) == ("deadline_exceeded", "expired_in_queue")
        assert response.executed == "no"
        assert box.runs["add"] == 0


def _known(start: Callable[..., Process], outside: App) -> App:
    """The App, once the service is registered; nobody serves it."""
    start().close()
    return outside
