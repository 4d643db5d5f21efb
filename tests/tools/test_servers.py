"""Private servers, on the real programs: their life, their data, and that none outlives its owner.

What holds for every product is tested on each. The tests in the first half share a server per
product, and leave it running.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest
import redis
from pika.exceptions import AMQPError

from fan.errors import Unavailable
from fan.testing.servers import require
from fan.tools.servers_base import Server
from fan.tools.servers_ports import is_listening
from fan.tools.servers_process import born
from fan.tools.servers_rabbitmq import RabbitMQ
from fan.tools.servers_redis import Redis
from fan.tools.servers_zookeeper import Ensemble, ZooKeeper

#: A bound on hangs, in seconds; everything here takes a fraction of it.
PATIENCE = 30.0

PRODUCTS: dict[str, type[Server]] = {"redis": Redis, "rabbitmq": RabbitMQ, "zookeeper": ZooKeeper}
EACH = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in PRODUCTS]
#: 127.0.0.1, the same in IPv6, and ::1, as /proc/net writes them.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
DOWN = (OSError, redis.ConnectionError, AMQPError)


def until(holds: Callable[[], bool]) -> bool:
    """Whether it holds within the bound."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def processes_in(folder: str) -> list[int]:
    """Live processes whose current folder is `folder`, whether or not that is still there."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "cwd").startswith(folder):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def greet(server: Server) -> None:
    """Use it as a client of the product does. Raises one of DOWN when it is down."""
    if isinstance(server, Redis):
        with redis.Redis.from_url(server.url, retry=None, socket_timeout=PATIENCE) as client:
            assert client.ping()
    elif isinstance(server, RabbitMQ):
        connection = connect(server)
        connection.channel().queue_declare("", exclusive=True)
        connection.close()
    else:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as raw:
            raw.sendall(b"ruok")
            assert raw.recv(4) == b"imok"


def connect(server: Server) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(server.url))


@pytest.fixture(scope="module", params=EACH)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One of each product, for all tests here."""
    require(request.config, request.param)
    with PRODUCTS[request.param]() as server:
        yield server.start()


def test_a_server_serves_clients_under_its_url(server: Server) -> None:
    scheme = {"redis": "redis://", "rabbitmq": "amqp://guest:guest@", "zookeeper": "zk://"}
    assert server.url.startswith(f"{scheme[server.name]}127.0.0.1:{server.port}")
    greet(server)


def test_it_listens_on_no_other_address_than_loopback(server: Server) -> None:
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if line.split()[3] == "0A" and int(port, 16) in server.ports:
                listening.add(address)
    assert listening
    assert listening <= LOOPBACK


def test_starting_a_server_that_runs_changes_nothing(server: Server) -> None:
    pid = server.pid
    server.start()
    assert server.pid == pid
    greet(server)


def test_a_server_that_was_killed_starts_again_on_its_port(server: Server) -> None:
    url, pid = server.url, server.pid
    server.kill()
    assert not server.is_running
    with pytest.raises(DOWN):
        greet(server)
    server.start()
    assert server.url == url
    assert server.pid != pid
    greet(server)


def test_a_paused_server_answers_once_it_is_resumed(server: Server) -> None:
    server.pause()
    assert server.is_running
    assert not server.answers
    server.resume()
    assert until(lambda: server.answers)
    greet(server)


def test_a_server_that_is_stopped_starts_again_with_its_data_folder(server: Server) -> None:
    folder = server.folder
    server.stop()
    assert not processes_in(folder)
    server.start()
    assert server.folder == folder
    greet(server)


OWNER = """
import sys
from fan.tools.servers import PRODUCTS
server = PRODUCTS[sys.argv[1]]().start()
print(server.folder, *server.ports, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("name", EACH)
def test_nothing_outlives_an_owner_that_is_killed(
    name: str, request: pytest.FixtureRequest
) -> None:
    require(request.config, name)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert owner.stdout is not None
        folder, *ports = owner.stdout.readline().decode().split()
        assert processes_in(folder)
    finally:
        owner.kill()
        owner.communicate()
    assert until(lambda: not processes_in(folder))
    assert until(lambda: not os.path.exists(folder))
    assert not any(is_listening(int(port)) for port in ports)


@pytest.mark.parametrize("name", EACH)
def test_a_server_that_is_closed_leaves_no_process_no_port_and_no_folder(
    name: str, request: pytest.FixtureRequest
) -> None:
    require(request.config, name)
    server = PRODUCTS[name]().start()
    assert processes_in(server.folder)
    server.close()
    server.close()
    assert not processes_in(server.folder)
    assert not any(is_listening(port) for port in server.ports)
    assert not os.path.exists(server.folder)


@pytest.mark.redis
def test_a_folder_that_was_given_is_kept(private: Path, new_redis: Callable[..., Redis]) -> None:
    server = new_redis(folder=str(private))
    server.close()
    assert (private / "redis.conf").exists()


@pytest.mark.redis
def test_nothing_outlives_a_keeper_that_is_killed(new_redis: Callable[..., Redis]) -> None:
    server = new_redis()
    keeper = int(Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(keeper, signal.SIGKILL)
    assert until(lambda: not born(server.pid))
    assert not server.is_running
    greet(server.start())


@pytest.mark.redis
def test_a_server_that_is_not_closed_is_reported_to_its_owner_alone(
    new_redis: Callable[..., Redis],
) -> None:
    server = new_redis()
    with pytest.warns(ResourceWarning, match="was not closed"):
        server.__del__()
    child = os.fork()
    if not child:
        try:
            server.__del__()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    greet(server)


@pytest.mark.redis
def test_a_server_that_cannot_start_says_why_and_leaves_nothing(
    new_redis: Callable[..., Redis], private: Path
) -> None:
    with pytest.raises(Unavailable, match="no-such-setting"):
        new_redis(folder=str(private), conf={"no-such-setting": "1"})
    assert not processes_in(str(private))


@pytest.mark.redis
def test_a_server_moves_where_its_first_port_was_taken_meanwhile(
    new_redis: Callable[..., Redis],
) -> None:
    with Redis() as late, socket.create_server(("127.0.0.1", late.port)) as fast:
        taken = fast.getsockname()[1]
        late.start()
        assert late.port != taken
        greet(late)


@pytest.mark.redis
def test_a_server_does_not_move_once_clients_know_its_port(
    new_redis: Callable[..., Redis],
) -> None:
    server = new_redis()
    server.kill()
    stranger = socket.create_server(("127.0.0.1", server.port))
    with stranger, pytest.raises(Unavailable, match="in use"):
        server.start()
    greet(server.start())


@pytest.mark.redis
@pytest.mark.parametrize("keeps_data", [True, False])
def test_redis_keeps_what_was_written_through_a_kill_where_it_should(
    new_redis: Callable[..., Redis], keeps_data: bool
) -> None:
    server = new_redis(keeps_data=keeps_data)
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        server.kill()
        server.start()
        assert client.get("key") == (b"value" if keeps_data else None)


@pytest.mark.redis
def test_redis_takes_a_password_and_settings(new_redis: Callable[..., Redis]) -> None:
    server = new_redis(password="a b/c", conf={"maxmemory": "4mb"})
    with redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(4 * 1024 * 1024)}
    stranger = redis.Redis(port=server.port, retry=None)
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


@pytest.mark.rabbitmq
def test_rabbitmq_keeps_confirmed_messages_through_a_kill_and_obeys_rabbitmqctl(
    new_rabbitmq: Callable[..., RabbitMQ],
) -> None:
    server = new_rabbitmq(conf={"heartbeat": "7"})
    connection = connect(server)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("kept", durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", "kept", b"value", pika.BasicProperties(delivery_mode=2))
    server.sync()
    server.kill()
    with pytest.raises(AMQPError):
        connection.process_data_events(PATIENCE)
    server.start()
    connection = connect(server)
    channel = connection.channel()
    _, _, body = next(channel.consume("kept", inactivity_timeout=PATIENCE))
    assert body == b"value"
    channel.cancel()
    connection.close()
    server.ctl("add_vhost", "other")
    assert "other" in server.ctl("list_vhosts").split()
    with pytest.raises(Unavailable, match="no_such_command"):
        server.ctl("no_such_command")


@pytest.mark.zookeeper
def test_an_ensemble_serves_with_a_member_killed_and_keeps_what_was_written(
    new_zookeeper: Callable[..., Ensemble],
) -> None:
    from kazoo.client import KazooClient

    ensemble = new_zookeeper(3)
    modes = sorted(s.say("srvr").partition("Mode: ")[2].split()[0] for s in ensemble.servers)
    assert modes == ["follower", "follower", "leader"]
    client = KazooClient(hosts=ensemble.hosts)
    client.start(timeout=PATIENCE)
    try:
        client.create("/key", b"value")
        ensemble.kill()
        assert not any(server.is_running for server in ensemble.servers)
        ensemble.start()
        leader = next(s for s in ensemble.servers if "Mode: leader" in s.say("srvr"))
        leader.kill()
        assert client.retry(client.get, "/key")[0] == b"value"
        greet(leader.start())
    finally:
        client.stop()
        client.close()
