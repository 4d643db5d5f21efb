"""What happens to the registry on ZooKeeper when sessions end, and at forks."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import msgspec
import pytest

from fan.discovery import Discovery
from fan.errors import Unavailable
from fan.model import Instance, Interface
from fan.stores.base import HEAD, Session
from fan.stores.zookeeper import ZookeeperStore
from fan.stores.zookeeper_session import ZookeeperSession
from fan.testing.contracts.store import PATIENCE, names, soon, write
from fan.tools.servers_zookeeper import Ensemble

pytestmark = pytest.mark.zookeeper

#: Makes a store on the URL of a server; all are closed with the test.
Opens = Callable[..., ZookeeperStore]
#: Whether something becomes true in the end: the fixture `eventually`.
Eventual = Callable[[Callable[[], bool]], bool]
#: Has the servers end a session: the fixture `end_session`.
Ends = Callable[[Session], None]


# Sessions


def test_an_instance_comes_back_after_its_session_expired_with_its_latest_data(
    connect: Opens, url: str, eventually: Eventual, end_session: Ends
) -> None:
    server, watcher = connect(url), connect(url)
    discovery = Discovery(lambda: server)
    try:
        instance = Instance(id="greeter-1", service="greeter", version="1.0.0")
        discovery.register(instance, Interface(service="greeter", version="1.0.0"))
        discovery.update(msgspec.structs.replace(instance, state="draining"))
        session = discovery._session
        assert isinstance(session, ZookeeperSession)
        end_session(session)

        def is_back() -> bool:
            found = [r for r in watcher.list("inst", deadline=soon()) if r.session != session.id]
            return [msgspec.json.decode(r.body)["state"] for r in found] == ["draining"]

        assert eventually(is_back)
        assert not session.is_alive
    finally:
        discovery.close()


def test_a_session_is_lost_when_no_server_is_there_for_long(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    server = new_zookeeper()
    store = connect(server.url, session_timeout=0.5)
    told = threading.Event()
    session = store.open_session(on_lost=told.set, deadline=soon())
    server.kill()
    assert told.wait(PATIENCE)
    assert not session.is_alive
    with pytest.raises(Unavailable) as caught:
        store.put("inst", "a", b"", session=session, deadline=soon())
    assert caught.value.reason == "session_lost"


def test_a_session_outlives_a_restart_of_its_server(
    new_zookeeper: Callable[..., Ensemble], connect: Opens
) -> None:
    server = new_zookeeper()
    store = connect(server.url)
    told = threading.Event()
    session = store.open_session(on_lost=told.set, deadline=soon())
    store.put("inst", "a", b"1", session=session, deadline=soon())
    server.kill()
    server.start()
    store.put("inst", "a", b"2", session=session, deadline=soon())
    assert [r.body for r in store.list("inst", deadline=soon())] == [b"2"]
    assert session.is_alive
    assert not told.is_set()


# Forks

#: Python 3.12 and newer warn of a fork with threads, which is what is tried here.
_FORKS = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def _in_child(act: Callable[[], str]) -> str:
    """What `act` says in a forked child."""
    read, written = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "failed"
        try:
            answer = act()
        except BaseException as error:
            answer = repr(error)
        finally:
            os.write(written, answer.encode())
            os._exit(0)
    os.close(written)
    with os.fdopen(read, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


@_FORKS
def test_a_forked_child_has_a_connection_of_its_own(connect: Opens, url: str) -> None:
    store = connect(url)
    session = store.open_session(deadline=soon())
    store.put("inst", "a", b"", session=session, deadline=soon())
    store.watch(HEAD, lambda hint: None)
    write(store, x="1")

    def act() -> str:
        assert not session.is_alive
        session.close()
        gen = write(store, x="2").gen
        store.close()
        return f"{gen}"

    assert _in_child(act) == "2"
    assert session.is_alive
    assert names(store, "inst") == ["a"]
    assert write(store, x="3").gen == 3


@_FORKS
def test_a_forked_child_does_not_keep_a_dead_parents_records(
    connect: Opens, url: str, eventually: Eventual
) -> None:
    keeper = connect(url)
    keeper.head(deadline=soon())
    read, written = os.pipe()
    parent = os.fork()
    if parent == 0:
        # This one serves, forks, and dies; its child lives on until the pipe breaks.
        store = ZookeeperStore(url.removeprefix("zk:"), session_timeout=2.0)
        session = store.open_session(deadline=soon())
        store.put("inst", "a", b"", session=session, deadline=soon())
        child = os.fork()
        if child == 0:
            os.close(written)
            signal.pause()
        os.write(written, f"{child}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(written)
    with os.fdopen(read, encoding="utf-8") as pipe:
        child = int(pipe.readline())
    os.waitpid(parent, 0)
    try:
        assert eventually(lambda: names(keeper, "inst") == [])
    finally:
        os.kill(child, signal.SIGKILL)
