"""Behaviours 21, 28 and 30: several instances and versions, shards, leaving without loss."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from fan.errors import FailedPrecondition, FanError, Unavailable
from fan.testing.contracts.callers import Caller
from fan.testing.contracts.harness import Harness, World
from fan.testing.contracts.probe import BOUND, Probe, probe

Face = Callable[[Any], Caller]


class Fleet(Harness):
    """Which instance answers."""

    def test_each_call_runs_on_exactly_one_instance_and_the_load_spreads(
        self, world: World, face: Face
    ) -> None:
        fleet = serve_fleet(world, 3)
        caller = face(world.client())
        answers = Counter(caller.call("probe.whoami")["instance"] for _ in range(90))
        assert sum(service.runs["whoami"] for service in fleet) == 90
        assert answers == {s.instance_id: s.runs["whoami"] for s in fleet}
        assert min(answers.values()) >= 5  # 30 each on average; chance alone gives 10 and more

    def test_a_stopped_instance_gets_nothing(self, world: World, face: Face) -> None:
        stopped, staying = probe(), probe()
        app = world.serve(stopped)
        world.serve(staying)
        caller = face(world.client())
        caller.call("probe.whoami")
        app.stop(timeout=BOUND)
        before = stopped.runs["whoami"]
        for _ in range(20):
            assert caller.call("probe.whoami")["instance"] == staying.instance_id
        assert stopped.runs["whoami"] == before

    def test_an_instance_that_comes_later_gets_its_share(self, world: World, face: Face) -> None:
        world.serve(probe())
        caller = face(world.client())
        caller.call("probe.whoami")
        late = probe()
        world.serve(late)
        seen = threading.Event()
        while not seen.is_set():  # bounded by the test's time limit
            if caller.call("probe.whoami")["instance"] == late.instance_id:
                seen.set()

    def test_one_instance_can_be_asked_by_its_id(self, world: World, face: Face) -> None:
        fleet = serve_fleet(world, 3)
        caller = face(world.client())
        for service in fleet:
            one = caller.using(instance=service.instance_id)
            assert {one.call("probe.whoami")["instance"] for _ in range(5)} == {service.instance_id}

    def test_no_instance_is_unavailable(self, world: World, face: Face) -> None:
        app = world.serve(probe())
        caller = face(world.client(retries=1))  # who was not told yet looks once more
        caller.call("probe.whoami")
        app.stop(timeout=BOUND)
        failure = caller.failure("probe.whoami")
        assert isinstance(failure, Unavailable)
        assert (failure.reason, failure.executed) == ("no_instance", "no")

    def test_draining_under_load_fails_no_call(self, world: World, face: Face) -> None:
        leaving, staying = probe(), probe()
        app = world.serve(leaving)
        world.serve(staying)
        caller = face(world.client()).using(timeout=4 * BOUND)
        go_on, failures, done = threading.Event(), [], Counter[str]()

        def load() -> None:
            while not go_on.is_set():
                try:
                    done[caller.call("probe.whoami")["instance"]] += 1
                except Exception as exc:
                    failures.append(exc)
                    return

        held = [caller.using(instance=leaving.instance_id).start("probe.hold", n) for n in range(3)]
        assert {leaving.wait_entered() for _ in held} == {0, 1, 2}
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        while not done[leaving.instance_id]:
            threading.Event().wait(0.001)
        stopping = threading.Thread(target=app.stop, args=(6 * BOUND,))
        stopping.start()
        before = staying.runs["whoami"]
        while staying.runs["whoami"] < before + 50 and not failures:
            threading.Event().wait(0.001)
        leaving.release()
        stopping.join(6 * BOUND)
        go_on.set()
        for thread in threads:
            thread.join(BOUND)
        assert failures == []
        assert [pending.result() for pending in held] == [0, 1, 2]
        assert caller.call("probe.whoami")["instance"] == staying.instance_id

    def test_a_range_picks_the_highest_version_by_number(self, world: World, face: Face) -> None:
        serve_versions(world, "1.9.0", "1.10.0", "2.0.0")
        caller = face(world.client())
        assert caller.using(want=">=1").call("probe.whoami")["version"] == "2.0.0"
        assert caller.using(want=">=1,<2").call("probe.whoami")["version"] == "1.10.0"
        assert caller.using(want="==1.9.0").call("probe.whoami")["version"] == "1.9.0"

    def test_without_a_wish_the_adopted_version_answers(self, world: World, face: Face) -> None:
        serve_versions(world, "1.9.0", "1.10.0")
        caller = face(world.client())
        assert {caller.call("probe.whoami")["version"] for _ in range(5)} == {"1.9.0"}

    def test_a_version_that_is_missing_is_told_with_those_that_are_there(
        self, world: World, face: Face
    ) -> None:
        serve_versions(world, "1.9.0", "1.10.0")
        failure = face(world.client()).using(want=">=3").failure("probe.whoami")
        assert isinstance(failure, FailedPrecondition)
        assert (failure.reason, failure.executed) == ("version_missing", "no")
        assert failure.details["wanted"] == ">=3"
        assert failure.details["available"] == ["1.9.0", "1.10.0"]

    def test_a_newest_version_without_instances_is_skipped(self, world: World, face: Face) -> None:
        apps = serve_versions(world, "1.9.0", "1.10.0")
        caller = face(world.client())
        assert caller.using(want=">=1").call("probe.whoami")["version"] == "1.10.0"
        apps[1].stop(timeout=BOUND)
        assert caller.using(want=">=1").call("probe.whoami")["version"] == "1.9.0"

    def test_a_pre_release_answers_only_who_asks_for_it(self, world: World, face: Face) -> None:
        serve_versions(world, "1.0.0", "1.1.0rc1")
        caller = face(world.client())
        assert caller.using(want=">=1").call("probe.whoami")["version"] == "1.0.0"
        assert caller.using(want="==1.1.0rc1").call("probe.whoami")["version"] == "1.1.0rc1"

    def test_versions_hosted_by_one_app_answer_each_for_itself(
        self, world: World, face: Face
    ) -> None:
        old, new = probe(version="1.9.0"), probe(version="1.10.0")
        world.serve(old, new)
        caller = face(world.client())
        for service in (old, new):
            answer = caller.using(want=f"=={service.version}").call("probe.whoami")
            assert answer == {"version": service.version, "instance": service.instance_id}

    def test_the_same_shard_key_reaches_the_same_instance(self, world: World, face: Face) -> None:
        serve_fleet(world, 3)
        caller = face(world.client())
        homes = {}
        for key in (f"shard-{n}" for n in range(30)):
            sharded = caller.using(shard=key)
            (homes[key],) = {sharded.call("probe.whoami")["instance"] for _ in range(3)}
        assert len(set(homes.values())) > 1
        again = face(world.client())  # another caller picks the same
        for key, home in homes.items():
            assert again.using(shard=key).call("probe.whoami")["instance"] == home

    def test_the_answer_says_who_served_it(self, world: World, face: Face) -> None:
        service = probe()
        world.serve(service)
        client = world.client()
        response = world.send(client, world.request("probe.whoami"))
        assert (response.version, response.instance) == ("1.0.0", service.instance_id)
        assert response.id == "bare"

    def test_a_draining_server_refuses_what_is_new(self, world: World, face: Face) -> None:
        service = probe()
        app = world.serve(service)
        caller = face(world.client(retries=0)).using(timeout=4 * BOUND)
        pinned = caller.using(peers=tuple(a.url for a in addresses(world, service)))
        held = pinned.start("probe.hold")
        service.wait_entered()
        draining = threading.Thread(target=app.drain, args=(4 * BOUND,))
        draining.start()
        failure = None
        while failure is None:  # until the drain has begun
            try:
                pinned.call("probe.add", 1)
            except FanError as exc:
                failure = exc
        assert isinstance(failure, Unavailable)
        assert failure.executed == "no"
        service.release()
        assert held.result() is None
        draining.join(4 * BOUND)


def serve_fleet(world: World, n: int) -> list[Probe]:
    """`n` instances, each in an App of its own."""
    fleet = [probe() for _ in range(n)]
    for service in fleet:
        world.serve(service)
    return fleet


def serve_versions(world: World, *versions: str) -> list[Any]:
    """Apps, each with one version of `probe`, started in that order; one where calls are local."""
    services = [probe(version=version) for version in versions]
    if world.harness.is_local:
        return [world.serve(*services)]
    return [world.serve(service) for service in services]


def addresses(world: World, service: Probe) -> list[Any]:
    """Where an instance is registered."""
    found = world.client().discovery.service(service.name)
    return [a for i in found.instances if i.id == service.instance_id for a in i.addresses]
