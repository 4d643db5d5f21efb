"""Ask the consumers of a change whether they could take it, before anything is changed.

Keys of the store that live here: records `prep/<op id>` of this coordinator, bound to a session of
its own, so that one that dies leaves no question behind.
"""

from __future__ import annotations

import time

import msgspec

from fan.consumer import PREPARATIONS
from fan.errors import Aborted
from fan.model import Consumer, Proposal
from fan.stores.base import Op, Store
from fan.version_confirm import Confirm, Tally, consumers, looks, services_of, told, who


def prepare(
    store: Store, op: Op, proposal: Proposal, how: Confirm, timeout: float
) -> tuple[Consumer, ...]:
    """Have every consumer of the objects that would change say whether it can take them; those that
    come later are not asked, and one that leaves has nothing to say. Returns who was asked. Raises
    Aborted (nack) where one says no, or does not answer in the time of `how`."""
    until = time.monotonic() + how.timeout
    services = services_of(proposal.changes)
    proposal = msgspec.structs.replace(proposal, until=time.time() + how.timeout)
    deadline = time.monotonic() + timeout
    session = store.open_session(deadline=deadline)
    try:
        body = msgspec.json.encode(proposal)
        store.put(PREPARATIONS, op.id, body, session=session, deadline=deadline)
        asked = consumers(store, services, deadline)
        voters = dict(asked)
        for left in looks(store, until):
            there = consumers(store, services, time.monotonic() + timeout)
            voters = {id: there[id] for id in voters if id in there}
            tally = _tally(voters, op.id)
            if how.on_progress is not None:
                how.on_progress(tally)
            if tally.nacked or (left <= 0 and tally.pending):
                raise _refused(tally, op.id)
            if not tally.pending:
                break
        return tuple(asked.values())
    finally:
        session.close()


def _tally(voters: dict[str, Consumer], op: str) -> Tally:
    said = [(c, c.votes.get(op)) for _, c in sorted(voters.items())]
    return Tally(
        tuple(c for c, vote in said if vote is not None and vote.ok),
        tuple(c for c, vote in said if vote is None),
        tuple(c for c, vote in said if vote is not None and not vote.ok),
    )


def _refused(tally: Tally, op: str) -> Aborted:
    said = [f"{who(c)} refused it: {c.votes[op].error}" for c in tally.nacked]
    if not said:
        said = [f"{who(c)} did not answer in time" for c in tally.pending]
    return Aborted(
        f"nothing was changed: {'; '.join(said)}",
        reason="nack",
        details={
            "nacked": [{**told(c), "error": c.votes[op].error} for c in tally.nacked],
            "pending": [told(c) for c in tally.pending],
        },
    )
