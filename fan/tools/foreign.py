"""Services that know nothing of fan, described in a YAML file, so that they can be registered::

    services:
      - name: billing
        version: 1.2.0
        addr: http://%{LOCAL_IP}:8080
        methods:
          - {name: ping, url: /ping/}
          - {name: charge, url: "/customers/{id}/charge", method: POST, idempotent: true}

A file may also be one service. `%{NAME}` is a variable of the environment, `%{NAME:-x}` has a
default, and LOCAL_IP is the address of this host unless it is set. Anchors work as everywhere in
YAML; top-level keys that begin with `x-` are only a place for them.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from fan.errors import InvalidArgument
from fan.model import HttpForm, Interface, MethodInfo, Param

_VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_VARIABLE = re.compile(r"%\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class Foreign(msgspec.Struct, frozen=True):
    """One service as it is to be registered. Raises InvalidArgument (bad_file) for an address with
    a user or a password: whoever reads the registry would see it."""

    interface: Interface
    urls: tuple[str, ...]
    id: str = ""
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}

    def __post_init__(self) -> None:
        for url in self.urls:
            scheme, _, place = url.partition("://")
            if "@" in (authority := re.split("[/?#]", place, maxsplit=1)[0]):
                raise _bad(
                    f"the address {scheme}://{authority.rpartition('@')[2]} is registered without"
                    " user and password"
                )

    @classmethod
    def plain(cls, name: str, version: str, urls: tuple[str, ...], id: str = "") -> Foreign:
        """One of which nothing else is known: its methods are those that are registered already, or
        what it answers to as a service of fan does. Raises InvalidArgument (bad_file)."""
        return cls(interface_at(name, version), urls, id)


class _Method(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    url: str
    method: str = "GET"
    content_type: str = "application/json"
    doc: str = ""
    #: Name -> JSON Schema, of arguments that are not in the url.
    params: dict[str, dict[str, Any]] = {}
    query: tuple[str, ...] = ()
    body: str = ""
    idempotent: bool | None = None
    timeout: float | None = None


class _Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    version: str
    addr: str | list[str]
    methods: list[_Method] = []
    doc: str = ""
    id: str = ""
    tags: list[str] = []
    meta: dict[str, str] = {}


def read_services(text: str, variables: Mapping[str, str]) -> list[Foreign]:
    """The services of a file. Raises InvalidArgument (bad_file) with what is wrong, and where."""
    try:
        found = yaml.safe_load(_expanded(text, variables))
    except yaml.YAMLError as exc:
        raise _bad(" ".join(str(exc).split())) from exc
    if isinstance(found, dict):
        found = {key: value for key, value in found.items() if not str(key).startswith("x-")}
        found = found["services"] if found.keys() == {"services"} else [found]
    try:
        services = msgspec.convert(found, list[_Service])
    except msgspec.ValidationError as exc:
        raise _bad(str(exc)) from exc
    return [_foreign(service) for service in services]


def interface_at(
    name: str, version: str, methods: tuple[MethodInfo, ...] = (), doc: str = ""
) -> Interface:
    """The interface of a foreign service. Raises InvalidArgument for a name or a version that is
    none."""
    import hashlib

    from packaging.version import InvalidVersion, Version

    from fan.service import Service, service_name

    try:
        Version(version)
        service_name(type("Foreign", (Service,), {"name": name}))
    except InvalidVersion:
        raise _bad(f"{name}: {version!r} is no version (PEP 440, as 1.2.3)") from None
    except ValueError as exc:
        raise _bad(str(exc)) from exc
    ordered = tuple(sorted(methods, key=lambda method: method.name))
    bare = Interface(service=name, version=version, doc=doc, methods=ordered)
    digest = hashlib.blake2b(msgspec.json.encode(bare), digest_size=8).hexdigest()
    return msgspec.structs.replace(bare, hash=digest)


def method_at(
    name: str, form: HttpForm, params: Mapping[str, Param] | None = None, **more: Any
) -> MethodInfo:
    """A method of a foreign service: what is in its path are parameters, too."""
    known = dict(params or {})
    in_path = {n: known.pop(n, Param(n)) for n in re.findall(r"\{([^{}]+)\}", form.path)}
    named = (*in_path.values(), *known.values())
    # By name alone: an HTTP request has no first and second argument.
    ordered = tuple(msgspec.structs.replace(p, kind="keyword_only") for p in named)
    more.setdefault("is_idempotent", form.verb in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))
    return MethodInfo(name=name, params=ordered, http=form, **more)


def _foreign(service: _Service) -> Foreign:
    methods = tuple(_method(service.name, each) for each in service.methods)
    return Foreign(
        interface_at(service.name, service.version, methods, service.doc),
        tuple([service.addr] if isinstance(service.addr, str) else service.addr),
        service.id,
        tuple(service.tags),
        service.meta,
    )


def _method(service: str, given: _Method) -> MethodInfo:
    verb = given.method.upper()
    if verb not in _VERBS:
        raise _bad(f"{service}.{given.name}: {given.method!r} is no method of HTTP")
    path = given.url if given.url.startswith("/") else f"/{given.url}"
    form = HttpForm(verb, path, given.content_type, given.query, given.body)
    params = {n: Param(n, schema, required="default" not in schema, default=schema.get("default"))
              for n, schema in given.params.items()}  # fmt: skip
    if not given.params and verb not in ("GET", "HEAD", "DELETE", "OPTIONS"):
        params["rest"] = Param("rest", kind="var_keyword", required=False)
    more: dict[str, Any] = {"doc": given.doc, "timeout": given.timeout}
    if given.idempotent is not None:
        more["is_idempotent"] = given.idempotent
    return method_at(given.name, form, params, **more)


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name in variables:
            return variables[name]
        if name == "LOCAL_IP":
            return local_ip()
        if default is None:
            raise _bad(f"%{{{name}}} is not set in the environment")
        return default

    return _VARIABLE.sub(value, text)


def local_ip() -> str:
    """The address that this host sends from; loopback where it has no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # nothing is sent: the kernel names the interface
            return str(sock.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _bad(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="bad_file")
