"""What versions of this kit before 0.19 have registered: nodes below `/endpoints`, read only.

An instance is a node `/endpoints/a/b/1.0.0/config_0000000001`, of the service `a.b`, that holds its
parameters as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from fan.stores.zookeeper_channel import Channel
from fan.stores.zookeeper_url import parse

ROOT = "/endpoints"
_PREFIX = "config_"
_VERSION = re.compile(r"\d+(\.\d+)*")


class LegacyNode(msgspec.Struct, frozen=True):
    """One instance as it stands there."""

    path: str
    service: str
    version: str
    data: bytes


def read_legacy(place: str, deadline: float) -> list[LegacyNode]:
    """All of it, by path. `place` is what follows `zk:` in a URL. Raises what a store raises."""
    ensemble = parse(place)
    channel = Channel(ensemble, 4.0)
    try:
        paths = sorted(_below(channel, ensemble.chroot + ROOT, deadline))
        nodes = channel.get(paths, deadline)
        return [
            LegacyNode(path, *_named(path, ensemble.chroot), node.data)
            for path, node in zip(paths, nodes, strict=True)
            if node is not None  # gone meanwhile: they are ephemeral
        ]
    finally:
        channel.close()


def _below(channel: Channel, root: str, deadline: float) -> Iterator[str]:
    """The paths of all instances, level by level."""
    folders = [root]
    while folders:
        deeper = []
        found = channel.children(folders, deadline)
        for folder, names in zip(folders, found, strict=True):
            for name in names or ():
                path = f"{folder}/{name}"
                if not name.startswith(_PREFIX):
                    deeper.append(path)
                elif _VERSION.fullmatch(folder.rpartition("/")[2]):
                    yield path
        folders = deeper


def _named(path: str, chroot: str) -> tuple[str, str]:
    *parts, version, _ = path.removeprefix(f"{chroot}{ROOT}/").split("/")
    return ".".join(parts), version
