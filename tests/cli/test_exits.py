"""The table of exit codes: every row, and every code of the library."""

from __future__ import annotations

import pytest

from fan.errors import CLASSES
from fancli.exits import MEANINGS, Exit, exit_of

ROWS = [
    ("ok", "", "yes", 0),
    ("not_found", "no_such_service", "no", 3),
    ("not_found", "", "yes", 4),
    ("unimplemented", "unknown_method", "no", 3),
    ("unimplemented", "streaming_unsupported", "no", 4),
    ("failed_precondition", "version_missing", "no", 3),
    ("failed_precondition", "no_live_instance", "no", 4),
    ("failed_precondition", "paused", "no", 4),
    ("invalid_argument", "bad_signature", "no", 4),
    ("invalid_argument", "bad_address", "no", 2),
    ("invalid_argument", "bad_setting", "no", 2),
    ("invalid_argument", "unknown_profile", "no", 2),
    ("invalid_argument", "unknown_scheme", "no", 2),
    ("permission_denied", "", "no", 4),
    ("unauthenticated", "", "no", 4),
    ("out_of_range", "", "yes", 4),
    ("resource_exhausted", "payload_too_large", "no", 4),
    ("resource_exhausted", "bulkhead_full", "no", 6),
    ("already_exists", "", "yes", 4),
    ("already_exists", "duplicate_id", "no", 10),
    ("aborted", "", "yes", 4),
    ("aborted", "conflict", "yes", 4),
    ("aborted", "conflict", "no", 10),
    ("aborted", "nack", "no", 12),
    ("aborted", "auto_rollback", "no", 12),
    ("unknown", "", "yes", 5),
    ("unknown", "downstream_failed", "yes", 5),
    ("internal", "unserializable_result", "yes", 5),
    ("internal", "malformed_reply", "yes", 8),
    ("data_loss", "", "yes", 5),
    ("unavailable", "no_instance", "no", 6),
    ("unavailable", "connection_lost", "maybe", 7),
    ("unavailable", "", "yes", 5),
    ("deadline_exceeded", "expired_in_queue", "no", 6),
    ("deadline_exceeded", "client_timer", "maybe", 7),
    ("cancelled", "caller_cancelled", "maybe", 7),
    ("out_of_range", "compacted", "no", 11),
    ("a_code_of_the_future", "", "maybe", 5),
]


@pytest.mark.parametrize(("code", "reason", "executed", "status"), ROWS)
def test_an_error_has_the_status_of_the_table(
    code: str, reason: str, executed: str, status: int
) -> None:
    assert exit_of(code, reason, executed) == status


@pytest.mark.parametrize("code", CLASSES)
@pytest.mark.parametrize("executed", ["no", "maybe", "yes"])
def test_no_error_exits_with_success_or_as_a_bug(code: str, executed: str) -> None:
    assert exit_of(code, "", executed) not in (Exit.OK, Exit.BUG, Exit.USAGE)


def test_every_status_is_explained() -> None:
    assert set(MEANINGS) == set(Exit)
