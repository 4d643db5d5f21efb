"""A Redis that dies, hangs, forgets, is full, or lets nobody in."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis import Redis as Client

from fan.errors import FanError
from fan.settings import Settings
from fan.testing.contracts.probe import BOUND, Probe, probe
from fan.testing.contracts.queue_harness import until
from fan.testing.contracts.queue_probe import Inbox
from fan.tools.servers_redis import Redis
from fan.transports.redis_line import CONNECT

pytestmark = pytest.mark.redis

Make = Callable[..., Redis]


def answers(client: Any, n: int = 1) -> bool:
    """Whether a call works."""
    try:
        return bool(client.call("probe.add", n) == n + 1)
    except FanError:
        return False


def failure_of(call: Callable[[], object]) -> FanError:
    """What a call raises."""
    with pytest.raises(FanError) as info:
        call()
    return info.value


def test_calls_under_load_survive_a_redis_that_is_killed_and_starts_empty(
    new_redis: Make, make_apps: Any
) -> None:
    server = new_redis()
    apps = make_apps(server.url)
    apps.serve(probe())
    client, stop = apps.app(retries=0, breaker_failures=0), threading.Event()
    wrong: list[Any] = []
    codes: set[str] = set()

    def load(n: int) -> None:
        while not stop.is_set():
            n += 16
            try:
                got = client.using(timeout=2.0).call("probe.echo", n)["args"]
            except FanError as exc:
                codes.add(exc.code)
            else:
                if got != [n]:
                    wrong.append((n, got))

    threads = [threading.Thread(target=load, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            until(lambda: answers(client))
            server.kill()
            until(lambda: not answers(client))
            server.start()
        until(lambda: answers(client))
    finally:
        stop.set()
        for thread in threads:
            thread.join(4 * BOUND)
    assert wrong == []
    assert codes <= {"unavailable", "deadline_exceeded"}


def test_a_redis_that_goes_away_and_comes_back_is_told_once_each(
    new_redis: Make, make_apps: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = new_redis()
    apps = make_apps(server.url)
    apps.serve(probe())
    client = apps.app(retries=0, breaker_failures=0)

    def told() -> list[tuple[str, str]]:
        return [
            (record.levelname, record.getMessage())
            for record in caplog.records
            if "was lost: " in record.getMessage() or "is there again" in record.getMessage()
        ]

    for n in (1, 2):
        until(lambda: answers(client))
        until(lambda n=n: len(told()) == 4 * (n - 1))
        server.kill()
        # The caller and the server, in an App each.
        until(lambda n=n: len(told()) == 4 * n - 2)
        for _ in range(20):  # however often it is tried
            assert not answers(client.using(timeout=0.1))
        assert len(told()) == 4 * n - 2
        server.start()
    until(lambda: answers(client) and len(told()) == 8)
    url = f"redis://127.0.0.1:{server.port}/0"
    lost, again = told()[::4], told()[2::4]
    assert {level for level, _ in told()} == {"WARNING"}
    assert all(line.startswith(f"the connection to {url} was lost: ") for _, line in lost)
    assert all(line.endswith("; trying again") for _, line in lost)
    assert {line for _, line in again} == {f"{url} is there again"}


def test_pushes_that_were_confirmed_are_delivered_after_a_kill(
    new_redis: Make, make_apps: Any
) -> None:
    server = new_redis(keeps_data=True, conf={"appendfsync": "always"})
    apps = make_apps(server.url)
    box = Inbox()
    apps.serve(box, workers=1)
    sender = apps.app().using(transport="redis")
    sender.push("inbox.keep", "first")
    assert box.wait_seen().tag == "first"
    for n in range(50):
        sender.push("inbox.take", n)
    server.kill()
    server.start()
    box.gate("first").set()
    tags: set[Any] = set()
    while not tags.issuperset(range(50)):
        tags.add(box.wait_seen().tag)


def test_a_redis_that_hangs_costs_a_call_its_deadline_and_no_more(
    new_redis: Make, make_apps: Any
) -> None:
    server = new_redis()
    apps = make_apps(server.url)
    apps.serve(probe())
    client = apps.app(retries=0)
    assert answers(client)
    server.pause()
    try:
        for call in (client.using(timeout=1.5).call, client.using(timeout=1.5).push):
            failure = failure_of(lambda call=call: call("probe.add", 1))
            assert (failure.code, failure.reason) == ("deadline_exceeded", "client_timer")
            assert failure.executed == "maybe"
    finally:
        server.resume()
    until(lambda: answers(client))


def test_a_call_in_hand_is_told_that_redis_forgot_it(new_redis: Make, make_apps: Any) -> None:
    server = new_redis()
    apps = make_apps(server.url)
    service = probe()
    apps.serve(service)
    client = apps.app(retries=0).using(timeout=10 * BOUND)
    held = client.submit("probe.hold", "held")
    service.wait_entered()
    server.kill()
    server.start()
    with pytest.raises(FanError) as info:
        held.result(4 * BOUND)
    assert (info.value.reason, info.value.executed) == ("connection_lost", "maybe")


def test_streams_that_are_gone_are_made_again(apps: Any, redis: Client) -> None:
    box = Inbox()
    apps.serve(box)
    client = apps.app()
    for n in range(3):
        redis.flushdb()
        until(lambda: redis.exists("fan:rq:inbox:1.0.0"))
        assert client.call("inbox.add", n) == n + 1
        client.using(transport="redis").push("inbox.take", n)
        assert box.wait_seen().tag == n


def test_scripts_that_are_forgotten_are_sent_again(apps: Any, redis: Client) -> None:
    box = Inbox()
    apps.serve(box)
    client = apps.app()
    for n in range(3):
        redis.script_flush()
        assert client.call("inbox.add", n) == n + 1
        redis.script_flush()
        client.using(transport="redis").push("inbox.take", n)
        assert box.wait_seen().tag == n
    until(lambda: redis.xpending("fan:pq:inbox", "fan")["pending"] == 0)


def test_a_redis_without_memory_refuses_and_recovers(new_redis: Make, make_apps: Any) -> None:
    server = new_redis(conf={"maxmemory-policy": "noeviction"})
    apps = make_apps(server.url)
    apps.serve(probe())
    client = apps.app(retries=0)
    assert answers(client)
    with Client.from_url(server.url) as redis:
        redis.config_set("maxmemory", "1")
        for call in (client.call, client.using(transport="redis").push):
            failure = failure_of(lambda call=call: call("probe.add", 1))
            assert (failure.code, failure.reason) == ("resource_exhausted", "quota")
            assert failure.executed == "no"
            assert "out of memory" in failure.message
        redis.config_set("maxmemory", "0")
    assert answers(client)


def test_a_reply_that_redis_has_no_memory_for_comes_when_it_has(
    new_redis: Make, make_apps: Any
) -> None:
    server = new_redis(conf={"maxmemory-policy": "noeviction"})
    apps = make_apps(server.url)
    service = probe()
    apps.serve(service)
    held = apps.app(retries=0).using(timeout=4 * BOUND).submit("probe.hold", "held")
    service.wait_entered()
    with Client.from_url(server.url) as redis:
        redis.config_set("maxmemory", "1")
        refused = redis.info("stats")["total_error_replies"]
        service.gate("held").set()
        until(lambda: redis.info("stats")["total_error_replies"] > refused)
        redis.config_set("maxmemory", "0")
    assert held.result(4 * BOUND) == "held"


def test_a_redis_that_evicts_loses_queues_and_calls_go_on(new_redis: Make, make_apps: Any) -> None:
    server = new_redis(conf={"maxmemory-policy": "allkeys-random"})
    apps = make_apps(server.url)
    apps.serve(probe())
    client = apps.app(retries=0, breaker_failures=0).using(timeout=1.0)
    with Client.from_url(server.url) as redis:
        redis.config_set("maxmemory", str(redis.info("memory")["used_memory"] + 4_000_000))
        for n in range(1000):
            redis.set(f"other:{n}", b"x" * 10_000)
        assert redis.info("stats")["evicted_keys"]
        until(lambda: answers(client))
        redis.config_set("maxmemory", "0")
    until(lambda: answers(client))


def test_a_replica_is_told_as_one(new_redis: Make, make_apps: Any) -> None:
    master, replica = new_redis(), new_redis()
    apps = make_apps(master.url)
    apps.serve(probe())
    client = apps.app(retries=0)
    with Client.from_url(replica.url) as redis:
        redis.replicaof("127.0.0.1", master.port)
        until(lambda: redis.info("replication")["master_link_status"] == "up")
    there = client.using(peers=(replica.url,))
    failure = failure_of(lambda: there.call("probe.add", 1))
    assert (failure.code, failure.executed) == ("unavailable", "no")
    assert "replica" in failure.message


@pytest.mark.parametrize(
    ("login", "db", "code"),
    [
        ("", 0, "unauthenticated"),
        (":wrong@", 0, "unauthenticated"),
        ("nobody:secret@", 0, "unauthenticated"),
        (":secret@", 99, "not_found"),
    ],
)
def test_who_is_not_let_in_is_told_why_at_once(
    new_redis: Make, make_apps: Any, login: str, db: int, code: str
) -> None:
    server = new_redis(password="secret")
    apps = make_apps(f"redis://{login}127.0.0.1:{server.port}/{db}")
    patient = apps.app(retries=0).using(
        peers=(f"redis://127.0.0.1:{server.port}/{db}",), timeout=100 * BOUND
    )
    failure = failure_of(lambda: patient.call("probe.add", 1))
    assert (failure.code, failure.executed) == (code, "no")
    assert f"127.0.0.1:{server.port}" in failure.message
    failure = failure_of(lambda: apps.serve(probe()))
    assert failure.code == code
    for secret in ("wrong", "secret"):
        assert secret not in failure.message


def test_the_password_of_the_settings_serves_the_address_without_it(
    new_redis: Make, make_apps: Any
) -> None:
    server = new_redis(password="se:cr/et@")
    apps = make_apps(server.url)
    service = probe()
    app = apps.serve(service)
    client = apps.app()
    assert answers(client)
    (address,) = app.lifecycle.instances[0].addresses
    assert address.url == f"redis://127.0.0.1:{server.port}/0"


def refusal_of(make_apps: Any, url: str) -> str:
    """The sentence for a call and for a push to a port that is no Redis of this kind."""
    client = make_apps(url).app(retries=0).using(peers=(url,), timeout=4 * BOUND)
    failures = [
        failure_of(lambda call=call: call("probe.add", 1)) for call in (client.call, client.push)
    ]
    for failure in failures:
        assert (failure.code, failure.reason) == ("unavailable", "connect_failed")
        assert failure.executed == "no"
    called, pushed = (str(failure.message) for failure in failures)
    assert called == pushed
    return called


def test_a_connection_is_given_up_well_within_the_default_deadline() -> None:
    assert Settings().timeout >= 2 * CONNECT


def test_tls_to_a_plain_port_is_connect_failed(url: str, make_apps: Any) -> None:
    said = refusal_of(make_apps, url.replace("redis://", "rediss://"))
    assert said.endswith("nothing answers TLS there: is it a port without TLS (redis://)?")


@contextlib.contextmanager
def listening(answer: bytes) -> Iterator[int]:
    """The port of a server that answers the first bytes it gets, or says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as open_ones:

        def serve() -> None:
            with contextlib.suppress(OSError):  # it is closed
                while True:
                    connection, _ = listener.accept()
                    open_ones.enter_context(connection)
                    if answer:
                        connection.recv(1000)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("scheme", "answer", "said"),
    [
        ("redis", b"", "nothing answers there"),
        ("rediss", b"", "nothing answers TLS there: is it a port without TLS (redis://)?"),
        (
            "redis", b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "it does not speak Redis's protocol, and said 'HTTP/1.1 400 Bad Request'",
        ),
        (
            "rediss", b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "TLS failed (wrong version number): is it a port without TLS (redis://)?",
        ),
    ],
)  # fmt: skip
def test_a_port_of_something_else_is_connect_failed(
    make_apps: Any, scheme: str, answer: bytes, said: str
) -> None:
    with listening(answer) as port:
        url = f"{scheme}://127.0.0.1:{port}/0"
        assert refusal_of(make_apps, url) == f"cannot connect to {url}: {said}"


@pytest.fixture
def tls_redis(new_redis: Make, tmp_path: Path) -> tuple[int, str]:
    """The port of a Redis over TLS, and the file of its authority."""
    from fan.tools.servers_ports import free_ports

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    identity = authority.issue_cert("127.0.0.1")
    identity.private_key_pem.write_to_path(tmp_path / "key.pem")
    identity.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    (port,) = free_ports(1)
    new_redis(
        conf={
            "tls-port": str(port), "tls-auth-clients": "no",
            "tls-cert-file": str(tmp_path / "cert.pem"), "tls-key-file": str(tmp_path / "key.pem"),
            "tls-ca-cert-file": str(tmp_path / "ca.pem"),
        }
    )  # fmt: skip
    return port, str(tmp_path / "ca.pem")


def test_calls_go_over_tls(tls_redis: tuple[int, str], make_apps: Any) -> None:
    port, authority = tls_redis
    apps = make_apps(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority}")
    apps.serve(probe())
    client = apps.app()
    size = 3_000_000
    assert len(client.call("probe.reply_of", size)) == size
    assert client.call("probe.size", b"x" * size) == size
    assert sorted(f.result(BOUND) for f in [client.submit("probe.add", n) for n in range(50)]) == [
        *range(1, 51)
    ]


def test_a_plain_connection_to_a_tls_port_is_connect_failed(
    tls_redis: tuple[int, str], make_apps: Any
) -> None:
    port, _ = tls_redis
    said = refusal_of(make_apps, f"redis://127.0.0.1:{port}/0")
    assert said.endswith("it closed the connection: does it want TLS (rediss://)?")


def test_an_authority_that_is_not_known_is_connect_failed(
    tls_redis: tuple[int, str], make_apps: Any
) -> None:
    port, _ = tls_redis
    assert "its certificate is not trusted" in refusal_of(make_apps, f"rediss://127.0.0.1:{port}/0")


def test_a_port_where_nobody_listens_is_connect_failed_within_the_deadline(make_apps: Any) -> None:
    from fan.tools.servers_ports import free_ports

    (port,) = free_ports(1)
    apps = make_apps(f"redis://127.0.0.1:{port}/0")
    client = apps.app(retries=0).using(peers=(apps.url,), timeout=100 * BOUND)
    began = time.monotonic()
    for call in (client.call, client.push):
        failure = failure_of(lambda call=call: call("probe.add", 1))
        assert (failure.reason, failure.executed) == ("connect_failed", "no")
    assert isinstance(client.submit("probe.add", 1).exception(4 * BOUND), FanError)
    assert failure_of(lambda: apps.serve(Probe())).reason == "connect_failed"
    assert time.monotonic() - began < 10 * BOUND
