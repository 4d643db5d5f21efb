"""A client process that forks after it has called, as a pre-forking server does.

    python -m fan.testing.contracts.forking REGISTRY FOLDER SCHEME [MODULE:ATTRIBUTE [SETTINGS]]

The parent calls `probe.add`, forks two children that call on their own, and calls again meanwhile.
It ends with 0 when all of them got their own answers, and let go of what they inherited.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
import warnings
from typing import Any

from fan.testing.contracts.server import make_app

CALLS = 50


def main(registry: str, folder: str, scheme: str, made_by: str = "", more: str = "{}") -> int:
    """Call, fork, call; the number of processes that failed."""
    leaked: list[str] = []
    warnings.simplefilter("error", ResourceWarning)
    sys.unraisablehook = lambda found: leaked.append(f"{found.exc_value!r}")
    app = make_app(registry, folder, scheme, made_by, more)
    check(app, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of a fork with threads
        children = [fork(app, n, leaked) for n in (1, 2)]
    check(app, 3)
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    check(app, 4)
    app.close()
    return failed


def fork(app: Any, n: int, leaked: list[str]) -> int:
    """A child that calls and ends with 0 when its answers were right and it has leaked nothing."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        check(app, n)
        app.close()
        gc.collect()
        sys.stderr.write("\n".join(leaked))
        status = len(leaked)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def check(app: Any, n: int) -> None:
    """Calls whose answers belong to `n` alone."""
    for i in range(CALLS):
        got = app.call("probe.add", n * 1000, b=i)
        if got != n * 1000 + i:
            raise AssertionError(f"asked for {n * 1000 + i}, got {got}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
