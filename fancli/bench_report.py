"""What `fan bench` says of a load: as text, as JSON, in a line while it runs, and beside an old
run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fancli.live import bar, progress
from fancli.params import Usage
from fancli.slo import measure

if TYPE_CHECKING:
    from fan import Load, LoadReport
    from fancli.slo import Slo

#: What is told of latencies, in milliseconds.
MEASURES = ("p50", "p90", "p99", "p99.9", "max", "mean", "min")
#: What is compared with an old run.
COMPARED = ("rps", "p50", "p90", "p99", "p99.9", "max", "mean")
#: Rows and columns of the histogram.
_BARS, _LONGEST = 12, 40


class Verdict(msgspec.Struct, frozen=True):
    """One `--slo`, what was measured, and whether it was kept."""

    slo: str
    value: float
    ok: bool


def judge(
    slos: Sequence[Slo], report: LoadReport, old: Mapping[str, float]
) -> tuple[list[Verdict], str]:
    """What came of each bound, and why it is no success: empty where it is one. An error is none
    unless a bound says how many are allowed."""
    verdicts = []
    for slo in slos:
        value, ok = slo.judge(report, old)
        verdicts.append(Verdict(slo.text, round(value, 3), ok))
    missed = [f"{each.slo} (it is {each.value:g})" for each in verdicts if not each.ok]
    if missed:
        return verdicts, f"not met: {', '.join(missed)}"
    if report.failed and not any(slo.is_of_errors for slo in slos):
        return verdicts, f"{report.failed} of {report.requests} requests failed"
    return verdicts, ""


def latencies(report: Any) -> dict[str, float]:
    """The measures of a histogram's owner, to the microsecond."""
    return {name: round(measure(name, report), 3) for name in MEASURES}


def read_old(data: bytes, path: str) -> dict[str, float]:
    """The measures in what an earlier `fan bench --json` printed. Raises Usage."""
    try:
        found = msgspec.json.decode(data)
        measures = {**found["latency_ms"], "rps": found["rps"]}
        return {name: float(measures[name]) for name in COMPARED}
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        raise Usage(f"--compare {path}: that is not what `fan bench --json` prints") from None


def compared(report: LoadReport, old: Mapping[str, float]) -> dict[str, dict[str, float | None]]:
    """Each measure then and now, and their ratio."""
    rows: dict[str, dict[str, float | None]] = {}
    for name in COMPARED:
        now = round(measure(name, report), 3)
        ratio = round(now / old[name], 3) if old[name] else None
        rows[name] = {"old": old[name], "new": now, "ratio": ratio}
    return rows


def report_object(
    report: LoadReport,
    about: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    old: Mapping[str, float],
) -> dict[str, Any]:
    """A report for --json, less what every object has."""
    found: dict[str, Any] = {
        **about,
        "requests": report.requests,
        "failed": report.failed,
        "errors": report.errors,
        "elapsed_ms": round(report.elapsed * 1000, 3),
        "rps": round(report.rate, 3),
        "latency_ms": latencies(report),
        "instances": instance_rows(report),
        "histogram": [
            {"up_to_ms": round(end, 3), "count": count} for end, count in report.latency.bars(_BARS)
        ],
        "slo": [msgspec.to_builtins(each) for each in verdicts],
    }
    if old:
        found["compare"] = compared(report, old)
    return found


def instance_rows(report: LoadReport) -> list[dict[str, Any]]:
    """A row for each instance that answered; times in milliseconds."""
    rows = []
    for served, latency in report.instances.items():
        version, _, instance = served.partition("/")
        rows.append(
            {
                "instance": instance or None,
                "version": version or None,
                "requests": latency.count,
                **{f"p{p:g}": round(latency.percentile(p), 3) for p in (50, 99)},
                "max": round(latency.longest / 1e6, 3),
            }
        )
    return rows


def live_line(load: Load, report: LoadReport, width: int, *, is_ascii: bool) -> str:
    """What is shown while it runs."""
    plan = load.plan if load.is_warm else load.plan.warm_up or load.plan
    about = (
        f"{report.requests} {report.rate:.0f}/s p50 {ms(report.latency.percentile(50))}"
        f" p99 {ms(report.latency.percentile(99))}"
    )
    if report.failed:
        about += f" failed {report.failed}"
    if not load.is_warm:
        about = f"warm-up {about}"
    shares = [
        done / total
        for done, total in ((report.requests, plan.requests), (report.elapsed, plan.duration))
        if total
    ]
    return progress(about, max(shares, default=0.0), 1.0, width, is_ascii=is_ascii)


def report_text(
    report: LoadReport,
    about: Mapping[str, Any],
    verdicts: Sequence[Verdict],
    old: Mapping[str, float],
    *,
    width: int,
    is_ascii: bool,
) -> str:
    """A report for a person."""
    found = latencies(report)
    how = f"{about['rate']:g}/s wanted" if about["rate"] else f"{about['concurrency']} at once"
    what = f"{report.requests} requests in {report.elapsed:.2f}s, {report.rate:.1f}/s, {how}"
    lines = [
        f"{about['target']}: {what}",
        "",
        "latency " + "".join(f"{name:>8}" for name in MEASURES[:6]),
        "     ms " + "".join(f"{found[name]:>8.3f}" for name in MEASURES[:6]),
    ]
    lines += ["", *_histogram(report, width, is_ascii)]
    lines += ["", *_instances(report, width)] if report.instances else []
    if report.errors:
        lines += ["", "failed"]
        lines += [f"{count:>8} {error}" for error, count in report.errors.items()]
    if old:
        lines += ["", *_comparison(report, old)]
    if verdicts:
        lines += ["", "slo"]
        lines += [
            f"  {'met   ' if each.ok else 'MISSED'} {each.slo} (it is {each.value:g})"
            for each in verdicts
        ]
    return "\n".join(line.rstrip() for line in lines)


def colored(text: str) -> str:
    """A report for a terminal that shows colours: what is kept in green, what is not in red."""
    text = re.sub(r"(?m)^  met   ", "  \x1b[32mmet\x1b[0m   ", text)
    return re.sub(r"(?m)^(  MISSED|failed$)", "\x1b[31m\\1\x1b[0m", text)


def _histogram(report: LoadReport, width: int, is_ascii: bool) -> list[str]:
    rows = report.latency.bars(_BARS)
    most = max((count for _, count in rows), default=1)
    room = max(8, min(_LONGEST, width - 26))
    return [f"<={ms(end):>8} {bar_of(count / most, room, is_ascii)} {count}" for end, count in rows]


def bar_of(share: float, room: int, is_ascii: bool) -> str:
    """A bar of the histogram; the least is a sign that there is something."""
    least = 1 / room if share else 0.0
    return bar(max(share, least), room, is_ascii=is_ascii, empty=" ")


def _instances(report: LoadReport, width: int) -> list[str]:
    """A table, of what fits beside the longest name."""
    rows = instance_rows(report)
    room = max(len("instance"), *(len(row["instance"] or "-") for row in rows))
    found = [f"{'instance':<{room}}", *(f"{row['instance'] or '-':<{room}}" for row in rows)]
    columns = {
        "requests": [str(row["requests"]) for row in rows],
        "share": [f"{row['requests'] / report.requests:.1%}" for row in rows],
        "p50": [f"{row['p50']:.3f}" for row in rows],
        "p99": [f"{row['p99']:.3f}" for row in rows],
        "version": [row["version"] or "-" for row in rows],
        "max": [f"{row['max']:.3f}" for row in rows],
    }
    for name, cells in columns.items():
        wide = max(8, *map(len, cells))
        if len(found[0]) + wide + 1 > width:
            break
        found = [f"{line} {cell:>{wide}}" for line, cell in zip(found, [name, *cells], strict=True)]
    return found


def _comparison(report: LoadReport, old: Mapping[str, float]) -> list[str]:
    lines = ["compared       old       new   ratio"]
    for name, row in compared(report, old).items():
        ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else "-"
        lines.append(f"{name:<8} {row['old']:>9.3f} {row['new']:>9.3f} {ratio:>7}")
    return lines


def ms(value: float) -> str:
    """Milliseconds in three figures or so: `0.213ms`, `12.4ms`, `1.52s`."""
    if value >= 1000:
        return f"{value / 1000:.2f}s"
    return f"{value:.1f}ms" if value >= 10 else f"{value:.3f}ms"
