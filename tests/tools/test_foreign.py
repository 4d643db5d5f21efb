"""HTTP services that know nothing of fan: described in YAML or OpenAPI, registered, and called."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import fan
from fan.errors import InvalidArgument, NotFound, Unimplemented
from fan.stores.memory import MemoryStore
from fan.tools.foreign import local_ip, read_services
from fan.tools.openapi import read_openapi

SERVICES = """
x-json: &json {content_type: application/json}
services:
  - name: web.shop
    version: "1.2.0"
    addr: http://%{HOST}:%{PORT:-80}
    doc: Sells.
    methods:
      - {name: ping, url: /ping/}
      - {name: item, url: "/items/{id}", params: {size: {type: integer}}}
      - {<<: *json, name: charge, url: "/customers/{id}/charge", method: post}
      - {name: form, url: form, method: POST, content_type: application/x-www-form-urlencoded}
      - {name: missing, url: /missing/}
"""

OPENAPI = {
    "openapi": "3.0.3",
    "info": {"title": "Pets", "version": "2.1.0"},
    "servers": [{"url": "http://127.0.0.1:1"}],
    "paths": {
        "/pets/{id}": {
            "parameters": [{"$ref": "#/components/parameters/id"}],
            "get": {
                "operationId": "getPet",
                "summary": "One pet.",
                "parameters": [{"name": "full", "in": "query", "schema": {"type": "boolean"}}],
                "responses": {"200": {"content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/Pet"}}}}},
            },
            "put": {"requestBody": {"required": True, "content": {"application/json": {
                "schema": {"$ref": "#/components/schemas/Pet"}}}}},
        },
        "/tags": {"post": {"operationId": "tags", "requestBody": {"required": True, "content": {
            "application/json": {"schema": {"type": "array"}}}}}},
    },
    "components": {
        "parameters": {"id": {"name": "id", "in": "path", "schema": {"type": "integer"}}},
        "schemas": {
            "Pet": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string"}, "tag": {"$ref": "#/components/schemas/Tag"}}},
            "Tag": {"type": "string"},
            "Other": {"type": "string"},
        },
    },
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """Tells what it was asked."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        parts = urlsplit(self.path)
        told: Any = {
            "verb": self.command,
            "path": parts.path,
            "query": parse_qs(parts.query),
            "body": self.rfile.read(length).decode(),
            "type": self.headers.get("content-type"),
            "fan": [name for name in self.headers if name.lower().startswith("fan-")],
            "trace": self.headers.get("traceparent"),
        }
        body = b"pong" if parts.path == "/ping/" else json.dumps(told).encode()
        self.send_response(404 if parts.path == "/missing/" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer  # noqa: N815  the names are the library's

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def app(private: Any) -> Iterator[fan.App]:
    settings = fan.Settings(registry="memory:", runtime_dir=str(private))
    with MemoryStore("foreign") as store, fan.App(settings=settings, store=store) as made:
        yield made


@pytest.fixture
def shop(app: fan.App, port: int) -> fan.App:
    (found,) = read_services(SERVICES, {"HOST": "127.0.0.1", "PORT": str(port)})
    app.operations.register(found.interface, found.urls)
    return app


def test_a_file_has_variables_anchors_and_methods() -> None:
    (found,) = read_services(SERVICES, {"HOST": "h"})
    assert found.urls == ("http://h:80",)
    assert found.interface.service == "web.shop"
    charge = found.interface.method("charge")
    assert charge is not None
    assert charge.http == fan.HttpForm("POST", "/customers/{id}/charge")
    assert [p.name for p in charge.params] == ["id", "rest"]
    assert not charge.is_idempotent
    ping = found.interface.method("ping")
    assert ping is not None
    assert ping.is_idempotent


def test_the_address_of_this_host_is_a_variable() -> None:
    (found,) = read_services("{name: a, version: '1', addr: 'http://%{LOCAL_IP}:1'}", {})
    assert found.urls == (f"http://{local_ip()}:1",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{name: a", "flow mapping"),
        ("[1]", "object"),
        ("{name: a, version: '1'}", "addr"),
        ("{name: a, version: 1.0, addr: 'http://h'}", "version"),
        ("{name: a, version: x, addr: 'http://h'}", "no version"),
        ("{name: a b, version: '1', addr: 'http://h'}", "no service name"),
        ("{name: a, version: '1', addr: 'http://%{NOBODY}'}", "NOBODY"),
        ("{name: a, version: '1', addr: 'http://u:pw@h:1'}", "//h:1 is registered without user"),
        ("{name: a, version: '1', addr: x, methods: [{name: m, url: /, method: EAT}]}", "EAT"),
        ("{name: a, version: '1', addr: x, methods: [{name: m, url: /, verb: GET}]}", "verb"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why) as caught:
        read_services(text, {})
    assert caught.value.reason == "bad_file"


def test_a_described_method_is_called_in_its_own_form(shop: fan.App) -> None:
    assert shop.call("web.shop.ping") == "pong"
    item = shop.call("web.shop.item", id="a/b ü", size=3)
    assert (item["verb"], item["path"]) == ("GET", "/items/a%2Fb%20%C3%BC")
    assert item["query"] == {"size": ["3"]}
    assert item["fan"] == []
    assert item["trace"]
    charge = shop.call("web.shop.charge", id=7, amount=1.5, note=None)
    assert (charge["verb"], charge["path"]) == ("POST", "/customers/7/charge")
    assert json.loads(charge["body"]) == {"amount": 1.5, "note": None}
    form = shop.call("web.shop.form", a="x y", b=[1, 2])
    assert (form["path"], form["body"]) == ("/form", "a=x+y&b=1&b=2")


def test_a_foreign_status_and_a_missing_argument_are_errors(shop: fan.App) -> None:
    with pytest.raises(NotFound):
        shop.call("web.shop.missing")
    with pytest.raises(InvalidArgument, match="id") as caught:
        shop.call("web.shop.item", size=3)
    assert caught.value.executed == "no"
    with pytest.raises(InvalidArgument, match="names"):
        shop.call("web.shop.item", 7)


def test_an_unknown_method_of_a_foreign_service_is_sent_nowhere(shop: fan.App) -> None:
    for method in ("pong", "health"):
        with pytest.raises(Unimplemented) as caught:
            shop.call(f"web.shop.{method}")
        assert caught.value.reason == "unknown_method"


def test_an_openapi_document_is_an_interface(app: fan.App, port: int) -> None:
    found = read_openapi(json.dumps(OPENAPI), "pets", urls=(f"http://127.0.0.1:{port}",))
    assert (found.interface.version, found.interface.doc) == ("2.1.0", "Pets")
    assert [m.name for m in found.interface.methods] == ["getPet", "put_pets_id", "tags"]
    get, put, _ = found.interface.methods
    assert [(p.name, p.required) for p in get.params] == [("id", True), ("full", False)]
    assert get.returns == {"$ref": "#/$defs/Pet"}
    assert sorted(get.definitions) == ["Pet", "Tag"]
    assert [p.name for p in put.params] == ["id", "name", "tag"]
    app.operations.register(found.interface, found.urls)
    told = app.call("pets.getPet", id=7, full=True)
    assert (told["path"], told["query"]) == ("/pets/7", {"full": ["true"]})
    told = app.call("pets.put_pets_id", id=7, name="Rex")
    assert (told["verb"], told["body"]) == ("PUT", '{"name":"Rex"}')
    assert app.call("pets.tags", body=["a"])["body"] == '["a"]'


def test_an_address_of_the_document_is_taken_where_none_is_given() -> None:
    assert read_openapi(json.dumps(OPENAPI), "pets").urls == ("http://127.0.0.1:1",)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"swagger":"2.0"}', '{"openapi":"3.0.0","paths":{"/x":{"get":7}}}',
             '{"openapi":"3.0.0","paths":{"/x":{"get":{"parameters":[{"$ref":"#/nowhere"}]}}}}'],
)  # fmt: skip
def test_a_document_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_openapi(text, "pets", "1.0.0")
    assert caught.value.reason == "bad_file"
