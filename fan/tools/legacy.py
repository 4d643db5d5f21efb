"""Services that versions of this kit before 0.19 have registered on ZooKeeper, as services to be
registered here. Those over HTTP can be called as they are; the brokers' ways of before are gone."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from fan.errors import FanError, InvalidArgument
from fan.model import HttpForm, MethodInfo
from fan.tools.foreign import Foreign, interface_at, method_at


class Found(msgspec.Struct, frozen=True):
    """One instance of before, and what it is now; or why it is nothing."""

    path: str
    foreign: Foreign | None = None
    why: str = ""


class _Method(msgspec.Struct, frozen=True):
    name: str
    url: str = "/"
    method: str = "GET"
    content_type: str = "application/json"


class _Config(msgspec.Struct, frozen=True):
    transport: str = ""
    host: str = ""
    port: int = 0
    methods: list[_Method] = []


def read_legacy(registry: str, timeout: float) -> list[Found]:
    """What is registered below `/endpoints` of the chroot of a registry `zk://...`. Raises
    InvalidArgument (bad_setting) for another registry, and what a store raises."""
    from fan.stores import zookeeper_legacy as nodes

    scheme, _, place = registry.partition(":")
    if scheme != "zk":
        raise InvalidArgument(
            f"{registry} is no ZooKeeper: zk://HOST[,HOST]/CHROOT", reason="bad_setting"
        )
    return [_found(node) for node in nodes.read_legacy(place, time.monotonic() + timeout)]


def _found(node: Any) -> Found:
    try:
        config = msgspec.json.decode(node.data, type=_Config)
        return Found(node.path, _foreign(node, config))
    except (msgspec.MsgspecError, RecursionError) as exc:
        return Found(node.path, why=f"it cannot be read: {exc}")
    except FanError as exc:
        return Found(node.path, why=exc.message)


def _foreign(node: Any, config: _Config) -> Foreign:
    if config.transport != "http" or not (config.host and config.port):
        what = f"its transport is {config.transport}" if config.transport else "it has no address"
        raise InvalidArgument(f"{what}: only http can be called from here")
    host = f"[{config.host}]" if ":" in config.host else config.host
    methods = tuple({m.name: _method(m) for m in config.methods}.values())
    # The same node is the same instance, however often it is taken over.
    id = f"{node.service}-{node.path.rpartition('_')[2]}"
    interface = interface_at(node.service, node.version, methods)
    return Foreign(interface, (f"http://{host}:{config.port}",), id)


def _method(given: _Method) -> MethodInfo:
    path = given.url if given.url.startswith("/") else f"/{given.url}"
    return method_at(given.name, HttpForm(given.method.upper(), path, given.content_type))
