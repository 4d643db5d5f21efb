"""What a `zk://` URL may say, and what is said of one that may not be."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fan.errors import InvalidArgument
from fan.plugins import open_store
from fan.settings_values import normal_registry
from fan.stores.zookeeper import ZookeeperStore
from fan.stores.zookeeper_url import ALL, READ, Ensemble, Grant, parse

HASH = "x" * 27 + "="


def test_hosts_and_chroot() -> None:
    assert parse("//h1,h2:2182,[::1]:3/a/b/") == Ensemble("h1,h2:2182,[::1]:3", "/a/b")
    assert parse("//h1") == parse("//h1/") == Ensemble("h1")


def test_credentials_are_decoded_and_never_shown() -> None:
    ensemble = parse("//me:p%40ss%2Fw:rd@h1,h2/fan")
    assert (ensemble.user, ensemble.password) == ("me", "p@ss/w:rd")
    assert str(ensemble) == "zk://h1,h2/fan"
    with pytest.raises(InvalidArgument) as caught:
        parse("//me:secret@")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "tls"),
    [("tls=1", True), ("ca=/ca.pem", True), ("", False), ("tls=0", False)],
)
def test_a_certificate_asks_for_tls(query: str, tls: bool) -> None:
    assert parse(f"//h?{query}").tls is tls


def test_roles_make_access_lists() -> None:
    roles = parse(f"//h?acl=operator=ops:{HASH},instance=svc:{HASH},reader=anyone")
    ops, anyone = Grant(ALL, "digest", f"ops:{HASH}"), Grant(READ, "world", "anyone")
    assert roles.access(by_instances=False) == [
        ops,
        Grant(READ, "digest", f"svc:{HASH}"),
        anyone,
    ]
    assert roles.access(by_instances=True) == [
        ops,
        Grant(15, "digest", f"svc:{HASH}"),
        anyone,
    ]
    assert parse("//h").access(by_instances=True) is None
    assert parse("//a:b@h").access(by_instances=True) == [Grant(ALL, "auth", "")]


def test_the_plus_of_a_hash_is_no_space() -> None:
    assert parse(f"//h?acl=operator=ops:{'+' * 27}=").roles == (("operator", f"ops:{'+' * 27}="),)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("host", "names no host"),
        ("///a", "names no host"),
        ("//h:port", "is no host"),
        ("//h,,g", "is no host"),
        ("//me@h", "USER:PASSWORD@"),
        ("//h//a", "no path"),
        ("//h/a/..", "no path"),
        ("//h?tsl=1", "no option 'tsl'"),
        ("//h?tls=yes", "1 or 0"),
        ("//h?cert=a", "needs its key"),
        ("//h?acl=ops", "no part of acl="),
        ("//h?acl=operator=ops:secret", "no part of acl="),
        (f"//h?acl=reader=me:{HASH}", "names no operator"),
    ],
)
def test_what_cannot_be_understood_is_told(place: str, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told) as caught:
        open_store(f"zk:{place}", "default")
    assert caught.value.reason == "bad_setting"
    with pytest.raises((InvalidArgument, ValueError), match=told):
        ZookeeperStore(place)


def test_paths_of_certificates_are_relative_to_who_names_them() -> None:
    assert (
        normal_registry("zk://h/c?ca=ca.pem&cert=/my/c&key=k%20y&tls=1", "/etc/fan")
        == "zk://h/c?ca=/etc/fan/ca.pem&cert=/my/c&key=/etc/fan/k%20y&tls=1"
    )
    url = f"zk://me:p%40ss@h?acl=operator=a:{HASH}"
    assert normal_registry(url, "/etc/fan") == url


def test_the_driver_is_loaded_by_the_first_store_and_not_before() -> None:
    code = (
        "import sys\n"
        "import fan.plugins\n"
        "fan.plugins.listing()\n"
        "fan.settings_values.normal_registry('zk://h')\n"
        "assert 'kazoo' not in sys.modules\n"
        "fan.plugins.open_store('zk://h', 'default').close()\n"
        "assert 'kazoo' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
