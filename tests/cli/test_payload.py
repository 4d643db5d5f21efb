"""What a user types as a payload, and what it comes to."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fan.errors import InvalidArgument
from fan.model import MethodInfo, Param
from fancli.coerce import check, coerce
from fancli.env import Environment
from fancli.params import Usage
from fancli.payload import lift_shon, parse_shon, read_payload

ENV = Environment()


def parsed(*items: str, data: tuple[str, ...] = (), method: MethodInfo | None = None) -> Any:
    rest, shon = lift_shon(list(items))
    content_type, body = coerce(read_payload(rest, data, shon, ENV), method).encode()
    value = msgspec.json.decode(body)
    return value if content_type == "application/json" else (value["args"], value["kwargs"])


FORMS = [
    ('{"a":1,"o":{"x":true}}',),
    ("a:=1", "o[x]:=true"),
    ("a:=1", 'o:={"x":true}'),
    ("[", "--a", "1", "--o", "[", "--x", "-t", "]", "]"),
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_payload_is_the_same_payload(form: tuple[str, ...]) -> None:
    assert parsed(*form) == {"a": 1, "o": {"x": True}}


def test_data_is_sent_as_it_was_given() -> None:
    assert parsed(data=('{"n": 12345678901234567890123}',)) == {"n": 12345678901234567890123}


@pytest.mark.parametrize(
    ("items", "value"),
    [
        ((), {}),
        (("name=Bob",), {"name": "Bob"}),
        (("name=",), {"name": ""}),
        (("url=http://x/?a=b:=c",), {"url": "http://x/?a=b:=c"}),
        (("a==b",), {"a": "=b"}),
        ((r"a\=b=c",), {"a=b": "c"}),
        (("a:b=c",), {"a:b": "c"}),
        (("n:=3", "x:=null"), {"n": 3, "x": None}),
        (("tags[]=a", "tags[]=b"), {"tags": ["a", "b"]}),
        (("m[0][k]=a", "m[0][l]=b"), {"m": [{"k": "a", "l": "b"}]}),
        (("addr[city]=X", "addr[zip]:=1"), {"addr": {"city": "X", "zip": 1}}),
        (("=x", ":=1"), ["x", 1]),
        (("=x", "a=1"), (["x"], {"a": "1"})),
        (("[1,2]",), [1, 2]),
    ],
)
def test_items(items: tuple[str, ...], value: Any) -> None:
    assert parsed(*items) == value


def test_items_take_text_and_json_from_files(private: Path) -> None:
    (private / "note").write_text("hi\n")
    (private / "cfg").write_text('{"a": [1]}')
    found = parsed(f"note=@{private}/note", f"cfg:=@{private}/cfg")
    assert found == {"note": "hi\n", "cfg": {"a": [1]}}


def test_stdin_is_a_payload_when_asked_for() -> None:
    env = Environment(stdin=io.TextIOWrapper(io.BytesIO(b'{"a":1}')))
    assert read_payload((), ("-",), None, env).kwargs == {"a": 1}


@pytest.mark.parametrize(
    ("items", "data", "message"),
    [
        (("Ada",), (), "is no item"),
        (("a:=oops",), (), "column"),
        (('{"a":1,}',), (), "line 1, column 8"),
        ((), ('{"a":1,\n "b":}',), "line 2, column 6"),
        ((), ("5",), "not a bare value"),
        ((), ("",), "empty"),
        ((), ("@/does/not/exist",), "cannot read"),
        ((), ("-",), "stdin is closed"),
        (("a=1",), ("{}",), "two payloads"),
        (("a=1", "{}"), (), "two payloads"),
        (("{}", "{}"), (), "two payloads"),
        ((), ("{}", "{}"), "two payloads"),
        (("a=1", "[", "x", "]"), (), "two payloads"),
        (("[", "--a"), (), "without its ]"),
        (("a=1", "a=2"), (), "twice"),
        (("a=1", "a[b]=2"), (), "something else"),
        (("a[3]=1",), (), "index 3"),
        (("[x=1",), (), "malformed"),
        (("x]=1",), (), "is no key"),
    ],
)
def test_what_does_not_parse_is_a_usage_error(
    items: tuple[str, ...], data: tuple[str, ...], message: str
) -> None:
    with pytest.raises(Usage, match=message):
        parsed(*items, data=data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[ ]", []),
        ("[--]", {}),
        ("[ 1 -2.5 1e3 ]", [1, -2.5, 1000.0]),
        ("[ beep boop ]", ["beep", "boop"]),
        ("[ --a -t --b -f --c -n ]", {"a": True, "b": False, "c": None}),
        ("[ -- -t -- 10 ]", ["-t", "10"]),
        ("[ --a [] --b [--] --c [ [ x ] ] ]", {"a": [], "b": {}, "c": [["x"]]}),
    ],
)
def test_shon(text: str, value: Any) -> None:
    assert parse_shon(text.split()) == value


PLACE = {
    "type": "object", "required": ["city"],
    "properties": {"city": {"type": "string"}, "zip": {"type": ["integer", "null"]}},
}  # fmt: skip
ANYTHING = MethodInfo(
    "send",
    params=(
        Param("to", {"$ref": "#/$defs/Place"}),
        Param("by", {"anyOf": [{"type": "string"}, {"type": "null"}]}, required=False),
        Param("kind", {"enum": ["a", "b"]}, required=False),
        Param("all", {"type": "array", "items": {"type": "number"}}, required=False),
        Param("price", {"type": "string", "format": "decimal"}, required=False),
        Param("free", {}, required=False),
    ),
    definitions={"Place": PLACE},
)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ('{"to":{"city":"X","zip":null},"by":null,"kind":"a","all":[1,2.5],"price":1}', ""),
        ('{"to":{"city":"X"},"free":{"a":[null,true]},"price":"1.50"}', ""),
        ('{"to":{}}', "to[city] is missing"),
        ('{"to":{"city":"X","zip":"1"}}', 'to[zip]: "1" is not an integer or null'),
        ('{"to":{"city":"X"},"by":1}', "by: 1 is not text or null"),
        ('{"to":{"city":"X"},"kind":"c"}', 'kind: "c" is not one of a, b'),
        ('{"to":{"city":"X"},"all":[1,true]}', "all[1]: true is not a number"),
        ('[{"city":"X"},"me","a",{}]', "all: {} is not an array"),
        ('["X"]', 'to: "X" is not an object'),
    ],
)
def test_a_document_is_checked_against_the_schemas(document: str, problem: str) -> None:
    payload = read_payload((), (document,), None, ENV)
    found = ""
    try:
        check(payload, ANYTHING)
    except InvalidArgument as exc:
        found = exc.message
    assert found == problem


def test_shon_leaves_options_around_it_alone() -> None:
    args = ["x.y", "-v", "[", "--v", "1", "]", "--json"]
    assert lift_shon(args) == (["x.y", "-v", "--json"], ["[", "--v", "1", "]"])


def method(**schemas: Any) -> MethodInfo:
    params = tuple(Param(name=name, schema=schema) for name, schema in schemas.items())
    shared = {"Color": {"enum": ["red", "green"]}}
    return MethodInfo(name="m", params=params, definitions=shared)


TYPED = method(
    i={"type": "integer"},
    f={"type": "number"},
    b={"type": "boolean"},
    s={"type": "string"},
    o={"anyOf": [{"type": "integer"}, {"type": "null"}]},
    u={"anyOf": [{"type": "integer"}, {"type": "string"}]},
    c={"$ref": "#/$defs/Color"},
    l={"type": "array", "items": {"type": "integer"}},
    d={"type": "object", "properties": {"n": {"type": "integer"}}},
    y={"type": "string", "contentEncoding": "base64"},
    any={},
)


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("i=-5", -5),
        ("f=1.5", 1.5),
        ("f=2", 2),
        ("b=true", True),
        ("b=no", False),
        ("s=5", "5"),
        ("o=3", 3),
        ("o=null", None),
        ("u=5", "5"),
        ("c=red", "red"),
        ("l[]=4", [4]),
        ("l=[1,2]", [1, 2]),
        ("d[n]=7", {"n": 7}),
        ("y=hi", "aGk="),
        ("any=5", "5"),
        ("unknown=5", "5"),
        ("i:=5", 5),
    ],
)
def test_text_becomes_what_the_schema_says(item: str, value: Any) -> None:
    assert next(iter(parsed(item, method=TYPED).values())) == value


def test_positional_text_is_coerced_by_its_place() -> None:
    assert parsed("=1", "=2", method=TYPED) == [1, 2.0]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("i=x", "^i: 'x' is not an integer"),
        ("i=1.5", "^i: '1.5' is not an integer"),
        ("f=x", "^f: 'x' is not a number"),
        ("b=maybe", "^b: 'maybe' is not true or false"),
        ("o=x", "^o: 'x' is not an integer or null"),
        ("c=gren", "^c: 'gren' is not one of red, green; did you mean green?"),
        ("l[]=x", r"^l\[0\]: 'x' is not an integer"),
        ("d[n]=x", r"^d\[n\]: 'x' is not an integer"),
    ],
)
def test_a_value_that_does_not_fit_names_the_parameter(item: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        parsed(item, method=TYPED)
    assert caught.value.reason == "bad_signature"
    assert caught.value.executed == "no"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (("nme=x",), "no such parameter: nme; did you mean name"),
        ((), "missing: name"),
        (("=a", "=b"), "takes 1 positional"),
    ],
)
def test_a_dry_run_refuses_what_the_callee_would(items: tuple[str, ...], message: str) -> None:
    named = method(name={"type": "string"})
    with pytest.raises(InvalidArgument, match=message):
        check(read_payload(items, (), None, ENV), named)
