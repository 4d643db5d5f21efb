"""Targets, durations, headers and URLs as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fancli.env import Environment
from fancli.group import hoist
from fancli.mask import mask_pairs, mask_url, mask_value
from fancli.params import (
    Usage,
    check_peers,
    check_registry,
    check_transport,
    parse_baggage,
    parse_duration,
    parse_headers,
    parse_target,
)
from fancli.render import clean, to_json, to_yaml


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("greeter.hello", ("greeter", "hello", "")),
        ("a.b.c", ("a.b", "c", "")),
        ("a.b.hello@2", ("a.b", "hello", "2")),
        ("greeter::hello@~=2.1", ("greeter", "hello", "~=2.1")),
        ("greeter/hello", ("greeter", "hello", "")),
        ("greeter.__init__", ("greeter", "__init__", "")),
    ],
)
def test_targets(text: str, target: tuple[str, str, str]) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text", ["", "greeter", ".", "a.", ".b", "a..b", "a b.c", "a.b c", "a.b@", f"{'a' * 300}.b"]
)
def test_what_is_no_target_is_a_usage_error(text: str) -> None:
    with pytest.raises(Usage):
        parse_target(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("5s", 5), ("2m", 120), ("1h", 3600), (".5", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "-1", "5x", "1d", "nan", "1e400"])
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(Usage, match="not a duration"):
        parse_duration(text)


def test_headers_have_lower_case_names() -> None:
    assert parse_headers(["X-Team: a:b", "y:"], Environment()) == {"x-team": "a:b", "y": ""}


@pytest.mark.parametrize("text", ["novalue", ": x", "a b: c", "a: b\nc: d"])
def test_what_is_no_header_is_a_usage_error(text: str) -> None:
    with pytest.raises(Usage, match="-H"):
        parse_headers([text], Environment())


def test_baggage() -> None:
    assert parse_baggage(["user=7", "x=a=b"]) == {"user": "7", "x": "a=b"}
    with pytest.raises(Usage, match="-B"):
        parse_baggage(["user"])


def test_peers_have_a_known_scheme_and_a_place() -> None:
    peers = ("http://127.0.0.1:1", "unix:///run/x.sock")
    assert check_peers(peers) == peers
    for bad in ("carrier://pigeon", "127.0.0.1", "http://", "htp://x"):
        with pytest.raises(Usage):
            check_peers([bad])


def test_an_address_takes_its_password_by_reference(private: Path) -> None:
    (private / "secret").write_text("s3/cret\n")
    given = ["redis://me:env:PASSWORD@h/0", f"amqp://me:file:{private}/secret@h/", "env:WHOLE"]
    vars = {"PASSWORD": "p@ss", "WHOLE": "http://127.0.0.1:1"}
    assert check_peers(given, vars=vars) == (
        "redis://me:p%40ss@h/0", "amqp://me:s3%2Fcret@h/", "http://127.0.0.1:1",
    )  # fmt: skip
    with pytest.raises(Usage, match="-p env:WHOLE: the variable WHOLE is not set"):
        check_peers(given[2:], vars={})
    with pytest.raises(Usage, match="unknown scheme"):  # of a list: it is somebody else's text
        check_peers(given[2:])


def test_an_http_address_with_a_password_is_refused_and_masked() -> None:
    for peer in ("http://me:hunter2@h:1", "https://hunter2@h:1/x"):
        with pytest.raises(Usage, match="holds no user and no password") as caught:
            check_peers([peer])
        assert "****@h:1" in caught.value.message
        assert "hunter2" not in caught.value.message
        assert "Authorization" in caught.value.hint


def test_transports_and_registries_are_known_ones() -> None:
    assert check_transport("-t", "auto") == ""
    assert check_transport("-t", "ipc") == "ipc"
    for url in ("memory:", "env:REGISTRY", "file:/run/secrets/registry"):
        assert check_registry(url) == url
    with pytest.raises(Usage):
        check_transport("-t", "htp")
    with pytest.raises(Usage):
        check_registry("etcd://x")
    with pytest.raises(Usage, match=r"zoo://\*\*\*\*@h: unknown scheme"):
        check_registry("zoo://me:hunter2@h")


def test_common_options_may_stand_before_the_command() -> None:
    args = ["--json", "-n", "x", "--timeout=1", "call", "a.b"]
    assert hoist(args) == ["call", "--json", "-n", "x", "--timeout=1", "a.b"]
    assert hoist(["-qvv", "-nblue", "list"]) == ["list", "-qvv", "-nblue"]
    assert hoist(["-vn", "blue", "list"]) == ["list", "-vn", "blue"]
    assert hoist(["-vx", "list"]) == ["-vx", "list"]
    assert hoist(["-", "list"]) == ["-", "list"]
    assert hoist(["--help"]) == ["--help"]
    assert hoist(["--", "call"]) == ["--", "call"]


def test_secrets_are_masked_wherever_they_are() -> None:
    pairs = {"authorization": "Bearer x", "x-api-token": "t", "set-cookie": "c", "team": "blue"}
    masked = mask_pairs(pairs)
    assert masked == {**dict.fromkeys(pairs, "****"), "team": "blue"}
    assert mask_url("at http://me:pw@host/a?token=x&b=1") == "at http://****@host/a?token=****&b=1"
    assert mask_value({"a": [{"Password": "x"}], "n": 1}) == {"a": [{"Password": "****"}], "n": 1}


def test_bytes_and_infinities_have_a_json_form() -> None:
    assert to_json({"b": b"hi", "n": float("nan")}) == b'{"b":{"$base64":"aGk="},"n":null}'


def test_yaml_quotes_what_it_would_take_for_something_else() -> None:
    text = to_yaml([{"a": "x", "b": "1.0", "c": "no", "d": [], "e": {"f": ["y: z"]}}])
    assert text == '- a: x\n  b: "1.0"\n  c: "no"\n  d: []\n  e:\n    f:\n      - "y: z"'


def test_text_of_others_cannot_drive_the_terminal() -> None:
    assert clean("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
