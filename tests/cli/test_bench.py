"""`fan bench`: its report, its exit status, its bounds, its files, its line on a terminal."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import HANG, envelope

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Demo, Fan, Ran

PERCENTILES = ["p50", "p90", "p99", "p99.9", "max"]


def test_it_reports_percentiles_and_instances_in_one_object(fan: Fan, demo: Demo) -> None:
    ran = fan("bench", "greeter.hello", "name=Ada", "-N", "50", "-c", "2", "--json")
    assert (ran.exit, ran.stderr) == (0, "")
    report = envelope(ran)
    assert (report["v"], report["ok"], report["target"]) == (1, True, "greeter.hello")
    assert (report["requests"], report["failed"], report["concurrency"]) == (50, 0, 2)
    values = [report["latency_ms"][name] for name in PERCENTILES]
    assert values == sorted(values)
    assert values[0] > 0
    (instance,) = report["instances"]
    assert (instance["version"], instance["requests"]) == ("1.0.0", 50)
    assert sum(row["count"] for row in report["histogram"]) == 50


def test_a_person_gets_a_table_and_a_histogram(fan: Fan, demo: Demo) -> None:
    ran = fan("bench", "greeter.hello", "-N", "20")
    assert (ran.exit, ran.stderr) == (0, "")
    assert ran.stdout.startswith("greeter.hello: 20 requests in ")
    assert re.search(r"latency +p50 +p90 +p99 +p99\.9 +max", ran.stdout)
    assert "━" in ran.stdout


@pytest.mark.parametrize(
    "args",
    [("-t", "http"), ("--instance", "nobody", "-p", "PEER"), ("-p", "PEER"), ("-H", "x-a: b")],
    ids=" ".join,
)
def test_it_takes_the_way_that_a_call_takes(fan: Fan, demo: Demo, args: tuple[str, ...]) -> None:
    given = [demo.url if arg == "PEER" else arg for arg in args]
    assert envelope(fan("bench", "greeter.hello", "-N", "5", *given, "--json"))["requests"] == 5


def test_it_measures_a_service_of_its_own_process(fan: Fan) -> None:
    ran = fan("bench", "greeter.hello", "-p", "local:fan.demo.v1", "-N", "5", "--json")
    assert envelope(ran)["requests"] == 5


def test_a_stream_is_a_request(fan: Fan, demo: Demo) -> None:
    for peer in ((), ("-p", demo.url)):
        ran = fan("bench", "greeter.count", "n:=3", "-N", "4", *peer, "--json")
        assert (envelope(ran)["requests"], envelope(ran)["failed"]) == (4, 0)


def test_a_failed_request_is_exit_9_unless_a_bound_allows_it(fan: Fan, demo: Demo) -> None:
    ran = fan("bench", "greeter.boom", "-N", "5")
    assert ran.exit == 9
    assert "5 of 5 requests failed" in ran.stderr
    assert "unknown/ValueError" in ran.stdout
    ran = fan("bench", "greeter.boom", "-N", "5", "--json")
    assert (ran.exit, envelope(ran)["ok"], envelope(ran)["error"]["exit"]) == (9, False, 9)
    assert envelope(ran)["errors"] == {"unknown/ValueError": 5}
    assert fan("bench", "greeter.boom", "-N", "5", "--slo", "errors<=100%").exit == 0
    assert fan("bench", "greeter.boom", "-N", "5", "--slo", "errors<=5").exit == 0
    assert fan("bench", "greeter.boom", "-N", "5", "--slo", "errors<5").exit == 9


def test_a_bound_that_is_not_kept_is_exit_9(fan: Fan, demo: Demo) -> None:
    slos = ("--slo", "p99<1h", "--slo", "p50<1ms", "--slo", "max >= 20ms")
    ran = fan("bench", "greeter.slow", "s=0.02", "-N", "3", *slos, "--json")
    assert (ran.exit, ran.stderr) == (9, "")
    report = envelope(ran)
    assert [row["ok"] for row in report["slo"]] == [True, False, True]
    assert report["error"]["reason"] == "slo_not_met"
    ran = fan("bench", "greeter.slow", "s=0.02", "-N", "3", *slos)
    assert ran.exit == 9
    assert "p50<1ms" in ran.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("--slo", "p99"),
        ("--slo", "p99<50parsecs"),
        ("--slo", "p999<50ms"),
        ("--slo", "q50<50ms"),
        ("--slo", "rps>many"),
        ("--slo", "p99<110%"),
        ("-N", "0"),
        ("-c", "0"),
        ("--rps", "0"),
        ("--rps", "-5"),
        ("--rps", "nan"),
        ("--rps", "inf"),
        ("--duration", "soon"),
        ("--warmup", "soon"),
        ("--compare", "/nowhere.json"),
        ("--hdr", "/nowhere/file"),
        ("-d", "{"),
    ],
    ids=" ".join,
)
def test_what_does_not_parse_is_exit_2_and_sends_nothing(
    fan: Fan, demo: Demo, args: tuple[str, ...]
) -> None:
    ran = fan("bench", "greeter.hello", *args)
    assert (ran.exit, ran.stdout) == (2, "")


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (("gretter.hello",), 3),
        (("greeter.helo",), 3),
        (("greeter.hello@9",), 3),
        (("greeter.add", "a=x", "b=1"), 4),
        (("greeter.add", "a=1"), 4),
        (("greeter.hello", "--instance", "nobody"), 6),
    ],
)
def test_what_could_never_work_is_said_before_any_load(
    fan: Fan, demo: Demo, args: tuple[str, ...], status: int
) -> None:
    ran = fan("bench", *args)
    assert (ran.exit, ran.stdout) == (status, "")


def test_a_dry_run_shows_request_and_plan(fan: Fan, demo: Demo) -> None:
    ran = fan("bench", "greeter.hello", "-N", "7", "--rps", "5", "--dry-run")
    found = envelope(ran)
    assert (found["dry_run"], found["plan"]["requests"], found["plan"]["rate"]) == (True, 7, 5)


def test_an_old_run_is_compared_with(fan: Fan, demo: Demo, private: Path) -> None:
    old = private / "old.json"
    old.write_text(fan("bench", "greeter.slow", "s=1", "-N", "3", "--json").stdout)
    beside = ("--compare", str(old), "-N", "3")
    row = envelope(fan("bench", "greeter.hello", *beside, "--json"))["compare"]["p50"]
    assert row["old"] > 1000
    assert row["ratio"] == pytest.approx(row["new"] / row["old"], abs=0.001)
    assert "compared" in fan("bench", "greeter.hello", *beside).stdout
    slower = ("--slo", "p50>=100%")
    assert fan("bench", "greeter.slow", "s=2", *beside, *slower).exit == 0
    assert fan("bench", "greeter.hello", *beside, *slower).exit == 9
    old.write_text('{"v":1}')
    assert fan("bench", "greeter.hello", *beside).exit == 2


def test_percentiles_go_into_a_file(fan: Fan, demo: Demo, private: Path) -> None:
    path = private / "latency.hdr"
    assert fan("bench", "greeter.hello", "-N", "20", "--hdr", str(path)).exit == 0
    lines = path.read_text().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert "Total count    =           20]" in lines[-2]


def test_a_live_line_is_drawn_on_a_terminal_and_goes_away(
    screen: Callable[..., Ran], demo: Demo
) -> None:
    ran = screen("bench", "greeter.slow", "s=0.05", "--duration", "3s", columns=60)
    assert ran.exit == 0
    drawn = [part for part in ran.stdout.split("\r") if "%" in part and "/s p50" in part]
    assert drawn
    assert all(len(part.partition("\x1b")[0]) < 60 for part in drawn)
    assert "\x1b[J" in ran.stdout.partition("greeter.slow: ")[0]


@pytest.mark.parametrize("quiet", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_dumb_terminal_gets_no_control_sequences(
    screen: Callable[..., Ran], demo: Demo, quiet: dict[str, str]
) -> None:
    args = ("-q",) if "TERM" not in quiet else ()
    ran = screen("bench", "greeter.slow", "s=0.05", "--duration", "700ms", *args, **quiet)
    assert ran.exit == 0
    assert "\x1b" not in ran.stdout


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_the_report_fits_the_terminal(
    on_terminal: Callable[..., Ran], demo: Demo, columns: int
) -> None:
    ran = on_terminal("bench", "greeter.hello", "-N", "30", columns=columns)
    assert max(map(len, ran.stdout.splitlines())) <= columns


def test_what_is_kept_and_what_is_not_has_a_colour_on_a_terminal(
    on_terminal: Callable[..., Ran], demo: Demo
) -> None:
    bounds = ("--slo", "p50<1h", "--slo", "rps>1000000")
    ran = on_terminal("bench", "greeter.hello", "-N", "5", *bounds)
    assert "\x1b[32mmet\x1b[0m    p50<1h" in ran.stdout
    assert "\x1b[31m  MISSED\x1b[0m rps>1000000" in ran.stdout
    assert "\x1b" not in on_terminal("bench", "greeter.hello", "-N", "5", NO_COLOR="1").stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_at_once_and_says_what_was_measured(
    start: Callable[..., subprocess.Popen[bytes]], fan: Fan, demo: Demo, number: int, status: int
) -> None:
    def served() -> int:
        counts = json.loads(fan("call", "greeter.stats").stdout)["methods"]
        return int(counts.get("whoami", {"calls": 0})["calls"])

    before = served()
    process = start("bench", "greeter.whoami", "--duration", "10m")
    while served() == before:
        assert process.poll() is None
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=HANG)
    assert (process.returncode, stdout) == (status, b"")
    assert b"requests in" in stderr


def test_the_report_is_the_only_thing_on_stdout(fan: Fan, demo: Demo) -> None:
    ran = fan("bench", "greeter.hello", "-N", "5", "--json", "-vvv")
    assert json.loads(ran.stdout)["ok"] is True
