"""What `--slo` says: a measure of a load, a bound, and whether it was kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from fancli.params import Usage, did_you_mean, parse_duration

if TYPE_CHECKING:
    from fan import LoadReport

_SLO = re.compile(r"\s*([A-Za-z]+[0-9.]*)\s*(<=|>=|==|<|>|=)\s*(\S+)\s*")
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)")
#: Other measures; those of latency are milliseconds.
_LATENCIES = ("max", "min", "mean")
_OTHERS = ("rps", "errors", "success")
_HINT = "'p99<50ms', 'max<1s', 'rps>=1000', 'errors<1%'"


class Slo(NamedTuple):
    """One bound. `unit` is `ms`, `%` of the requests, `old` for a share of what is compared with,
    or nothing: a bare number."""

    text: str
    measure: str
    sign: str
    bound: float
    unit: str

    @property
    def is_of_errors(self) -> bool:
        """Whether it says which errors are allowed."""
        return self.measure in ("errors", "success")

    def judge(self, report: LoadReport, old: Mapping[str, float]) -> tuple[float, bool]:
        """What was measured, and whether that is within the bound; `old` are the measures that are
        compared with."""
        value = measure(self.measure, report)
        if self.unit == "%":
            value = 100 * value / report.requests if report.requests else 0.0
        bound = self.bound / 100 * old.get(self.measure, 0.0) if self.unit == "old" else self.bound
        return value, {
            "<": value < bound,
            "<=": value <= bound,
            ">": value > bound,
            ">=": value >= bound,
            "=": value == bound,
        }[self.sign]


def parse_slo(text: str, *, has_old: bool) -> Slo:
    """`p99<50ms`, `errors<1%`; `p99<110%` is a share of what `--compare` names. Raises Usage."""
    match = _SLO.fullmatch(text)
    if not match:
        raise Usage(f"--slo {text!r} is no bound", _HINT)
    name, sign, bound = match[1].lower(), match[2].replace("==", "="), match[3]
    is_latency = name in _LATENCIES or _PERCENTILE.fullmatch(name) is not None
    if not is_latency and name not in _OTHERS:
        known = ("p50", "p90", "p99", "p99.9", *_LATENCIES, *_OTHERS)
        raise Usage(
            f"--slo {text!r}: there is no measure {name}", did_you_mean(name, known) or _HINT
        )
    number, percent, _ = bound.partition("%")
    if percent and bound.endswith("%"):
        unit = "%" if name in ("errors", "success") else "old"
        if unit == "old" and not has_old:
            raise Usage(f"--slo {text!r} compares with an old run", "--compare OLD.json")
        return Slo(text, name, sign, _number(number, text), unit)
    if is_latency:
        try:
            return Slo(text, name, sign, parse_duration(bound) * 1000, "ms")
        except Usage as exc:
            raise Usage(f"--slo {text!r}: {exc.message}", _HINT) from None
    return Slo(text, name, sign, _number(bound, text), "")


def measure(name: str, report: LoadReport) -> float:
    """A measure of a report: milliseconds of a latency, else a number."""
    if name == "errors":
        return float(report.failed)
    if name == "success":
        return float(report.requests - report.failed)
    if name == "rps":
        return report.rate
    if name == "mean":
        return report.latency.mean()
    if name in ("max", "min"):
        latency = report.latency
        return (latency.longest if name == "max" else latency.shortest) / 1e6
    return report.latency.percentile(float(name[1:]))


def _number(text: str, slo: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise Usage(f"--slo {slo!r}: {text!r} is no number", _HINT)
    return value
