"""Runs the benchmarks beside it and keeps their rows: `nox -s bench`, `-- NAME...` for some.

A benchmark is a file `bench_NAME.py` with `run() -> list[dict]`. A row compares one thing of ours
with its base line, both measured in the same run, interleaved, as medians:

    name    what was measured
    ours    the median of ours                   base    the median of the base line
    unit    of both numbers                      ratio   ours / base
    target  what the ratio has to be: a number (a most), or a text such as "<= 2" or ">= 0.33"
    ok      whether it is
    note    anything else, optional

Only ratios of one run count: the machine decides about the rest. The exit status is 1 when a row
misses its target.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"

Row = dict[str, Any]


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def line(row: Row) -> str:
    target = row["target"]
    wanted = target if isinstance(target, str) else f"<= {target:g}"
    return "  ".join(
        (
            f"{row['name']:<52.52}",
            f"{row['ours']:>10.4g} {row['unit']:<8.8}",
            f"{row['base']:>10.4g} {row['unit']:<8.8}",
            f"{row['ratio']:>7.3g}",
            f"{wanted:<18.18}",
            "ok" if row["ok"] else "MISSED",
        )
    )


def main(names: list[str]) -> int:
    warnings.simplefilter("error", ResourceWarning)
    sys.path.insert(0, str(HERE))  # benchmarks share the base lines in this folder
    paths = [p for p in sorted(HERE.glob("bench_*.py")) if not names or p.stem[6:] in names]
    if unknown := set(names) - {p.stem[6:] for p in paths}:
        sys.exit(f"no such benchmark: {', '.join(sorted(unknown))}")
    kept: dict[str, list[Row]] = {}
    if names and RESULTS.exists():
        kept = json.loads(RESULTS.read_text())["benchmarks"]
    print(f"{'':52}  {'ours':>10} {'':8}  {'base':>10} {'':8}  {'ratio':>7}  target")
    fine = True
    for path in paths:
        began = time.monotonic()
        rows = load(path).run()
        kept[path.stem[6:]] = rows
        print(f"-- {path.stem[6:]} ({time.monotonic() - began:.0f} s)")
        for row in rows:
            fine = fine and row["ok"]
            print(line(row) + (f"  {row['note']}" if row.get("note") else ""), flush=True)
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    unsaved = RESULTS.with_suffix(".json.tmp")
    unsaved.write_text(json.dumps({"machine": machine, "benchmarks": kept}, indent=1) + "\n")
    unsaved.replace(RESULTS)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
