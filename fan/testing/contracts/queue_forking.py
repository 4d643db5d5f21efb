"""A client process that forks after it has pushed, as a pre-forking server does.

    python -m fan.testing.contracts.queue_forking REGISTRY FOLDER SCHEME [MODULE:ATTRIBUTE [JSON]]

The parent pushes half of its messages, forks two children that push their own, and pushes the rest
meanwhile. It ends with 0 when everything was accepted.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterable
from typing import Any

from fan.testing.contracts.server import make_app

#: Pushes of each process.
PUSHES = 20


def main(registry: str, folder: str, scheme: str, made_by: str = "", more: str = "{}") -> int:
    """Push, fork, push; the number of processes that failed."""
    app = make_app(registry, folder, scheme, made_by, more)
    push(app, scheme, "parent", range(PUSHES // 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of a fork with threads
        children = [fork(app, scheme, who) for who in ("a", "b")]
    push(app, scheme, "parent", range(PUSHES // 2, PUSHES))
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    app.close()
    return failed


def fork(app: Any, scheme: str, who: str) -> int:
    """A child that pushes and ends with 0 when all was accepted."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        push(app, scheme, who, range(PUSHES))
        app.close()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def push(app: Any, scheme: str, who: str, numbers: Iterable[int]) -> None:
    """Pushes whose tags tell who sent them."""
    for n in numbers:
        app.using(transport=scheme).push("inbox.take", f"{who}-{n}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
