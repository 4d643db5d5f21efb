"""Calls in a file, as the library reads and writes them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fan import InvalidArgument, Recorded


def recorded(**fields: object) -> Recorded:
    given = {"v": 1, "target": "shop.orders.place", **fields}
    return msgspec.convert(given, Recorded)


def test_a_line_is_read_as_it_was_written(tmp_path: Path) -> None:
    calls = [
        recorded(want="2", headers={"a": "b"}, timeout_ms=300, reply={"ok": True, "result": 1}),
        recorded(reply={"ok": True, "kind": "end", "result": []}),
    ]
    (tmp_path / "calls").write_bytes(b"\n".join(call.encode() for call in calls))
    assert list(Recorded.read(tmp_path / "calls")) == calls


def test_it_knows_what_to_call_and_how() -> None:
    call = recorded(want="2", timeout_ms=300, baggage={"user": "7"})
    assert (call.service, call.method, call.is_stream) == ("shop.orders", "place", False)
    assert call.options == {
        "want": "2", "timeout": 0.3, "headers": {}, "baggage": {"user": "7"}, "caller": "",
        "shard": "",
    }  # fmt: skip


def test_its_arguments_are_those_of_the_call() -> None:
    both = msgspec.structs.replace(
        recorded(content_type="application/vnd.fan+json"),
        body=msgspec.Raw(b'{"args":[1],"kwargs":{"a":2}}'),
    )
    assert both.arguments == ([1], {"a": 2})
    assert recorded().arguments == ([], {})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "truncated"),
        ('{"target":"a.b"}', "v"),
        ('{"v":1,"target":"a"}', "no target"),
        ('{"v":2,"target":"a.b"}', "version 2"),
        ('{"v":1,"target":"a.b","headers":[]}', "headers"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, why: str) -> None:
    (tmp_path / "calls").write_text(f'{{"v":1,"target":"a.b"}}\n{line}\n')
    with pytest.raises(InvalidArgument) as caught:
        list(Recorded.read(tmp_path / "calls"))
    assert caught.value.reason == "bad_recording"
    assert f"{tmp_path}/calls:2: " in caught.value.message
    assert why in caught.value.message
