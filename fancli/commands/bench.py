"""`fan bench`: load on one method, and how long its answers take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from fancli.exits import Exit
from fancli.options import Common, common
from fancli.params import Duration, Finite, Usage, parse_duration, read_bytes
from fancli.request import Asking, PayloadCommand, request_options, target_argument

if TYPE_CHECKING:
    from fan import Client, Load, LoadPlan, LoadReport, MethodInfo
    from fancli.bench_report import Verdict
    from fancli.payload import Payload
    from fancli.slo import Slo

#: Seconds of a run that says neither how many nor how long.
_DURATION = 10.0
#: Seconds between two looks while it runs, and what is waited for what is on its way at a Ctrl-C.
_LOOK, _END = 0.25, 1.0
_MOST = 10_000


@click.command(
    "bench",
    cls=PayloadCommand,
    short_help="Put load on a method and measure it.",
    examples=(
        "fan bench greeter.hello name=Ada -N 10000",
        "fan bench greeter.hello -c 16 --duration 30s --warmup 2s",
        "fan bench greeter.hello --rps 500 --slo 'p99<50ms' --slo 'errors<1%'",
        "fan bench greeter.hello -N 5000 --json > old.json",
        "fan bench greeter.hello -N 5000 --compare old.json --slo 'p99<=120%'",
        "fan bench greeter.hello --rps 500 --duration 1m --hdr latency.hdr",
    ),
)
@target_argument
@request_options
@click.option(
    "-N", "--requests", type=click.IntRange(1), metavar="N", help="End after so many requests."
)
@click.option(
    "--duration", type=Duration(), metavar="DUR", help="End after this time. [10s without -N]"
)
@click.option(
    "--rps", metavar="N", type=Finite(0, min_open=True),
    help="So many a second, whatever the service does.",
)  # fmt: skip
@click.option(
    "-c", "--concurrency", metavar="N", type=click.IntRange(1, _MOST), default=None,
    help="Requests in flight at most. [1; 64 with --rps]",
)  # fmt: skip
@click.option(
    "--warmup", metavar="N|DUR", default="", help="Before what counts: 100 (requests), 2s."
)
@click.option("--slo", "slos", metavar="BOUND", multiple=True, help="p99<50ms; not met is exit 9.")
@click.option("--compare", metavar="OLD.json", default="", help="Beside an earlier --json.")
@click.option("--hdr", metavar="FILE", default="", help="Write HdrHistogram percentiles here.")
@common
def bench(
    common: Common,
    *,
    requests: int | None,
    duration: float | None,
    rps: float | None,
    concurrency: int | None,
    warmup: str,
    slos: tuple[str, ...],
    compare: str,
    hdr: str,
    dry_run: bool,
    **request: Any,
) -> int:
    """Call SERVICE.METHOD over and over, and print how long the answers took.

    Without --rps each of -c workers sends its next request when the last is answered. With --rps
    requests are due at fixed points, and a latency counts from there: a stall shows in all that it
    held up. Latencies are of every request, failed ones too; --timeout is each request's; nothing
    is sent twice unless --retry says so, and breakers stay out of it.

    A bound is on p50, p99.9, ..., max, mean, min (`p99<50ms`, `p99<110%` of --compare's), rps,
    errors or success (`errors<1%`, `errors<=5`). A request that failed is exit 9 unless a bound on
    errors allows it.
    """
    from fancli.slo import parse_slo

    bounds = [parse_slo(text, has_old=bool(compare)) for text in slos]
    old = _old(compare, common)
    asking = Asking(common, **request)
    if asking.options["retries"] is None:
        asking.options["retries"] = 0
    if request["key"] == "auto":
        asking.options["key"] = ""  # each request has one of its own
    asking.options["breaker"] = False
    plan = _plan(requests, duration, rps, concurrency, warmup, common.load().settings.timeout)
    _check_file(hdr)
    with asking.opened(live=True) as (app, client):
        method = asking.describe(app)
        payload = asking.arguments(method, checked=True)
        choice = asking.choice(app, client)  # what cannot be reached at all is said before any load
        if dry_run:
            echo = asking.echo("call", payload, choice)
            common.out.object({**echo, "plan": _plain(plan)})
            return Exit.OK
        asking.talk_route(app, client, payload)
        report = _run(common, asking, client, payload, plan, method)
    if hdr:
        _write_hdr(hdr, report)
    return _tell(common, asking, plan, report, bounds, old)


def _plain(plan: LoadPlan) -> Any:
    import msgspec

    return msgspec.to_builtins(plan)


def _plan(
    requests: int | None,
    duration: float | None,
    rps: float | None,
    concurrency: int | None,
    warmup: str,
    timeout: float,
) -> LoadPlan:
    from fan import LoadPlan

    is_count = re.fullmatch(r"\d+", warmup) is not None
    if warmup and not is_count:
        try:
            warm = parse_duration(warmup)
        except Usage as exc:
            raise Usage(f"--warmup: {exc.message}", "100 (requests), 2s, 500ms") from None
    else:
        warm = 0.0
    return LoadPlan(
        requests=requests,
        duration=duration if duration is not None or requests else _DURATION,
        rate=rps or 0.0,
        concurrency=concurrency or 0,
        warmup=warm,
        warmup_requests=int(warmup) if is_count else 0,
        patience=timeout,
    )


def _old(path: str, common: Common) -> dict[str, float]:
    from fancli.bench_report import read_old

    return read_old(read_bytes(path, "--compare", common.env), path) if path else {}


def _check_file(path: str) -> None:
    """Say that a file cannot be written before the load, not behind it."""
    if path:
        try:
            with open(path, "ab"):
                pass
        except OSError as exc:
            raise Usage(f"--hdr {path}: {exc.strerror}") from None


def _run(
    common: Common,
    asking: Asking,
    client: Client,
    payload: Payload,
    plan: LoadPlan,
    method: MethodInfo | None,
) -> LoadReport:
    from fan import Load

    is_stream = method is not None and method.is_stream
    with Load(client, asking.target.name, *payload.encode(), plan, is_stream=is_stream) as load:
        load.start()
        try:
            _watch(common, load)
        except KeyboardInterrupt:
            load.close(_END)
            _talk_interrupted(common, asking, load)
            raise
        return load.report()


def _watch(common: Common, load: Load) -> None:
    """Wait for the end, with a line on the terminal."""
    from fancli.bench_report import live_line
    from fancli.live import Live, is_ascii_only

    with Live(common.out) as live:
        is_ascii = is_ascii_only(common.out)
        while not load.wait(_LOOK):
            if live.is_on:
                live.draw(live_line(load, load.report(), live.width, is_ascii=is_ascii))


def _talk_interrupted(common: Common, asking: Asking, load: Load) -> None:
    """What was measured until a Ctrl-C: for the person, since it is no result."""
    report = load.report()
    if report.requests and load.is_warm and not common.env.is_json:
        common.out.note(_text(common, _about(asking, load.plan), report, [], {}, on_stdout=False))


def _about(asking: Asking, plan: LoadPlan) -> dict[str, Any]:
    return {
        "target": asking.target.name,
        "rate": plan.rate or None,
        "concurrency": plan.workers,
    }


def _tell(
    common: Common,
    asking: Asking,
    plan: LoadPlan,
    report: LoadReport,
    bounds: Sequence[Slo],
    old: Mapping[str, float],
) -> int:
    from fancli.bench_report import judge, report_object

    verdicts, problem = judge(bounds, report, old)
    status = Exit.PARTIAL if problem else Exit.OK
    about = _about(asking, plan)
    if common.env.is_json:
        found = report_object(report, about, verdicts, old)
        error = {} if not problem else {"error": _error(problem, verdicts)}
        common.out.object({"v": 1, "ok": not problem, **found, **error})
        return status
    common.out.text(_text(common, about, report, verdicts, old))
    if problem:
        common.out.warn(f"{asking.target.name}: {problem}", is_error=True)
    return status


def _error(problem: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    from fancli.render import failure

    reason = "requests_failed" if all(each.ok for each in verdicts) else "slo_not_met"
    error: dict[str, Any] = failure(
        target=None, code="failed_precondition", reason=reason, exit=Exit.PARTIAL,
        message=problem, executed="yes",
    )["error"]  # fmt: skip
    return error


def _text(
    common: Common,
    about: Mapping[str, Any],
    report: LoadReport,
    verdicts: Sequence[Verdict],
    old: Mapping[str, float],
    *,
    on_stdout: bool = True,
) -> str:
    from fancli.bench_report import colored, report_text
    from fancli.live import is_ascii_only

    env = common.env
    is_ascii = env.stdout_is_tty and is_ascii_only(common.out, on_stdout=on_stdout)
    text = report_text(report, about, verdicts, old, width=env.width, is_ascii=is_ascii)
    return colored(text) if env.wants_color(env.stdout if on_stdout else env.stderr) else text


def _write_hdr(path: str, report: LoadReport) -> None:
    from fancli.output import StdoutFailed

    text = "\n".join(report.latency.percentile_lines())
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{text}\n")
    except OSError as exc:
        raise StdoutFailed(exc.strerror or str(exc), path) from exc
