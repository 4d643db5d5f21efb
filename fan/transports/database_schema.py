"""The tables of a file that holds queues."""

from __future__ import annotations

from fan.sqlite.kind import Kind

#: What state a message is in. It stands in exactly one of the partial indexes below, so that a
#: change of state costs two entries, and finding the next one is a step however many wait.
READY, HELD, DEAD, DELAYED = range(4)

_TABLES = """
-- `topic` is empty for pushes. `session` is whose queue it is alone, empty for one that lasts.
CREATE TABLE queue (
    name TEXT PRIMARY KEY, topic TEXT NOT NULL, session TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX queue_by_topic ON queue (topic) WHERE topic <> '';
-- Who takes from a queue now.
CREATE TABLE consumer (
    session TEXT NOT NULL, id INTEGER NOT NULL, queue TEXT NOT NULL, PRIMARY KEY (session, id)
) WITHOUT ROWID;
-- Ids grow in the order of acceptance and are never used again. Times are seconds of the epoch:
-- `due` is when a delayed one is ready, `lease` until when it belongs to who claimed it, `expires`
-- until when it is worth delivering. The (session, claim) of a delivery is given once.
CREATE TABLE message (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0,
    deliveries INTEGER NOT NULL DEFAULT 0, session TEXT NOT NULL DEFAULT '',
    claim INTEGER NOT NULL DEFAULT 0, lease REAL NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0,
    at REAL NOT NULL, expires REAL, error TEXT NOT NULL DEFAULT '', body BLOB NOT NULL
);
CREATE INDEX message_ready ON message (queue, id) WHERE state = 0;
CREATE INDEX message_held ON message (session) WHERE state = 1;
CREATE INDEX message_dead ON message (queue, id) WHERE state = 2;
CREATE INDEX message_delayed ON message (due, queue) WHERE state = 3;
-- Answers by idempotency key. NULL while their holder makes one.
CREATE TABLE answer (
    key TEXT PRIMARY KEY, holder TEXT NOT NULL, body BLOB, until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX answer_by_end ON answer (until)
"""

QUEUE_DATABASE = Kind(
    noun="queue database",
    application=0x66616E71,  # "fanq" in ASCII
    version=1,
    tables=_TABLES,
    loss="a new one begins empty",
)
