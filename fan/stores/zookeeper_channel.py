"""Requests to the servers, in terms of this package: nodes, and transactions.

The traps of kazoo that are dealt with here: every request is asynchronous and waited for with a
deadline, since a synchronous one blocks while the servers are down; and a transaction never raises,
so each of its results is looked at.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from kazoo import exceptions as kazoo
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.security import ACL, Id

from fan.errors import FanError
from fan.stores import rules
from fan.stores import zookeeper_errors as errors
from fan.stores.zookeeper_connection import Connection, session_name
from fan.stores.zookeeper_multiread import AT_ONCE, MultiRead, Node, What
from fan.stores.zookeeper_url import CREATE, DELETE, READ, WRITE

#: What an access list and a node's bookkeeping take of a request, about.
_OVERHEAD = 100

Issue = Callable[[Any], Any]


class Write(msgspec.Struct, frozen=True):
    """One part of a transaction. `version` -1 takes any; `by_instances` says who may write it."""

    verb: Literal["check", "create", "set", "delete"]
    path: str
    data: bytes = b""
    version: int = -1
    is_ephemeral: bool = False
    by_instances: bool = False

    @property
    def size(self) -> int:
        return len(self.path.encode()) + len(self.data) + _OVERHEAD


class Refusal(msgspec.Struct, frozen=True):
    """The first part of a transaction that did not fit the tree; nothing of it was done."""

    write: Write
    why: str


class Uncertain(Exception):
    """A write whose answer got lost: whether it was done is unknown."""


class Channel(Connection):
    """The requests over one connection, from any thread."""

    # Asking

    def get(
        self, paths: Sequence[str], deadline: float, *, sync: bool = False
    ) -> list[Node | None]:
        """The nodes at some paths, all asked for at once; None where there is none."""
        if len(paths) > 1:
            return self._read("node", paths, deadline, sync)
        found = self.ask([_get(path) for path in paths], paths, deadline, sync=sync)
        return [None if answer is None else _node(*answer) for answer in found]

    def children(self, paths: Sequence[str], deadline: float) -> list[list[str] | None]:
        """The names below some nodes; None where there is no such node."""
        if len(paths) > 1:
            return self._read("names", paths, deadline)
        return self.ask([_children(path) for path in paths], paths, deadline)

    def _read(
        self, what: What, paths: Sequence[str], deadline: float, sync: bool = False
    ) -> list[Any]:
        """The same of many, some dozens in each request."""
        parts = [paths[i : i + AT_ONCE] for i in range(0, len(paths), AT_ONCE)]
        issues, firsts = [_many(what, part) for part in parts], [part[0] for part in parts]
        found = self.ask(issues, firsts, deadline, sync=sync)
        answers = (answer for each in found for answer in each)
        return [self._said(*each, deadline) for each in zip(answers, paths, strict=True)]

    def _said(self, answer: Any, path: str, deadline: float) -> Any:
        """One of the answers to a request that holds many."""
        if not isinstance(answer, Exception):
            return answer
        if isinstance(answer, kazoo.NoNodeError):
            return None
        if isinstance(answer, kazoo.NoAuthError):
            raise self._denied(path, READ, deadline) from answer
        raise errors.translate(answer, self.ensemble, path) from answer

    def ask(
        self, issues: Sequence[Issue], paths: Sequence[str], deadline: float, *, sync: bool = False
    ) -> list[Any]:
        """Send all requests, then wait for the answers, in order; None stands for no such node.
        Asked again over a new connection where one is lost. With `sync`, and wherever another
        server may have taken what we know of, the server first catches up with its leader."""
        rules.check_deadline(deadline, "use the registry")
        while True:
            client = self._ready(deadline)
            rumours = self._rumours
            pending = []
            if sync or self._heard != rumours or self.ensemble.is_many:
                pending = [client.sync_async("/")]
            ahead = len(pending)
            pending += [issue(client) for issue in issues]
            try:
                answers = [
                    self._answer(asked, paths[i - ahead] if i >= ahead else "/", deadline)
                    for i, asked in enumerate(pending)
                ]
            except errors.LOST:
                self._pause()
                continue
            if ahead:
                self._heard = rumours
            return answers[ahead:]

    def send(self, issue: Issue, deadline: float) -> None:
        """Send a request whose answer nobody needs: what is asked later is answered later. One that
        is lost with the connection is not repeated, see `opened`."""
        issue(self._ready(deadline))

    def _answer(self, asked: Any, path: str, deadline: float) -> Any:
        try:
            return asked.get(timeout=max(0.0, deadline - time.monotonic()))
        except kazoo.NoNodeError:
            return None
        except kazoo.NoAuthError as error:
            raise self._denied(path, READ, deadline) from error
        except KazooTimeoutError as error:
            raise errors.too_slow(self.ensemble) from error
        except errors.LOST:
            raise
        except kazoo.KazooException as error:
            raise errors.translate(error, self.ensemble, path) from error

    # Writing

    def multi(self, writes: Sequence[Write], deadline: float) -> Refusal | None:
        """Do all of it or nothing; None where it was done. Raises Uncertain where the answer got
        lost or did not come in time."""
        rules.check_deadline(deadline, "write to the registry")
        client = self._ready(deadline)
        transaction = client.transaction()
        for write in writes:
            if write.verb == "check":
                transaction.check(write.path, write.version)
            elif write.verb == "create":
                acl = self._access(write.by_instances)
                transaction.create(write.path, write.data, acl, write.is_ephemeral)
            elif write.verb == "set":
                transaction.set_data(write.path, write.data, write.version)
            else:
                transaction.delete(write.path, write.version)
        try:
            results = transaction.commit_async().get(timeout=max(0.0, deadline - time.monotonic()))
        except KazooTimeoutError as error:
            raise Uncertain from error
        except errors.LOST as error:
            self._pause()
            raise Uncertain from error
        except kazoo.KazooException as error:
            raise errors.translate(error, self.ensemble, writes[0].path) from error
        return self._refusal(writes, results, deadline)

    def _refusal(
        self, writes: Sequence[Write], results: Sequence[Any], deadline: float
    ) -> Refusal | None:
        for write, result in zip(writes, results, strict=True):
            if not isinstance(result, Exception) or isinstance(result, errors.FOLLOWERS):
                continue
            why = errors.REFUSED.get(type(result))
            if why is not None:
                return Refusal(write, why)
            if isinstance(result, kazoo.NoAuthError):
                above = write.path.rpartition("/")[0]
                if write.verb in ("create", "delete"):
                    needs = CREATE if write.verb == "create" else DELETE
                    raise self._denied(above, needs, deadline) from result
                raise self._denied(write.path, WRITE, deadline) from result
            raise errors.translate(result, self.ensemble, write.path) from result
        return None

    def ensure(self, paths: Sequence[tuple[str, bool, bytes]], deadline: float) -> None:
        """Make the nodes that are missing, parents first: path, whether instances write there, and
        what it holds."""
        names = [path for path, _, _ in paths]
        found = self.get(names, deadline)
        missing = [row for row, node in zip(paths, found, strict=True) if node is None]
        while missing:
            client = self._ready(deadline)
            pending = [
                client.create_async(path, data, acl=self._access(by_instances))
                for path, by_instances, data in missing
            ]
            try:
                for (path, _, _), made in zip(missing, pending, strict=True):
                    try:
                        made.get(timeout=max(0.0, deadline - time.monotonic()))
                    except kazoo.NodeExistsError:
                        continue
                    except kazoo.NoAuthError as error:
                        above = path.rpartition("/")[0] or "/"
                        raise self._denied(above, CREATE, deadline) from error
                return
            except KazooTimeoutError as error:
                raise errors.too_slow(self.ensemble) from error
            except errors.LOST:
                self._pause()
            except kazoo.KazooException as error:
                raise errors.translate(error, self.ensemble, names[0]) from error

    def _access(self, by_instances: bool) -> list[Any] | None:
        grants = self.ensemble.access(by_instances=by_instances)
        if grants is None:
            return None
        return [ACL(grant.permissions, Id(grant.scheme, grant.id)) for grant in grants]

    def _denied(self, path: str, needs: int, deadline: float) -> FanError:
        """Why `path` is closed to us."""
        access = None
        with contextlib.suppress(kazoo.KazooException, KazooTimeoutError, FanError):
            asked = self._ready(deadline).get_acls_async(path or "/")
            found, _ = asked.get(timeout=max(0.0, deadline - time.monotonic()))
            access = [(row.perms, row.id.scheme, row.id.id) for row in found]
        return errors.denied(self.ensemble, path, needs, access)


def _get(path: str) -> Issue:
    return lambda client: client.get_async(path)


def _many(what: What, paths: Sequence[str]) -> Issue:
    def issue(client: Any) -> Any:
        asked = client.handler.async_result()
        client._call(MultiRead(what, paths), asked)
        return asked

    return issue


def _children(path: str) -> Issue:
    return lambda client: client.get_children_async(path)


def _node(data: bytes, stat: Any) -> Node:
    owner = session_name(stat.ephemeralOwner) if stat.ephemeralOwner else ""
    return Node(data, stat.version, owner, stat.numChildren)
