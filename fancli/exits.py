"""The numbers that the shell sees: one table, from an error's code, reason and `executed`.

The names are for scripts of ours (`fan help exit-codes` prints them); the numbers are stable.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit status of `fan`; the docstring of each name is `MEANINGS`."""

    OK = 0
    BUG = 1
    USAGE = 2
    UNRESOLVED = 3
    REFUSED = 4
    FAILED = 5
    UNAVAILABLE = 6
    UNCERTAIN = 7
    MALFORMED_REPLY = 8
    PARTIAL = 9
    CONFLICT = 10
    COMPACTED = 11
    NACK = 12
    INTERRUPTED = 130
    CLOSED_PIPE = 141
    TERMINATED = 143


#: What each status tells the caller, in a line; shown by `fan help exit-codes`.
MEANINGS: dict[Exit, str] = {
    Exit.OK: "ok; also when it was so already, and for an empty list",
    Exit.BUG: "a bug in fan, or the output could not be written",
    Exit.USAGE: "usage: bad option, target or payload; nothing was sent",
    Exit.UNRESOLVED: "a name does not resolve: service, method, version, config or generation",
    Exit.REFUSED: "refused: bad arguments, not allowed, too large, or the application said no",
    Exit.FAILED: "the callee failed",
    Exit.UNAVAILABLE: "nobody could be reached or they are busy; nothing ran, safe to retry",
    Exit.UNCERTAIN: "outcome unknown: it was sent, and no answer came",
    Exit.MALFORMED_REPLY: "the reply cannot be decoded",
    Exit.PARTIAL: "partial: some failed, not as expected, or not confirmed in time",
    Exit.CONFLICT: "changed since it was read, or a duplicate",
    Exit.COMPACTED: "the history asked for is gone",
    Exit.NACK: "a participant said no, or it was rolled back",
    Exit.INTERRUPTED: "Ctrl-C",
    Exit.CLOSED_PIPE: "the reader of stdout went away",
    Exit.TERMINATED: "SIGTERM",
}

#: Where the reason alone decides, whoever raised it.
_BY_REASON: dict[tuple[str, str], Exit] = {
    ("invalid_argument", "bad_address"): Exit.USAGE,
    ("invalid_argument", "bad_cursor"): Exit.USAGE,
    ("invalid_argument", "bad_key"): Exit.USAGE,
    ("invalid_argument", "bad_recording"): Exit.USAGE,
    ("invalid_argument", "bad_op"): Exit.USAGE,
    ("invalid_argument", "bad_setting"): Exit.USAGE,
    ("invalid_argument", "bad_sticky"): Exit.USAGE,
    ("invalid_argument", "bad_version"): Exit.USAGE,
    ("invalid_argument", "bad_weight"): Exit.USAGE,
    ("invalid_argument", "nothing_to_switch"): Exit.USAGE,
    ("invalid_argument", "unknown_profile"): Exit.USAGE,
    ("invalid_argument", "unknown_scheme"): Exit.USAGE,
    ("not_found", "no_such_path"): Exit.UNRESOLVED,
    ("unimplemented", "unknown_method"): Exit.UNRESOLVED,
    ("failed_precondition", "version_missing"): Exit.UNRESOLVED,
    ("resource_exhausted", "payload_too_large"): Exit.REFUSED,
    ("internal", "malformed_reply"): Exit.MALFORMED_REPLY,
    ("out_of_range", "compacted"): Exit.COMPACTED,
    ("aborted", "nack"): Exit.NACK,
    ("aborted", "auto_rollback"): Exit.NACK,
    ("aborted", "undone_by"): Exit.NACK,
    ("aborted", "superseded_by"): Exit.NACK,
    ("deadline_exceeded", "not_confirmed"): Exit.PARTIAL,
}

#: Where `executed` decides: code -> (no, maybe, yes). "no" is the runtime speaking, "yes" the
#: application.
_BY_EXECUTED: dict[str, tuple[Exit, Exit, Exit]] = {
    "not_found": (Exit.UNRESOLVED, Exit.REFUSED, Exit.REFUSED),
    "already_exists": (Exit.CONFLICT, Exit.REFUSED, Exit.REFUSED),
    "deadline_exceeded": (Exit.UNAVAILABLE, Exit.UNCERTAIN, Exit.UNCERTAIN),
    "unavailable": (Exit.UNAVAILABLE, Exit.UNCERTAIN, Exit.FAILED),
}

_BY_CODE: dict[str, Exit] = {
    "ok": Exit.OK,
    "cancelled": Exit.UNCERTAIN,
    "unknown": Exit.FAILED,
    "invalid_argument": Exit.REFUSED,
    "permission_denied": Exit.REFUSED,
    "unauthenticated": Exit.REFUSED,
    "out_of_range": Exit.REFUSED,
    "failed_precondition": Exit.REFUSED,
    "unimplemented": Exit.REFUSED,
    "aborted": Exit.REFUSED,
    "resource_exhausted": Exit.UNAVAILABLE,
    "internal": Exit.FAILED,
    "data_loss": Exit.FAILED,
}


def exit_of(code: str, reason: str = "", executed: str = "maybe") -> Exit:
    """The status of an error. A code that nobody knows is the callee's failure."""
    if code == "aborted" and reason == "conflict" and executed == "no":
        return Exit.CONFLICT
    if (known := _BY_REASON.get((code, reason))) is not None:
        return known
    if (row := _BY_EXECUTED.get(code)) is not None:
        return row[("no", "maybe", "yes").index(executed)]
    return _BY_CODE.get(code, Exit.FAILED)
