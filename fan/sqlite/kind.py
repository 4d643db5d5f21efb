"""What a file is to fan: a registry, or the queues."""

from __future__ import annotations

import msgspec


class Kind(msgspec.Struct, frozen=True):
    """How one kind of file is named to people, recognised and created.

    `user_version` numbers the schema and `application_id` marks the file as ours. A file of a newer
    schema is refused, because this code does not know what it would break."""

    #: As errors name it: "registry".
    noun: str
    application: int
    version: int
    #: The statements that create its tables, with `;` between them.
    tables: str
    #: What becomes of what was in a damaged one that was moved away.
    loss: str
