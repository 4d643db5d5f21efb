"""What stands in a `zk://` URL: servers, chroot, credentials, TLS, and who may do what.

`zk://[USER:PASSWORD@]HOST[:PORT][,HOST...][/CHROOT][?OPTION=VALUE&...]`. Reserved characters are
percent-encoded, in the credentials as in the options: `tls`, `ca`, `cert`, `key`, `acl`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote

import msgspec

from fan.errors import InvalidArgument

#: Permissions of ZooKeeper: https://zookeeper.apache.org/doc/r3.8.0/zookeeperProgrammers.html
READ, WRITE, CREATE, DELETE, ADMIN = 1, 2, 4, 8, 16
ALL = READ | WRITE | CREATE | DELETE | ADMIN

ROLES = ("operator", "instance", "reader")
OPTIONS = ("tls", "ca", "cert", "key", "acl")
_PATHS = ("ca", "cert", "key")
_SHAPE = re.compile(r"//(?:(?P<who>[^/?]*)@)?(?P<hosts>[^/?@]+)(?P<chroot>/[^?]*)?(?:\?(?P<q>.*))?")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(:\d{1,5})?")
_DIGEST = re.compile(r"[^:]+:[A-Za-z0-9+/]{27}=")
_ANYONE = "anyone"


class Grant(msgspec.Struct, frozen=True):
    """One line of a node's access list: permissions, ZooKeeper's scheme, and the id in it."""

    permissions: int
    scheme: str
    id: str


class Ensemble(msgspec.Struct, frozen=True):
    """Where the registry is and as whom to use it. `roles` are the pairs of `acl=`: a role and the
    digest id (`user:hash`) or `anyone` that has it."""

    hosts: str
    chroot: str = ""
    user: str = ""
    password: str = ""
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    roles: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"zk://{self.hosts}{self.chroot}"

    @property
    def is_many(self) -> bool:
        """Whether another server may answer than the one that took our last write."""
        return "," in self.hosts

    def access(self, *, by_instances: bool) -> list[Grant] | None:
        """Who may do what with a new node, which instances write or only read; None is everybody
        everything. Without roles it is all for whoever has the creator's credentials."""
        if not self.roles:
            return [Grant(ALL, "auth", "")] if self.user else None
        rights = {"operator": ALL, "instance": ALL & ~ADMIN if by_instances else READ}
        return [
            Grant(rights.get(role, READ), "world" if id == _ANYONE else "digest", id)
            for role, id in self.roles
        ]


def parse(place: str) -> Ensemble:
    """What follows `zk:` in a URL. Raises InvalidArgument (bad_setting)."""
    try:
        return _parse(place)
    except ValueError as exc:
        raise InvalidArgument(f"registry: {exc}", reason="bad_setting") from exc


def normal(place: str, folder: str) -> str:
    """The same with the paths of certificates made absolute. Raises ValueError."""
    _parse(place)
    head, mark, query = place.partition("?")
    if not mark:
        return place
    pairs = []
    for name, value in _options(query):
        if name in _PATHS and value:
            value = os.path.abspath(os.path.join(folder, os.path.expanduser(value)))
        pairs.append(f"{name}={quote(value, safe='/:=,+@')}")
    return f"{head}?{'&'.join(pairs)}"


def _parse(place: str) -> Ensemble:
    match = _SHAPE.fullmatch(place)
    if match is None:
        raise ValueError(f"{_masked(place)!r} names no host: zk://HOST[:PORT][,HOST]/CHROOT")
    hosts = match["hosts"].strip(",")
    for host in hosts.split(","):
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is no host: zk://HOST[:PORT][,HOST]/CHROOT")
    user, colon, password = (match["who"] or "").partition(":")
    if match["who"] is not None and not (user and colon):
        raise ValueError("the credentials of a registry are USER:PASSWORD@ in front of its hosts")
    chroot = (match["chroot"] or "").rstrip("/")
    if any(part in ("", ".", "..") for part in chroot.split("/")[1:]):
        raise ValueError(f"{chroot!r} is no path of ZooKeeper")
    given = dict(_options(match["q"] or ""))
    tls = _switch(given.get("tls", "1" if any(given.get(name) for name in _PATHS) else "0"))
    if bool(given.get("cert")) != bool(given.get("key")):
        raise ValueError("a certificate needs its key, and a key its certificate: cert=, key=")
    return Ensemble(
        hosts=hosts,
        chroot=chroot,
        user=unquote(user),
        password=unquote(password),
        tls=tls,
        roles=tuple(_roles(given.get("acl", ""))),
        **{name: given.get(name, "") for name in _PATHS},
    )


def _options(query: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name not in OPTIONS:
            raise ValueError(f"there is no option {name!r}: known are {', '.join(OPTIONS)}")
        yield name, unquote(value)  # not of a form: the `+` of a hash is no space


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"tls is 1 or 0, not {text!r}")
    return text == "1"


def _roles(text: str) -> Iterator[tuple[str, str]]:
    names = []
    for part in filter(None, text.split(",")):
        role, _, id = part.partition("=")
        if role not in ROLES or not (id == _ANYONE or _DIGEST.fullmatch(id)):
            raise ValueError(
                f"{part!r} is no part of acl=: it is ROLE=USER:HASH or ROLE=anyone, the roles are "
                f"{', '.join(ROLES)}, and the hash is base64 of the SHA-1 of USER:PASSWORD"
            )
        names.append(role)
        yield role, id
    if names and "operator" not in names:
        raise ValueError("acl= names no operator: nobody could write there")


def _masked(place: str) -> str:
    return re.sub(r"//[^/?]*@", "//***@", place)
