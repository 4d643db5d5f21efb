"""`fan discover`: instances out of service and back, shards, and what is wrong or left over."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fan.plugins import open_store
from fan.stores.base import Change, Plan
from tests.cli.conftest import HANG, envelope
from tests.configs import BOTH

if TYPE_CHECKING:
    from tests.cli.conftest import Fan, Ran
    from tests.conftest import FanProcess

STORE = """
import time
from pathlib import Path
from fan import Service, rpc

class Store(Service):
    name = "store"
    version = "1.0.0"

    @rpc
    def get(self, shard1: int, shard2: str = "x") -> str:
        return self.instance_id

    @rpc
    def wait(self, flag: str) -> str:
        Path(flag + ".begun").touch()
        while not Path(flag).exists():
            time.sleep(0.01)
        return self.instance_id
"""
PATH = "/store/{shard1}/item/{shard2}/"

Serve = Callable[..., "FanProcess"]


@pytest.fixture
def serve(
    registry_url: str, start_fan: Callable[..., FanProcess], private: Path
) -> Serve:
    """Serve a store under an id, and wait until it is up."""
    (private / "store.py").write_text(STORE)

    def start(id: str, *options: str, file: str = "store") -> FanProcess:
        process = start_fan("serve", file, "--id", id, *options, cwd=private)
        process.wait_for("ready")
        return process

    return start


def states(fan: Fan, service: str = "store") -> dict[str, str]:
    shown = envelope(fan("discover", "show", service, "--json"))
    return {each["id"]: each["state"] for each in shown["instances"]}


def get(fan: Fan, *args: str) -> Ran:
    return fan("call", "store.get", *args, "-r")


@BOTH
def test_a_drained_instance_gets_no_calls_until_it_is_brought_back(
    fan: Fan, serve: Serve
) -> None:
    serve("store-1")
    serve("store-2")
    ran = fan("discover", "drain", "store/store-1", "-m", "new disk", "--wait", "--json")
    assert ran.exit == 0
    assert envelope(ran) == {
        "v": 1, "ok": True, "changed": True, "instances": ["store/store-1"], "gen": None,
        "op": None, "busy": [],
    }  # fmt: skip
    assert states(fan) == {"store-1": "draining", "store-2": "up"}
    assert {get(fan, "shard1=1").stdout for _ in range(4)} == {"store-2\n"}
    again = fan("discover", "drain", "store/store-1", "-m", "new disk")
    assert (again.exit, again.stdout, again.stderr) == (0, "", "unchanged\n")
    shown = envelope(fan("discover", "show", "store/store-1", "--json"))
    assert (shown["override"]["state"], shown["override"]["why"]) == ("draining", "new disk")
    assert fan("discover", "undrain", "store/store-1").exit == 0
    assert states(fan) == {"store-1": "up", "store-2": "up"}


def test_all_instances_of_a_version_are_marked_down(fan: Fan, serve: Serve) -> None:
    serve("store-1")
    serve("store-2")
    assert fan("discover", "down", "store@1", "--dry-run").stdout == (
        "store/store-1\nstore/store-2\n"
    )
    assert set(states(fan).values()) == {"up"}
    assert fan("discover", "down", "store@1").exit == 0
    assert set(states(fan).values()) == {"down"}
    assert get(fan, "shard1=1").exit == 6


@BOTH
def test_drain_waits_for_the_call_in_flight(
    fan: Fan, serve: Serve, start_fan: Callable[..., FanProcess], private: Path
) -> None:
    serve("store-1")
    flag = private / "flag"
    call = start_fan("call", "store.wait", f"flag={flag}", "--timeout", "40s", "-r")
    begun = Path(f"{flag}.begun")
    while not begun.exists():
        assert call.pid
    busy = fan("discover", "drain", "store/store-1", "--wait", "--timeout", "3s", "--json")
    assert busy.exit == 9
    assert envelope(busy)["busy"] == ["store/store-1"]
    flag.touch()
    assert fan("discover", "drain", "store/store-1", "--wait").exit == 0
    call.wait_for("store-1", "stdout")
    assert call.wait() == 0


@pytest.mark.parametrize(
    ("args", "exit"),
    [
        (("drain", "store"), 2),
        (("drain", "store/"), 2),
        (("drain",), 2),
        (("drain", "store/nobody"), 3),
        (("drain", "nobody/x"), 3),
        (("drain", "store@7"), 3),
        (("drain", "store/store-1", "--until", "soon"), 2),
        (("deregister", "store@1"), 2),
        (("deregister", "store/nobody"), 3),
        (("reshard", "store"), 2),
        (("reshard", "store", "--template", "/{a"), 2),
        (("reshard", "store", "--template", "{a}", "--map", "a=x"), 2),
        (("reshard", "store", "--template", "{a}", "--values", "b=x"), 2),
        (("reshard", "store", "--none", "--mode", "owned"), 2),
        (("reshard", "nobody", "--template", "{a}"), 3),
        (("resolve", "store", "--key", "a", "--path", "/a/"), 2),
        (("check", "nobody"), 3),
        (("watch", "--since", "x"), 2),
        (("import",), 2),
        (("list", "--fresh", "--max-stale", "1h"), 2),
    ],
)
def test_a_mistake_has_its_exit_status_and_an_empty_stdout(
    fan: Fan, registry_url: str, args: tuple[str, ...], exit: int
) -> None:
    fan("discover", "register", "store", "--version", "1.0.0", "--addr", "http://127.0.0.1:9",
        "--id", "store-1")  # fmt: skip
    ran = fan("discover", *args)
    assert (ran.exit, ran.stdout) == (exit, "")
    assert ran.stderr


# Shards


@BOTH
def test_calls_follow_the_shards_and_a_check_finds_what_nobody_has(
    fan: Fan, serve: Serve
) -> None:
    serve("store-1", "--shard", "shard1=1,3")
    second = serve("store-2", "--shard", "shard1=2")
    done = fan("discover", "reshard", "store", "--template", PATH, "--mode", "owned", "--json",
               "--values", "shard1=1,2,3")  # fmt: skip
    assert done.exit == 0
    assert envelope(done)["changed"] is True
    assert get(fan, "shard1=2", "shard2=9").stdout == "store-2\n"
    assert get(fan, "shard1=3", "shard2=9").stdout == "store-1\n"
    assert get(fan, "shard1=2", "--sk", "/store/1/item/2/").stdout == "store-1\n"
    missing = get(fan, "shard1=2")
    assert (missing.exit, "shard2" in missing.stderr) == (4, True)
    hole = get(fan, "shard1=7", "shard2=9")
    assert (hole.exit, "shard1=7" in hole.stderr) == (6, True)
    for option in ("--sk", "--shard-key", "--key", "--path"):
        where = fan("discover", "resolve", "store", option, "/store/2/item/9/", "--explain")
        assert where.exit == 0
        assert f"store-2: shard key /store/2/item/9/, owned by {PATH}" in where.stderr
    assert fan("discover", "check").exit == 0

    second.send(signal.SIGTERM)
    second.wait()
    checked = fan("discover", "check")
    assert checked.exit == 4
    assert checked.stdout == "hole\tstore\t1.0.0\t\tno live instance has shard1=2\n"
    serve("store-3", "--shard", "shard1=1,2")
    told = fan("discover", "check", "store", "--json")
    assert told.exit == 4
    (found,) = envelope(told)["findings"]
    assert (found["kind"], found["what"]) == ("overlap", "store-1, store-3 have shard1=1")

    back = fan("discover", "reshard", "store", "--none")
    assert back.exit == 0
    assert get(fan, "shard1=7").exit == 0


def test_a_dry_run_of_resharding_changes_nothing_and_an_op_is_applied_once(
    fan: Fan, serve: Serve
) -> None:
    serve("store-1")
    change = ("discover", "reshard", "store", "--template", "{shard1}")
    dry = fan(*change, "--dry-run", "--json")
    assert envelope(dry)["dry_run"] is True
    assert envelope(fan("discover", "show", "store", "--json"))["route"].get("shard") is None
    done = envelope(fan(*change, "--json"))
    again = envelope(fan(*change, "--json", "--op", done["op"]))
    assert (again["gen"], again["op"]) == (done["gen"], done["op"])
    assert fan(*change, "--if-gen", "0").exit == 10


# What is left over


def test_gc_removes_what_nobody_needs(fan: Fan, serve: Serve) -> None:
    server = serve("store-1")
    assert fan("discover", "drain", "store/store-1").exit == 0
    assert fan("discover", "gc").stdout == ""
    server.send(signal.SIGTERM)
    server.wait()
    dry = fan("discover", "gc", "--dry-run")
    assert dry.stdout == "store/store-1\toverride\tthe instance is gone\n"
    assert fan("discover", "gc").stdout == dry.stdout
    assert fan("discover", "gc").stdout == ""


def test_a_registration_for_good_stays_until_it_is_removed(fan: Fan, registry_url: str) -> None:
    made = fan("discover", "register", "billing", "--version", "1.2", "--addr",
               "http://127.0.0.1:9", "--json")  # fmt: skip
    id = envelope(made)["instance"]
    assert states(fan, "billing") == {id: "up"}
    assert fan("discover", "deregister", f"billing/{id}").exit == 0
    assert states(fan, "billing") == {}
    assert fan("discover", "deregister", f"billing/{id}").exit == 3


@BOTH
def test_an_id_that_is_in_use_is_a_conflict(fan: Fan, serve: Serve, private: Path) -> None:
    serve("store-1")
    twin = fan("serve", "store", "--id", "store-1", cwd=private)
    assert (twin.exit, "store-1" in twin.stderr) == (10, True)
    registered = fan("discover", "register", "store", "--version", "1.0.0", "--addr",
                     "http://127.0.0.1:9", "--id", "store-1")  # fmt: skip
    assert registered.exit == 10


@BOTH
def test_standby_waits_until_the_other_is_gone(
    fan: Fan, serve: Serve, start_fan: Callable[..., FanProcess], private: Path
) -> None:
    single = STORE.replace("    version", "    unique = True\n    version")
    (private / "single.py").write_text(single)
    first = serve("store-1", file="single")
    refused = fan("serve", "single", "--id", "store-2", cwd=private)
    assert (refused.exit, "runs as store-1" in refused.stderr) == (10, True)
    second = start_fan("serve", "single", "--id", "store-2", "--standby", cwd=private)
    second.wait_for("stands by")
    first.kill()
    second.wait_for("ready")
    assert states(fan) == {"store-2": "up"}


# Who follows


@BOTH
def test_subscribers_are_listed_with_what_they_use(fan: Fan, serve: Serve) -> None:
    server = serve("store-1")
    rows = [json.loads(line) for line in fan("discover", "subs", "--json").stdout.splitlines()]
    (found,) = [row for row in rows if row["pid"] == server.pid]
    assert found["uses"] == ["store"]
    assert fan("discover", "subs", "nobody").stdout == ""


def events(ran: Ran) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.stdout.splitlines()]


@BOTH
def test_a_watch_that_is_resumed_tells_only_the_routes_that_came_after(
    fan: Fan, serve: Serve, private: Path
) -> None:
    serve("store-1")
    keeper = str(private / "cursor")
    watch = ("discover", "watch", "--once", "--json", "--cursor-file", keeper)
    first = events(fan(*watch))
    assert {(e["event"], e["kind"]) for e in first} == {
        ("present", "route"), ("present", "instance"), ("present", "version"),
    }  # fmt: skip
    for template in ("{shard1}", "{shard2}"):
        fan("discover", "reshard", "store", "--template", template)
    told = [e for e in events(fan(*watch)) if e["kind"] == "route"]
    assert [e["event"] for e in told] == ["changed", "changed"]
    gens = [e["gen"] for e in told]
    assert gens == [gens[0], gens[0] + 1]
    assert not [e for e in events(fan(*watch)) if e["kind"] == "route"]
    since = ("discover", "watch", "--once", "--json", "--since", told[0]["cursor"])
    assert [e["gen"] for e in events(fan(*since)) if e["kind"] == "route"] == [gens[1]]


def test_a_listing_that_is_watched_prints_what_changes(
    fan: Fan, serve: Serve, start_fan: Callable[..., FanProcess]
) -> None:
    serve("store-1")
    watched = start_fan("discover", "list", "--watch")
    watched.wait_for("1/1", "stdout")
    fan("discover", "down", "store/store-1")
    watched.wait_for("0/1", "stdout")
    watched.send(signal.SIGINT)
    assert watched.wait() == 130


def test_a_service_without_a_route_is_listed_as_unrouted(
    fan: Fan, serve: Serve, registry_url: str
) -> None:
    serve("store-1")
    with open_store(registry_url, "default") as store:
        change = Change(object="route/store", unpin=True)
        store.commit(Plan(changes=(change,), verb="test"), deadline=time.monotonic() + HANG)
    assert fan("discover", "list").stdout.split("\t")[:3] == ["store", "1.0.0", "unrouted"]
    assert envelope(fan("discover", "list", "--json"))["weight"] is None
    assert "unrouted" in fan("discover", "show", "store").stderr


def test_a_registry_that_is_away_is_not_taken_for_a_service(fan: Fan) -> None:
    ran = fan("config", "list", FAN_REGISTRY="zk://127.0.0.1:1/x")
    assert ran.exit == 6
    assert "FAN_REGISTRY" in ran.stderr
    assert "SERVICE" not in ran.stderr
