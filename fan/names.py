"""Names that nobody knows: the errors for them, with what the writer may have meant."""

from __future__ import annotations

from typing import Any

from fan.errors import FanError, NotFound, Unimplemented


def no_such_service(service: str, known: Any) -> FanError:
    """The error for a service that nobody ever registered here, with similar names."""
    return NotFound(
        f"no such service: {service}{_did_you_mean(service, known)}",
        reason="no_such_service",
        details={"similar": similar(service, known)},
    )


def unknown_method(service: str, method: str, known: Any) -> FanError:
    """The error for a method that a service does not have, with similar names."""
    return Unimplemented(
        f"{service} has no method {method}{_did_you_mean(method, known)}",
        reason="unknown_method",
        details={"similar": similar(method, known), "methods": sorted(known)},
    )


def similar(name: str, known: Any) -> list[str]:
    """The names that somebody who typed `name` may have meant, best first."""
    from difflib import get_close_matches

    return get_close_matches(name, list(known), n=3, cutoff=0.6)


def _did_you_mean(name: str, known: Any) -> str:
    found = similar(name, known)
    return f" (did you mean {', '.join(found)}?)" if found else ""
