"""Who may do what in a registry on ZooKeeper: credentials, roles, TLS, chroots."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from fan import App, Settings
from fan.demo.v1 import Greeter
from fan.errors import FanError, InvalidArgument, PermissionDenied, Unauthenticated, Unavailable
from fan.stores.base import HEAD
from fan.stores.zookeeper import ZookeeperStore
from fan.testing.contracts.store import Eventually, bodies, names, plan, soon, write
from fan.tools.servers_ports import free_ports
from fan.tools.servers_zookeeper import Ensemble

pytestmark = pytest.mark.zookeeper

#: A store as one user: `as_user("ops:secret")`; without credentials it is nobody.
AsUser = Callable[..., ZookeeperStore]


def digest(who: str) -> str:
    """`user:hash` of `user:password`, as `acl=` takes it."""
    hashed = base64.b64encode(hashlib.sha1(who.encode()).digest()).decode()
    return f"{who.partition(':')[0]}:{hashed}"


OPERATOR, INSTANCE, READER = "ops:o", "svc:s p@/ce", "view:v"
ROLES = f"operator={digest(OPERATOR)},instance={digest(INSTANCE)},reader={digest(READER)}"
OPEN = f"operator={digest(OPERATOR)},instance={digest(INSTANCE)},reader=anyone"


@pytest.fixture
def as_user(zookeeper_server: Any) -> Iterator[AsUser]:
    hosts, chroot = zookeeper_server.url.removeprefix("zk://"), uuid.uuid4().hex
    with contextlib.ExitStack() as stack:

        def opens(who: str = "", acl: str = "", namespace: str = "default") -> ZookeeperStore:
            user, _, password = who.partition(":")
            quoted = password.replace(" ", "%20").replace("@", "%40").replace("/", "%2F")
            login = f"{user}:{quoted}@" if who else ""
            query = f"?acl={acl}" if acl else ""
            store = ZookeeperStore(f"//{login}{hosts}/{chroot}{query}", namespace)
            stack.callback(store.close)
            return store

        yield opens


def refused(act: Callable[[], object]) -> FanError:
    """What it raises, which did not run."""
    with pytest.raises((PermissionDenied, Unauthenticated)) as caught:
        act()
    assert caught.value.executed == "no"
    return caught.value


def test_an_operator_does_everything(as_user: AsUser) -> None:
    ops = as_user(OPERATOR, ROLES)
    write(ops, x="1")
    write(ops, x="2")
    for kind in ("override", "inst", "iface", "prep", "another"):
        ops.put(kind, "a/1", b"1", deadline=soon())
        ops.put(kind, "a/1", b"2", deadline=soon())
        assert ops.delete(kind, "a/1", deadline=soon()) is True


def test_an_instance_writes_its_records_and_reads_the_rest(as_user: AsUser) -> None:
    write(as_user(OPERATOR, ROLES), x="1")
    svc = as_user(INSTANCE, ROLES)
    session = svc.open_session(deadline=soon())
    for kind in ("inst", "iface", "needs", "subs", "unique"):
        svc.put(kind, "new/1", b"1", session=session, is_new=True, deadline=soon())
        svc.put(kind, "new/1", b"2", session=session, deadline=soon())
        svc.put(kind, "one", b"1", deadline=soon())
    assert svc.delete("inst", "new/1", session=session, deadline=soon()) is True
    assert bodies(svc) == {"x": "1"}
    assert len(svc.log(0, deadline=soon())) == 1


@pytest.mark.parametrize("kind", ["override", "prep", "another"])
def test_an_instance_writes_nothing_else(as_user: AsUser, kind: str) -> None:
    ops = as_user(OPERATOR, ROLES)
    write(ops, x="1")
    ops.put(kind, "a/1", b"", deadline=soon())
    svc = as_user(INSTANCE, ROLES)
    for act in (
        lambda: svc.put(kind, "a/2", b"", deadline=soon()),
        lambda: svc.put(kind, "a/1", b"2", deadline=soon()),
        lambda: svc.delete(kind, "a/1", deadline=soon()),
    ):
        error = refused(act)
        assert (error.code, error.reason) == ("permission_denied", "not_allowed")
        assert "does not let 'svc'" in str(error)


@pytest.mark.parametrize("who", [INSTANCE, READER])
def test_only_operators_make_generations(as_user: AsUser, who: str) -> None:
    ops = as_user(OPERATOR, ROLES)
    write(ops, x="1")
    other = as_user(who, ROLES)
    op = f"{ops.head(deadline=soon()).epoch}:1:abc"
    for act in (
        lambda: write(other, x="2"),
        lambda: write(other, new="2"),
        lambda: other.commit(plan(x="2"), op=op, deadline=soon()),
    ):
        error = refused(act)
        assert (error.code, error.reason) == ("permission_denied", "not_allowed")
    assert bodies(ops) == {"x": "1"}
    assert ops.commit(plan(x="2"), op=op, deadline=soon()).gen == 2


def test_a_reader_reads_and_watches_and_writes_nothing(as_user: AsUser) -> None:
    ops = as_user(OPERATOR, ROLES)
    write(ops, x="1")
    ops.put("inst", "a/1", b"", deadline=soon())
    view = as_user(READER, ROLES)
    assert bodies(view) == {"x": "1"}
    assert names(view, "inst") == ["a/1"]
    seen = Eventually(lambda: (view.head(deadline=soon()).gen, names(view, "inst")))
    view.watch(HEAD, seen)
    view.watch("inst", seen)
    write(ops, x="2")
    as_user(INSTANCE, ROLES).put("inst", "a/2", b"", deadline=soon())
    assert seen.sees((2, ["a/1", "a/2"]))
    error = refused(lambda: view.put("inst", "a/3", b"", deadline=soon()))
    assert error.code == "permission_denied"


def test_an_operator_changes_what_an_instance_wrote(as_user: AsUser) -> None:
    ops = as_user(OPERATOR, ROLES)
    write(ops, x="1")
    svc = as_user(INSTANCE, ROLES)
    svc.put("inst", "new/1", b"", session=svc.open_session(deadline=soon()), deadline=soon())
    assert names(ops, "inst") == ["new/1"]
    assert ops.delete("inst", "new/1", deadline=soon()) is True


@pytest.mark.parametrize("who", ["ops:wrong", "svc:wrong", "view:wrong", "mallory:m"])
def test_unknown_credentials_are_unauthenticated(as_user: AsUser, who: str) -> None:
    write(as_user(OPERATOR, ROLES), x="1")
    other = as_user(who, ROLES)
    for act in (lambda: bodies(other), lambda: other.put("inst", "a/1", b"", deadline=soon())):
        error = refused(act)
        assert (error.code, error.reason) == ("unauthenticated", "bad_credentials")
        assert "wrong" not in str(error)


def test_a_wrong_password_is_told_from_a_weak_role_where_anyone_may_read(as_user: AsUser) -> None:
    write(as_user(OPERATOR, OPEN), x="1")
    assert bodies(as_user("", OPEN)) == {"x": "1"}
    assert bodies(as_user("ops:wrong", OPEN)) == {"x": "1"}
    error = refused(lambda: write(as_user("ops:wrong", OPEN), x="2"))
    assert (error.code, error.reason) == ("unauthenticated", "bad_credentials")
    error = refused(lambda: write(as_user(INSTANCE, OPEN), x="2"))
    assert (error.code, error.reason) == ("permission_denied", "not_allowed")
    error = refused(lambda: write(as_user("", OPEN), x="2"))
    assert (error.code, error.reason) == ("permission_denied", "not_allowed")
    assert "USER:PASSWORD" in str(error)


def test_without_credentials_one_is_asked_for_them(as_user: AsUser) -> None:
    write(as_user(OPERATOR, ROLES), x="1")
    error = refused(lambda: bodies(as_user("", ROLES)))
    assert (error.code, error.reason) == ("unauthenticated", "no_credentials")


def test_an_operator_has_to_come_first(as_user: AsUser) -> None:
    svc = as_user(INSTANCE, ROLES)
    assert names(svc, "inst") == []
    error = refused(lambda: svc.put("inst", "a/1", b"", deadline=soon()))
    assert error.code == "permission_denied"
    write(as_user(OPERATOR, ROLES), x="1")
    svc.put("inst", "a/1", b"", deadline=soon())


def test_with_credentials_alone_all_is_for_these(as_user: AsUser) -> None:
    write(as_user("team:t"), x="1")
    mate = as_user("team:t")
    assert write(mate, x="2").gen == 2
    mate.put("inst", "a/1", b"", deadline=soon())
    assert refused(lambda: bodies(as_user("other:t"))).code == "unauthenticated"
    assert refused(lambda: write(as_user(), x="3")).code == "unauthenticated"


# TLS


def _for_java(cert: trustme.LeafCert) -> bytes:
    """Key and certificates as Java reads them: it knows keys in PKCS 8 alone."""
    key = serialization.load_pem_private_key(cert.private_key_pem.bytes(), None)
    encoded = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return encoded + b"".join(blob.bytes() for blob in cert.cert_chain_pems)


@pytest.fixture
def tls(new_zookeeper: Callable[..., Ensemble], tmp_path: Path) -> str:
    """The address of a server that speaks TLS alone with those it knows; the files of who may is
    `ca.pem`, `own.pem` and `own.key` in `tmp_path`."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server, own = ca.issue_cert("127.0.0.1"), ca.issue_cert("client@example.org")
    (tmp_path / "server.pem").write_bytes(_for_java(server))
    own.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    for blob in own.cert_chain_pems:
        blob.write_to_path(str(tmp_path / "own.pem"), append=True)
    (port,) = free_ports(1)
    new_zookeeper(
        conf={"secureClientPort": str(port), "secureClientPortAddress": "127.0.0.1"},
        properties={
            "zookeeper.serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
            "zookeeper.ssl.keyStore.location": str(tmp_path / "server.pem"),
            "zookeeper.ssl.keyStore.type": "PEM",
            "zookeeper.ssl.trustStore.location": str(tmp_path / "ca.pem"),
            "zookeeper.ssl.trustStore.type": "PEM",
            "zookeeper.ssl.clientAuth": "need",
        },
    )
    return f"//127.0.0.1:{port}"


def test_tls_with_certificates_on_both_sides(tls: str, tmp_path: Path) -> None:
    place = f"{tls}?ca={tmp_path}/ca.pem&cert={tmp_path}/own.pem&key={tmp_path}/own.key"
    with ZookeeperStore(place) as store:
        assert write(store, x="1").gen == 1
        session = store.open_session(deadline=soon())
        store.put("inst", "a/1", b"", session=session, deadline=soon())
        assert names(store, "inst") == ["a/1"]
        # Many answers at once come in one piece, of which the socket itself knows nothing more.
        many = {f"n{i}": "x" * 50 for i in range(300)}
        write(store, **many)
        assert bodies(store).keys() == {"x", *many}


def test_a_server_that_nobody_vouches_for_is_not_talked_to(
    tls: str, tmp_path: Path, eventually: Callable[[Callable[[], bool]], bool]
) -> None:
    def told(store: ZookeeperStore) -> str:
        with pytest.raises(Unavailable) as caught:
            store.head(deadline=time.monotonic() + 0.5)
        return str(caught.value)

    with ZookeeperStore(f"{tls}?tls=1") as store:
        # As soon as a handshake came so far, which takes the server its time.
        assert eventually(lambda: "certificate verify failed" in told(store))


def test_a_certificate_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with (
        ZookeeperStore(f"//127.0.0.1:1?ca={tmp_path}/no.pem") as store,
        pytest.raises(InvalidArgument, match=r"no\.pem") as caught,
    ):
        store.head(deadline=soon())
    assert caught.value.reason == "bad_setting"


# Chroots


def test_chroots_and_namespaces_are_apart(zookeeper_server: Any) -> None:
    place, own = zookeeper_server.url.removeprefix("zk:"), uuid.uuid4().hex
    with (
        ZookeeperStore(f"{place}/{own}/a/b") as deep,
        ZookeeperStore(f"{place}/{own}/a/") as shallow,
        ZookeeperStore(f"{place}/{own}/a", "other") as other,
        ZookeeperStore(f"{place}/{own}/a") as same,
    ):
        write(deep, x="deep")
        write(shallow, x="shallow")
        assert bodies(deep) == {"x": "deep"}
        assert bodies(other) == {}
        assert bodies(same) == {"x": "shallow"}


# Services


def test_a_service_that_may_not_write_its_route_is_called_without_one(
    as_user: AsUser, private: Path
) -> None:
    ops = as_user(OPERATOR, ROLES)
    write(ops, x="1")
    hosts, chroot = ops.ensemble.hosts, ops.ensemble.chroot

    def settings(who: str) -> Settings:
        url = f"zk://{who}@{hosts}{chroot}?acl={ROLES}"
        return Settings(registry=url, runtime_dir=str(private / "run"))

    with (
        App(settings=settings("svc:s%20p%40%2Fce")) as server,
        App(settings=settings(READER)) as client,
    ):
        server.add(Greeter())
        server.start(["ipc"])
        assert client.call("greeter.hello", name="ada") == "Hello ada"
        assert ops.read(prefix="route/", deadline=soon()).objects == {}
