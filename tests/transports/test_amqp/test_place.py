"""URLs of brokers, and what of them others may see."""

from __future__ import annotations

import pytest

from fan.errors import InvalidArgument
from fan.transports.amqp_place import place_of


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://localhost", "amqp://localhost:5672/"),
        ("amqp://localhost/", "amqp://localhost:5672/"),
        ("amqp://localhost/%2F", "amqp://localhost:5672/"),
        ("amqp://ada:secret@mq.example:1234/shop", "amqp://mq.example:1234/shop"),
        ("amqps://mq.example/a%2Fb?heartbeat=5", "amqps://mq.example:5671/a%2Fb"),
        ("amqp://[::1]:5672/", "amqp://[::1]:5672/"),
    ],
)
def test_an_address_names_broker_and_virtual_host_and_nothing_private(
    url: str, address: str
) -> None:
    assert place_of(url).address.url == address
    assert place_of(address).address.url == address


def test_user_and_password_are_decoded_and_never_shown() -> None:
    place = place_of("amqp://a%40b:s%2Fcret@mq/v")
    assert (place.user, place.password, place.vhost) == ("a@b", "s/cret", "v")
    assert "cret" not in repr(place)


def test_without_a_user_it_is_the_guest_of_the_broker() -> None:
    place = place_of("amqp://mq/")
    assert (place.user, place.password, place.has_login) == ("guest", "guest", False)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost/",
        "http://guest:secret@localhost:5672/",
        "amqp:localhost",
        "amqp:///vhost",
        "amqp://mq:port/",
        "amqp://ada:secret@mq/a/b",
        "amqp://ada:secret@mq/?heartbeat=often",
        "amqp://ada:secret@mq/?unknown=1",
        "amqp://ada:secret@mq/#x",
    ],
)
def test_what_is_no_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidArgument) as info:
        place_of(url)
    assert info.value.reason == "bad_address"
    assert "secret" not in info.value.message
