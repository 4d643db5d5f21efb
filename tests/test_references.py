"""Credentials by reference: in whole values and in URLs, resolved when used and never before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fan.errors import InvalidArgument
from fan.references import anchored, has_reference, is_reference, resolve_reference
from fan.settings import Settings, load_settings


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("env:TOKEN", "a b"),
        ("redis://:env:TOKEN@host/0", "redis://:a%20b@host/0"),
        ("amqp://shop:env:TOKEN@mq:5672/vhost", "amqp://shop:a%20b@mq:5672/vhost"),
        ("amqp://shop:FILE@mq/", "amqp://shop:p%40ss%2Fword@mq/"),
        ("FILE", "p@ss/word"),
        ("redis://env:6379/0", "redis://env:6379/0"),
        ("amqp://env:TOKEN@host/", "amqp://env:TOKEN@host/"),
        ("zk://me:plain@host/fan", "zk://me:plain@host/fan"),
        ("sqlite:/env:TOKEN", "sqlite:/env:TOKEN"),
        ("", ""),
    ],
)
def test_a_reference_becomes_what_it_stands_for(private: Path, text: str, value: str) -> None:
    (private / "secret").write_text("p@ss/word\n")
    text = text.replace("FILE", f"file:{private}/secret")
    assert resolve_reference(text, {"TOKEN": "a b"}) == value
    assert has_reference(text) is (text != value)


def test_only_a_whole_value_is_a_reference_as_a_whole() -> None:
    assert is_reference("env:TOKEN")
    assert is_reference("file:a b")
    assert not is_reference("redis://:env:TOKEN@host")
    assert not is_reference("env:NOT A NAME")


@pytest.mark.parametrize("text", ["env:GONE", "file:/nowhere", "amqp://a:env:GONE@b/"])
def test_one_that_leads_nowhere_is_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"env:GONE: the variable GONE is not set|/nowhere"):
        resolve_reference(text, {})


def test_paths_are_relative_to_the_file_that_names_them() -> None:
    assert anchored("file:secrets/pw", "/etc/fan") == "file:/etc/fan/secrets/pw"
    url = "amqp://shop:file:pw@mq/"
    assert anchored(url, "/etc/fan") == "amqp://shop:file:/etc/fan/pw@mq/"


def load(private: Path, text: str, name: str = "fan.toml") -> Settings:
    (private / name).write_text(text)
    env = {"HOME": str(private)}
    return load_settings(env=env, cwd=private, system_file=f"{private}/no.toml").settings


def test_a_project_file_may_hold_references(private: Path) -> None:
    settings = load(private, "amqp_url = 'amqp://shop:env:RABBIT@mq/'\nredis_url = 'file:url'")
    assert settings.amqp_url == "amqp://shop:env:RABBIT@mq/"
    assert settings.redis_url == f"file:{private}/url"


def test_settings_keep_the_reference_and_who_connects_gets_the_secret(
    private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "amqp_url = 'amqp://shop:env:RABBIT@mq/'\nredis_url = 'env:NOT_SET'"
    settings = load(private, text)
    for_transports: Any = settings.resolving()
    monkeypatch.setenv("RABBIT", "hunter2")
    assert for_transports.amqp_url == "amqp://shop:hunter2@mq/"
    assert for_transports.max_body == settings.max_body
    assert "hunter2" not in repr(settings)
    with pytest.raises(InvalidArgument, match="NOT_SET"):
        _ = for_transports.redis_url  # only what is used has to be there


def test_settings_without_references_are_used_as_they_are() -> None:
    settings = Settings()
    assert settings.resolving() is settings


@pytest.mark.parametrize("who", ["env:ZK", "me:env:ZK@h1,h2/fan", "me:file:/run/zk@h1/fan?tls=1"])
def test_a_registry_may_be_a_reference_or_have_one(
    private: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    url = who if who == "env:ZK" else f"zk://{who}"
    settings = load(private, f"registry = '{url}'")
    assert settings.registry == url
    if "file:" not in who:
        monkeypatch.setenv("ZK", "zk://me:pw@h1")
        assert "pw" in settings.registry_url
