"""How an App tells the registry what it has in force, so that who switches versions knows.

It registers before it reads: who reads first and registers then is confirmed on what it has not
seen (41 of 60 times in a measurement, against none this way round). Keys of the store that live
here: records `subs/<id>` of this App, bound to its session; records `prep/<op id>` are read.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from fan.chores import FAREWELL, RETRY, Chore, held
from fan.config_values import owner_of
from fan.context import new_id
from fan.errors import DeadlineExceeded, FanError, PermissionDenied, Unavailable
from fan.mirror import Mirror, State
from fan.model import Applied, Consumer, Nack, Proposal, Vote
from fan.stores.base import Entry, Hint, Revision, Session, Store, Watch
from fan.stores.rules import now

SUBSCRIBERS = "subs"
PREPARATIONS = "prep"

#: Seconds after which a generation that touches nothing in use is acknowledged too.
LAZY = 30.0
#: Votes that are remembered; proposals are gone long before.
_MAX_VOTES = 64

_decode_proposal = msgspec.json.Decoder(Proposal).decode


def users_of(object: str) -> str:
    """The service whose users an object concerns: that of a route, or the owner of a config; empty
    for what concerns nobody."""
    kind, _, name = object.partition("/")
    if kind == "route":
        return name
    return owner_of(name) if kind == "config" else ""


def _owners(names: Iterable[str]) -> set[str]:
    """The services whose users look at these objects, and at all below those that end in `/`."""
    return {owner for name in names if (owner := users_of(name.rstrip("/")))}


class Registration:
    """The record of one App, kept as its mirror moves on. It is written from the first name in use
    on; where the registry does not let us write it, nobody waits for this App."""

    def __init__(
        self, mirror: Mirror, open: Callable[[], Store], *, app: str, timeout: float = 5.0
    ) -> None:
        self._mirror = mirror
        self._open = open
        self._timeout = timeout
        #: Held while the record is replaced, and for nothing that may wait.
        self._lock = threading.Lock()
        self._record = Consumer(
            id=f"{app}-{new_id()[:12]}", app=app, pid=os.getpid(), host=os.uname().nodename
        )
        #: Held by who writes it: see `held`.
        self._writing = threading.RLock()
        self._session: Session | None = None
        self._watch: Watch | None = None
        #: The services that the registry knows us to use.
        self._told: frozenset[str] = frozenset()
        self._written_at = 0.0
        self._is_refused = False
        self._closed = threading.Event()
        what = "tell the registry what is applied"
        self._telling = Chore("fan-consumer-ack", what, self._write_again)
        self._voting = Chore("fan-consumer-vote", "vote on a proposal", self._vote)
        what = "register again with what is in use"
        self._returning = Chore("fan-consumer", what, self._come_back)
        mirror.witness = self

    def __repr__(self) -> str:
        record = self._record
        return f"<Registration {record.id} applied={record.applied.gen} uses={record.uses}>"

    @property
    def record(self) -> Consumer:
        """What is registered of this App."""
        return self._record

    # What the mirror tells

    def extend(self, names: Iterable[str], deadline: float) -> None:
        """Register the services whose objects are about to be read. Raises what the store raises:
        who is not registered must not read."""
        owners = _owners(names)
        with self._lock:
            uses = owners.union(self._record.uses)
            self._record = msgspec.structs.replace(self._record, uses=tuple(sorted(uses)))
        if not (owners.issubset(self._told) and self._is_registered()):
            self._write(deadline)

    def narrow(self, names: Iterable[str]) -> None:
        """Use only what is left. It is told along with what is told next; until then others wait
        for us, and are answered."""
        with self._lock:
            uses = tuple(sorted(_owners(names)))
            self._record = msgspec.structs.replace(self._record, uses=uses)

    def _is_waited_for(self, services: Iterable[str]) -> bool:
        """Whether a change of these is one of ours, or of what we are known to use."""
        return not self._told.union(self._record.uses).isdisjoint(services)

    def applied(self, state: State, entries: Iterable[Entry] | None) -> None:
        """Acknowledge a state; at once where it touches what is in use, else after a while."""
        cursor = state.cursor
        if cursor is None:
            return
        with self._lock:
            new = Applied(cursor.epoch, cursor.gen, cursor.op)
            if new == self._record.applied and self._record.nack is None:
                return
            is_prompt = (
                entries is None
                or self._record.nack is not None
                or not self._record.applied.gen  # who was given up said nothing yet
                or self._is_waited_for(users_of(d.object) for entry in entries for d in entry.diff)
            )
            self._record = msgspec.structs.replace(self._record, applied=new, nack=None)
        if is_prompt or time.monotonic() - self._written_at > LAZY:
            self._tell()

    def refused(self, gen: int, error: FanError) -> None:
        """Say that a generation is not taken, and why."""
        with self._lock:
            nack = Nack(gen, f"{error.code}: {error}")
            if nack == self._record.nack:
                return
            self._record = msgspec.structs.replace(self._record, nack=nack)
        self._tell()

    # Proposals

    def _on_hint(self, hint: Hint) -> None:
        if hint == "lost" or self._closed.is_set():
            return
        try:
            self._vote()
        except FanError as exc:
            logging.getLogger("fan").warning("a proposal could not be voted on: %s", exc)
            self._voting.ask(RETRY)

    def _vote(self) -> None:
        deadline = time.monotonic() + self._timeout
        votes = {}
        for found in self._open().list(PREPARATIONS, deadline=deadline):
            with contextlib.suppress(msgspec.DecodeError, RecursionError):
                proposal = _decode_proposal(found.body)
                concerned = map(users_of, proposal.changes)
                if found.name not in self._record.votes and self._is_waited_for(concerned):
                    votes[found.name] = self._verdict(proposal)
        if not votes:
            return
        with self._lock:
            kept = [*self._record.votes.items(), *votes.items()][-_MAX_VOTES:]
            self._record = msgspec.structs.replace(self._record, votes=dict(kept))
        self._write(deadline)

    def _verdict(self, proposal: Proposal) -> Vote:
        """Whether the state would be taken that a proposal would leave."""
        state = self._mirror.state
        objects = dict(state.objects)
        for object, body in proposal.changes.items():
            if not state.wants(object):
                continue
            if body is None:
                objects.pop(object, None)
            else:
                objects[object] = Revision(object, state.gen + 1, body)
        try:
            self._mirror.check(msgspec.structs.replace(state, objects=objects))
        except FanError as exc:
            return Vote(False, f"{exc.code}: {exc}")
        return Vote(True)

    # Writing

    def _is_registered(self) -> bool:
        return self._is_refused or (self._session is not None and self._session.is_alive)

    def _tell(self) -> None:
        """Have written what changed; a registry that is down learns it when it is back."""
        if self._record.uses:
            self._telling.ask()

    def _write_again(self) -> None:
        self._write(time.monotonic() + self._timeout)

    def _write(self, deadline: float) -> None:
        """Write the record as it stands now."""
        with held(self._writing, deadline):
            if self._is_refused or self._closed.is_set():
                return
            store = self._open()
            try:
                if self._session is None or not self._session.is_alive:
                    self._session = store.open_session(on_lost=self._on_lost, deadline=deadline)
                if self._watch is None:
                    self._watch = store.watch(PREPARATIONS, self._on_hint)
                self._put(store, deadline)
            except PermissionDenied as exc:
                self._is_refused = True
                logging.getLogger("fan").warning("switches will not wait for this App: %s", exc)

    def _put(self, store: Store, deadline: float) -> None:
        with self._lock:
            record = self._record = msgspec.structs.replace(self._record, at=now())
        body = msgspec.json.encode(record)
        store.put(SUBSCRIBERS, record.id, body, session=self._session, deadline=deadline)
        self._told = frozenset(record.uses)
        self._written_at = time.monotonic()

    def _on_lost(self) -> None:
        """The store gave us up, and a switch may have been confirmed without us: what is at hand
        must not be used before it was read again, after registering anew."""
        self._mirror.drop()
        with self._lock:
            self._record = msgspec.structs.replace(self._record, applied=Applied(), votes={})
        self._returning.ask()

    def _come_back(self) -> None:
        deadline = time.monotonic() + self._timeout
        self._write(deadline)
        self._mirror.refresh(deadline)

    def close(self) -> None:
        """Be no consumer any more. Twice does no harm."""
        self._closed.set()
        for chore in (self._telling, self._voting, self._returning):
            chore.close()
        # Where somebody is still at it the store goes away with the session.
        until = time.monotonic() + FAREWELL
        with contextlib.suppress(DeadlineExceeded), held(self._writing, until):
            session, self._session = self._session, None
            watch, self._watch = self._watch, None
            if watch is not None:
                watch.close()
            if session is not None:
                with contextlib.suppress(Unavailable):
                    session.close()


def registered(record: Any) -> Consumer | None:
    """The consumer of a record, None for one that somebody damaged."""
    try:
        return msgspec.json.decode(record.body, type=Consumer)
    except (msgspec.DecodeError, RecursionError):
        return None
