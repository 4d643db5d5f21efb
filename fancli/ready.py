"""--wait-ready: wait until a service takes calls, before the call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fancli.call_options import WHOLE_BUDGET
from fancli.params import parse_duration

if TYPE_CHECKING:
    from fan import App, Client, FanError
    from fancli.request import Asking

#: Seconds between two looks.
INTERVAL = 0.05
#: Seconds that one look may take.
LOOK = 1.0

#: What may be otherwise in a moment: (code, reason); an empty reason is any.
_PASSING = {
    ("not_found", "no_such_service"),
    ("failed_precondition", "version_missing"),
    ("failed_precondition", "dependency_missing"),
    ("unavailable", ""),
}


def wait_ready(app: App, asking: Asking, client: Client, given: str) -> Client:
    """Return once the service takes calls, with a client for what is left of the budget: that is
    `--timeout`, unless the wait has one of its own. Raises DeadlineExceeded (not_ready), executed
    no."""
    from fan import DeadlineExceeded

    budget = asking.common.timeout or app.settings.timeout
    wait = budget if given == WHOLE_BUDGET else parse_duration(given)
    began = time.monotonic()
    until = began + wait
    while (missing := _missing(asking, client, until)) is not None:
        if time.monotonic() + INTERVAL >= until:
            exc = DeadlineExceeded(
                f"not ready within {_span(wait)}: {missing}", reason="not_ready", executed="no"
            )
            exc.target = asking.target.name
            raise exc
        time.sleep(INTERVAL)
    if given != WHOLE_BUDGET:
        return client
    left = max(0.001, budget - (time.monotonic() - began))
    return client.using(timeout=left)


def _missing(asking: Asking, client: Client, until: float) -> FanError | None:
    """Why it takes no calls, None when it does."""
    from fan import FanError

    target = asking.target
    look = client.using(timeout=max(0.001, min(LOOK, until - time.monotonic())), retries=0)
    try:
        if not asking.options["peers"]:
            look.resolve(target.service, target.method)
        else:  # whatever it answers, it is there
            look.request(target.service, "health", "application/json", b"{}")
    except FanError as exc:
        if (exc.code, exc.reason) in _PASSING or (exc.code, "") in _PASSING:
            return exc
        if asking.options["peers"] and exc.code == "deadline_exceeded":
            return exc
        if asking.options["peers"]:
            return None
        raise
    return None


def _span(seconds: float) -> str:
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"
