"""`fan version` from outside: names, exit statuses, and what is printed where."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import PROGRAM, Fan, envelope, variables
from tests.configs import BOTH, open_store
from tests.versions import World

if TYPE_CHECKING:
    from tests.cli.conftest import Terminal


@pytest.fixture
def world(private: Path, registry_url: str) -> Iterator[World]:
    """`shop` and `stock` in two versions, at 1.0.0."""
    with open_store(registry_url) as store:
        world = World(store, private)
        for service in ("shop", "stock"):
            world.register(service, "1.0.0", "2.0.0", methods=("hello", "search"))
            world.adopt(service, "1.0.0")
        yield world
        world.close()


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_switch_prints_its_way_back_on_stderr(fan: Fan, world: World) -> None:
    ran = fan("version", "switch", "shop=2", "--config", "shop/theme=dark", "-m", "new shop")
    assert (ran.exit, ran.stdout) == (0, "")
    op, *rest = ran.stderr.splitlines()
    assert op.startswith("op ")
    assert rest == ["generation 3", "undo: fan version rollback 3", "0 subscribers"]
    assert world.routed("shop") == {"2.0.0": 10_000}


def test_the_json_of_a_switch_and_of_a_rollback(fan: Fan, world: World) -> None:
    told = envelope(fan("version", "switch", "shop=2", "--config", "shop/theme=dark", "--json"))
    assert {key: told[key] for key in ("v", "ok", "changed", "gen", "undo", "confirmed")} == {
        "v": 1, "ok": True, "changed": True, "gen": 3, "undo": "fan version rollback 3",
        "confirmed": {"applied": [], "pending": [], "nacked": [], "lost": []},
    }  # fmt: skip
    assert told["op"].split(":")[1] == "2"
    assert {(each["kind"], each["key"]) for each in told["changes"]} == {
        ("route", "shop"), ("config", "shop/theme"),
    }  # fmt: skip
    back = envelope(fan("version", "rollback", "--json"))
    assert (back["changed"], back["gen"], back["undoes"]) == (True, 4, 3)
    assert back["undo"] == "fan version rollback 4"
    assert world.routed("shop") == {"1.0.0": 10_000}


def test_what_is_so_already_is_no_change(fan: Fan, world: World) -> None:
    told = envelope(fan("version", "switch", "shop=1.0.0", "--json"))
    assert (told["ok"], told["changed"], told["gen"], told["undo"]) == (True, False, 2, None)


@BOTH
def test_the_status_in_json(fan: Fan, world: World) -> None:
    session = world.consumer("shop", id="reader")
    fan("version", "switch", "shop=2", "--weight", "2=5%", "--confirm", "none")
    fan("config", "set", "shop/theme", "dark")
    told = envelope(fan("version", "status", "--json"))
    assert told["gen"] == 4
    assert told["routes"] == {
        "shop": {"1.0.0": 9_500, "2.0.0": 500}, "stock": {"1.0.0": 10_000},
    }  # fmt: skip
    assert told["configs"] == {"shop/theme": 4}
    (reader,) = told["subscribers"]
    assert (reader["id"], reader["gen"], reader["state"]) == ("reader", 0, "behind")
    session.close()


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        ("switch shop=7", 3, "shop has no version 7; there is 1.0.0, 2.0.0"),
        ("switch shopp=1", 3, "did you mean shop?"),
        ("switch shop.serch=2", 3, "did you mean search"),
        ("switch shop=3.0.0", 4, "3.0.0 has no live instance"),
        ("switch shop=2 --min-healthy 2", 4, "1 live instances of the 2"),
        ("weight shop 1=5%", 4, "nowhere to go"),
        ("promote shop", 4, "no canary"),
        ("retire shop 1.0.0", 4, "takes calls"),
        ("switch", 2, "a service and its version are needed"),
        ("switch shop", 2, "'shop' is not SVC=V"),
        ("switch shop=2 --config theme", 2, "'theme' is not K=V"),
        ("switch shop=", 2, "a version is needed"),
        ("switch shop=latest", 2, "no version constraint"),
        ("switch shop=1 shop=2", 2, "shop is named twice"),
        ("switch shop=2 --weight 2=150%", 2, "0% to 100%"),
        ("weight shop 2=-5%", 2, "0% to 100%"),
        ("weight shop 1=60% 2=60%", 2, "more than 100%"),
        ("switch shop=2 --sticky cookie", 2, "header:NAME"),
        ("switch shop=2 --confirm 120%", 2, "all, none, or a share"),
        ("switch shop=2 --confirm none --auto-rollback", 2, "one of them"),
        ("rollback", 3, "nothing to undo"),
        ("rollback 1", 4, "adopted a route"),
        ("rollback 99", 3, "there is no generation 99"),
        ("rollback 2 --to 1", 2, "one of them"),
        ("rollback --only shop", 2, "belong to --to"),
        ("wait --gen 99", 3, "there is no generation 99"),
        ("diff 99", 3, "there is no generation 99"),
        ("switch shop=2 --if-gen 1", 10, "the registry is at generation 2"),
        ("switch shop=2 --op nonsense", 2, "is no operation"),
    ],
)
def test_what_is_refused(
    fan: Fan, world: World, args: str, status: int, words: str
) -> None:
    world.register("shop", "3.0.0", live=False)
    ran = fan("version", *args.split())
    assert (ran.exit, ran.stdout) == (status, "")
    assert words in ran.stderr
    assert world.gen() == 2


@BOTH
def test_a_rollback_under_a_later_change_is_10_and_names_its_generation(
    fan: Fan, world: World
) -> None:
    assert fan("version", "switch", "shop=2", "stock=2").exit == 0
    assert fan("version", "switch", "shop=1").exit == 0
    ran = fan("version", "rollback", "3", "--json")
    error = envelope(ran)["error"]
    assert (ran.exit, error["code"], error["reason"]) == (10, "aborted", "conflict")
    assert "generation 4" in error["message"]
    assert world.routed("stock") == {"2.0.0": 10_000}


def test_force_is_marked_in_the_history(fan: Fan, world: World) -> None:
    assert fan("version", "switch", "shop=9.9.9", "--force").exit == 0
    (newest, *_) = rows(fan("version", "history", "--json").stdout)
    assert (newest["forced"], newest["verb"], newest["gen"]) == (True, "switch", 3)


def test_the_history_is_a_table(fan: Fan, world: World) -> None:
    fan("version", "switch", "shop=2", "--config", "shop/theme=dark", "-m", "new shop")
    fan("version", "rollback", "3")
    ran = fan("version", "history", "--headers")
    head, newest, switched, *_ = (line.split("\t") for line in ran.stdout.splitlines())
    assert head == ["gen", "when", "who", "verb", "changes", "message"]
    assert (newest[0], newest[3]) == ("4", "rollback (of 3)")
    assert (switched[3], switched[4], switched[5]) == (
        "switch (undone by 4)", "shop: 1.0.0 -> 2.0.0; config shop/theme", "new shop",
    )  # fmt: skip


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_a_table_that_its_times_leave_no_room_for_is_a_line_for_each_column(
    on_terminal: Terminal, fan: Fan, world: World, columns: int
) -> None:
    fan("config", "set", "k", '{"size":7}', "--type", "json")
    shown = on_terminal("config", "history", "k", columns=columns).stdout
    assert ("\n  verb" in shown) is (columns == 60)
    assert "set" in shown
    assert '{"size":7}' in shown


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_a_time_in_the_history_is_never_broken(
    fan: Fan, on_terminal: Terminal, world: World, columns: int
) -> None:
    fan("version", "switch", "shop=2", "stock=2", "-m", "two at once")
    (newest, *_) = rows(fan("version", "history", "--json").stdout)
    ran = on_terminal("version", "history", columns=columns, NO_COLOR="1")
    assert newest["when"] in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= columns


def test_a_share_without_a_version_is_told_in_the_words_of_the_help(fan: Fan) -> None:
    ran = fan("version", "weight", "shop", "2")
    assert (ran.exit, ran.stdout) == (2, "")
    assert ran.stderr.startswith("fan: usage: V=5% '2' is no weight\n")


def test_the_status_of_a_service_that_nobody_knows_is_3(fan: Fan, world: World) -> None:
    ran = fan("version", "status", "shp", "--json")
    assert (ran.exit, envelope(ran)["error"]["reason"]) == (3, "no_such_service")
    fan("config", "set", "mail/theme", "dark")
    assert fan("version", "status", "mail").exit == 0


def test_what_was_set_anew_to_what_it_was_is_no_difference(fan: Fan, world: World) -> None:
    for version in ("2", "1", "2"):
        assert fan("version", "switch", f"shop={version}").exit == 0
    assert fan("version", "diff", "3", "5").stdout == ""
    told = fan("version", "rollback", "--to", "3", "--dry-run").stdout
    assert told.splitlines()[0] == "route shop: 2.0.0 (revision 5 -> 3)"


def test_a_version_that_is_drained_is_told_from_one_that_is_not_there(
    fan: Fan, world: World
) -> None:
    fan("discover", "drain", "shop@2")
    ran = fan("version", "switch", "shop=2")
    assert ran.exit == 4
    assert "shop 2.0.0 has no live instance (draining): start" in ran.stderr


@BOTH
def test_canary_up_promote_and_abort(fan: Fan, world: World) -> None:
    assert fan("version", "switch", "shop=2", "--weight", "2=5%").exit == 0
    assert fan("version", "weight", "shop", "2=12.5%").exit == 0
    assert world.routed("shop") == {"1.0.0": 8_750, "2.0.0": 1_250}
    assert fan("version", "abort", "shop").exit == 0
    assert world.routed("shop") == {"1.0.0": 10_000}
    fan("version", "weight", "shop", "2=5%")
    assert fan("version", "promote", "shop").exit == 0
    assert world.routed("shop") == {"2.0.0": 10_000}


@BOTH
def test_a_paused_route_refuses_switches(fan: Fan, world: World) -> None:
    assert fan("version", "pause", "shop").exit == 0
    ran = fan("version", "switch", "shop=2", "--json")
    error = envelope(ran)["error"]
    assert (ran.exit, error["code"], error["reason"], error["exit"]) == (
        4, "failed_precondition", "paused", 4,
    )  # fmt: skip
    assert fan("version", "resume", "shop").exit == 0
    assert fan("version", "switch", "shop=2").exit == 0


def test_one_method_and_another_service(fan: Fan, world: World) -> None:
    assert fan("version", "switch", "shop.search=2").exit == 0
    assert world.route("shop").overrides == {"search": {"2.0.0": 10_000}}
    assert fan("version", "switch", "shop=stock@2").exit == 0
    assert world.route("shop").replaced_by == "stock@2.0.0"
    assert "replaced by stock@2.0.0" in fan("version", "status").stdout


def test_a_plan_in_a_file(fan: Fan, world: World, tmp_path: Path) -> None:
    plan = {
        "services": {"shop": "2"}, "configs": {"shop/limits": {"max": 5}},
        "weights": {"2": "10%"}, "sticky": "baggage:user",
    }  # fmt: skip
    ran = fan("version", "switch", "-f", "-", stdin=json.dumps(plan).encode())
    assert ran.exit == 0, ran
    assert world.routed("shop") == {"1.0.0": 9_000, "2.0.0": 1_000}
    assert world.route("shop").sticky == "baggage:user"
    path = tmp_path / "plan.toml"
    path.write_text('[services]\nshop = "2"\n[configs]\n"shop/limits" = 7\n')
    assert fan("version", "switch", "-f", str(path)).exit == 0
    assert fan("config", "get", "shop/limits").stdout == "7\n"
    path.write_text('[service]\nshop = "2"\n')
    ran = fan("version", "switch", "-f", str(path))
    assert (ran.exit, "a plan has no 'service'" in ran.stderr) == (2, True)


@BOTH
def test_an_unmet_dependency_names_both_sides(fan: Fan, world: World) -> None:
    world.register("shop", "3.0.0", depend={"hard": {"stock": ">=2"}, "soft": {"mail": ""}})
    ran = fan("version", "switch", "shop=3", "--json")
    error = envelope(ran)["error"]
    assert (ran.exit, error["reason"]) == (4, "unmet_dependency")
    assert "shop 3.0.0 needs stock>=2 (have 1.0.0)" in error["message"]
    ran = fan("version", "switch", "shop=3", "stock=2")
    assert (ran.exit, "fan: shop 3.0.0 needs mail" in ran.stderr) == (0, True)
    assert fan("version", "graph").stdout.splitlines() == [
        "shop 3.0.0",
        "├─ 3.0.0 needs stock>=2: 2.0.0",
        "└─!3.0.0 needs mail (soft): no such service",
        "stock 2.0.0",
    ]


def test_check_finds_what_is_wrong(fan: Fan, world: World) -> None:
    assert fan("version", "check").exit == 0
    world.register("shop", "3.0.0", depend={"hard": {"stock": ">=2"}})
    world.adopt("shop", "3.0.0")
    world.stop("stock", "1.0.0")
    fan("version", "pause", "stock")
    ran = fan("version", "check", "--json")
    told = envelope(ran)
    assert (ran.exit, told["ok"], told["error"]["exit"]) == (4, False, 4)
    assert [(p["level"], p["kind"], p["service"]) for p in told["problems"]] == [
        ("error", "unmet_dependency", "shop"), ("error", "no_live_instance", "stock"),
        ("warning", "paused", "stock"),
    ]  # fmt: skip


def test_a_dry_run_prints_what_would_change(fan: Fan, world: World) -> None:
    ran = fan("version", "switch", "shop=2", "--config", "shop/token=abc", "--dry-run")
    assert ran.stdout.splitlines() == [
        "route shop: 1.0.0 -> 2.0.0", "config shop/token: nothing -> ****",
    ]  # fmt: skip
    told = envelope(fan("version", "switch", "shop=2", "--dry-run", "--json"))
    assert (told["dry_run"], told["changed"], told["op"], told["undo"]) == (True, True, None, None)
    assert world.gen() == 2


def test_going_back_to_a_generation_prints_the_difference_first(fan: Fan, world: World) -> None:
    fan("version", "switch", "shop=2", "stock=2")
    ran = fan("version", "rollback", "--to", "2", "--only", "stock")
    assert (ran.exit, ran.stdout) == (0, "")
    assert ran.stderr.splitlines()[0] == "route stock: 2.0.0 -> 1.0.0"
    assert (world.routed("shop"), world.routed("stock")) == ({"2.0.0": 10_000}, {"1.0.0": 10_000})
    told = envelope(fan("version", "rollback", "--to", "2", "--only", "stock", "--json"))
    assert told["changed"] is False


def test_the_difference_of_two_generations(fan: Fan, world: World) -> None:
    fan("version", "switch", "shop=2", "--config", "shop/theme=dark")
    assert fan("version", "diff", "2").stdout.splitlines() == [
        "config shop/theme: nothing -> dark", "route shop: 1.0.0 -> 2.0.0",
    ]  # fmt: skip
    told = envelope(fan("version", "diff", "2", "3", "--json"))
    assert (told["from"], told["to"], told["changed"]) == (2, 3, True)
    assert [each["key"] for each in told["changes"]] == ["shop/theme", "shop"]


def test_a_route_is_shown_with_its_generation_and_what_is_retired_with_none(
    fan: Fan, world: World
) -> None:
    for version in ("2.0.0", "1.0.0", "2.0.0"):
        world.register("shop", "3.0.0")
        world.versions.switch({"shop": version})
    world.versions.retire("shop", "3.0.0")
    world.versions.pause("shop")
    gen = world.versions.resume("shop").gen
    told = fan("version", "show", "shop").stderr.splitlines()
    assert told[:2] == [
        "shop: 2.0.0; retired 3.0.0", f"the route is that of generation {gen}",
    ]  # fmt: skip


def test_versions_are_listed_and_shown(fan: Fan, world: World) -> None:
    fan("version", "switch", "shop=2", "--weight", "2=5%")
    ran = fan("version", "list", "shop")
    assert ran.stdout.splitlines() == ["shop\t1.0.0\t95%\t1/1\t", "shop\t2.0.0\t5%\t1/1\t"]
    told = envelope(fan("version", "show", "shop", "--json"))
    assert told["route"]["versions"] == {"1.0.0": 9_500, "2.0.0": 500}
    assert (told["service"], told["routed_at"], told["subscribers"]) == ("shop", 3, [])


WATCHES = ("version status --watch", "version graph --watch", "discover list --watch")


@pytest.mark.parametrize("watch", WATCHES)
def test_what_is_watched_on_a_terminal_is_redrawn_in_place_and_stands_at_its_end(
    watch: str, world: World
) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *watch.split()], stdin=subprocess.DEVNULL, stdout=theirs,
        stderr=subprocess.DEVNULL, env=variables({"TERM": "xterm"}),
    )  # fmt: skip
    os.close(theirs)
    try:
        seen = b""
        while b"stock" not in seen:
            seen += os.read(ours, 4096)
        world.versions.switch({"shop": "2.0.0", "stock": "2.0.0"})
        later = b""
        while b"\x1b[J" not in later.partition(b"2.0.0")[2]:
            later += os.read(ours, 4096)
        assert b"\x1b[2J" not in seen + later
        assert re.match(rb"\r\x1b\[[1-9]A", later)
        process.send_signal(signal.SIGINT)
        assert process.wait(50) == 130
        assert os.read(ours, 4096) == b"\r\n"
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@BOTH
def test_the_same_op_is_never_applied_twice(fan: Fan, world: World) -> None:
    op = envelope(fan("version", "switch", "shop=2", "--json"))["op"]
    again = envelope(fan("version", "switch", "shop=2", "--op", op, "--json"))
    assert (again["gen"], world.gen()) == (3, 3)
    ran = fan("version", "switch", "stock=2", "--op", op)
    assert (ran.exit, world.gen()) == (10, 3)


def test_the_way_back_names_the_namespace(fan: Fan, world: World) -> None:
    told = envelope(fan("version", "switch", "shop=2", "-n", "default", "--json"))
    assert told["undo"] == "fan version rollback 3 -n default"
    assert fan(*told["undo"].split()[1:]).exit == 0
    assert world.routed("shop") == {"1.0.0": 10_000}


def test_services_and_versions_are_completed(fan: Fan, world: World) -> None:
    def completed(line: str) -> list[str]:
        vars = {"_FAN_COMPLETE": "bash_complete", "COMP_LINE": line, "COMP_POINT": str(len(line))}
        found = fan(**vars).stdout.splitlines()
        return [each.partition("\t")[2] for each in found]

    assert completed("fan version switch sh") == ["shop="]
    assert completed("fan version switch shop=2") == ["2.0.0"]
    assert completed("fan version weight shop 2") == ["2.0.0="]
    assert completed("fan version retire st") == ["stock"]
    assert completed("fan version ro") == ["rollback"]
