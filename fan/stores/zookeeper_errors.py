"""What kazoo says, as errors of fan: a sentence with the servers and what to do."""

from __future__ import annotations

from kazoo import exceptions as kazoo

from fan.errors import (
    DataLoss,
    DeadlineExceeded,
    Executed,
    FailedPrecondition,
    FanError,
    Internal,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from fan.stores.zookeeper_url import CREATE, DELETE, READ, WRITE, Ensemble

#: The request was not answered: whether it was carried out is unknown.
LOST = (
    kazoo.ConnectionLoss,
    kazoo.SessionExpiredError,  # and ConnectionClosedError, which is one
    kazoo.OperationTimeoutError,
    kazoo.SessionMovedError,
    kazoo.RequestTimeoutError,
    kazoo.ThrottledOpError,
)

#: Answers that say how the tree differs from what a write expected.
REFUSED = {
    kazoo.NoNodeError: "missing",
    kazoo.NodeExistsError: "exists",
    kazoo.BadVersionError: "moved",
    kazoo.NotEmptyError: "not_empty",
    kazoo.NoChildrenForEphemeralsError: "no_children",
}

#: Results of a transaction that speak of another operation than their own.
FOLLOWERS = (kazoo.RolledBackError, kazoo.RuntimeInconsistency)

_TABLE: dict[type[Exception], tuple[type[FanError], str, str]] = {
    kazoo.AuthFailedError: (
        Unauthenticated,
        "bad_credentials",
        "{at} refused the credentials of its URL: correct USER:PASSWORD@",
    ),
    kazoo.SessionClosedRequireSaslError: (
        Unauthenticated,
        "bad_credentials",
        "{at} wants credentials that this client has not",
    ),
    kazoo.InvalidACLError: (
        InvalidArgument,
        "bad_setting",
        "{at} does not understand the access list: check acl= and USER:PASSWORD@ of its URL",
    ),
    kazoo.NotReadOnlyCallError: (
        Unavailable,
        "read_only",
        "{at} has lost its quorum and takes no writes",
    ),
    kazoo.QuotaExceededError: (
        ResourceExhausted,
        "quota",
        "{at} takes no more: the quota of {path} is used up (zkCli: listquota)",
    ),
    kazoo.MarshallingError: (DataLoss, "", "{at} sent what cannot be read: {error!r}"),
    kazoo.UnimplementedError: (
        FailedPrecondition,
        "old_server",
        "{at} does not know a request that fan needs: it has to be ZooKeeper 3.6 or newer",
    ),
}


def translate(error: Exception, ensemble: Ensemble, path: str = "") -> FanError:
    """The error of fan for one of kazoo."""
    for cls, (kind, reason, sentence) in _TABLE.items():
        if isinstance(error, cls):
            message = sentence.format(at=f"the registry {ensemble}", path=path, error=error)
            return kind(message, reason=reason, executed="no", details={"path": path})
    return Internal(f"the registry {ensemble} failed at {path}: {error!r}")


def unreachable(ensemble: Ensemble, last: str) -> Unavailable:
    """Nobody answered in time; `last` is what kazoo said last."""
    return Unavailable(
        f"the registry {ensemble} cannot be reached{f' ({last})' if last else ''}; nothing was "
        "done: start its servers, or correct its URL (FAN_REGISTRY)",
        reason="connect_failed",
        executed="no",
    )


def too_slow(ensemble: Ensemble, executed: Executed = "no") -> DeadlineExceeded:
    """The connection is there, and the answer did not come in time."""
    return DeadlineExceeded(
        f"the registry {ensemble} did not answer in time",
        reason="client_timer",
        executed=executed,
    )


def denied(
    ensemble: Ensemble, path: str, needs: int, access: list[tuple[int, str, str]] | None
) -> FanError:
    """Why a node may not be used: `access` are the permissions, schemes and ids of its list, None
    where even that may not be read. The server answers unknown and weak credentials alike; a list
    that grants our user what was refused tells that the password is wrong."""
    details = {"path": path}
    what = " and ".join(
        word
        for bit, word in ((READ, "read"), (WRITE, "write"), (CREATE, "create"), (DELETE, "delete"))
        if needs & bit
    )
    if not ensemble.user:
        if access is not None:
            return PermissionDenied(
                f"the registry {ensemble} lets nobody {what} {path} without credentials: "
                "zk://USER:PASSWORD@...",
                reason="not_allowed",
                details=details,
            )
        return Unauthenticated(
            f"the registry {ensemble} wants credentials for {path}: zk://USER:PASSWORD@...",
            reason="no_credentials",
            details=details,
        )
    mine = [
        permissions
        for permissions, scheme, id in access or ()
        if scheme == "digest" and id.partition(":")[0] == ensemble.user
    ]
    if access is None or not mine or any(permissions & needs == needs for permissions in mine):
        return Unauthenticated(
            f"the registry {ensemble} does not know the user {ensemble.user!r} with this password: "
            "correct USER:PASSWORD@ in its URL",
            reason="bad_credentials",
            details=details,
        )
    return PermissionDenied(
        f"the registry {ensemble} does not let {ensemble.user!r} {what} {path}: use the "
        "credentials of a role that may",
        reason="not_allowed",
        details=details,
    )
