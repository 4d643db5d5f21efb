"""-P/--peer-list: addresses from a file or a URL, one a line, or as a JSON or YAML list."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fancli.mask import mask_url
from fancli.params import Usage, read_bytes

if TYPE_CHECKING:
    from fancli.options import Common

_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+|\[[0-9a-fA-F:]+\]:\d+")
#: Bytes of a list at most; what is larger is something else.
MAX_LIST = 1 << 20


def read_peers(place: str, common: Common) -> tuple[str, ...]:
    """The addresses of a list; `host:port` alone is http. Raises Usage for a list that cannot be
    had, and for one without any."""
    if re.match(r"https?://", place):
        data = _fetch(place, common)
    else:
        data = read_bytes(place.removeprefix("file://"), "-P", common.env)
    shown = mask_url(place)
    peers = tuple(_address(item, shown) for item in _items(data, place))
    if not peers:
        raise Usage(f"-P {shown}: no address in it", "one URL a line: http://HOST:PORT")
    return peers


def _fetch(url: str, common: Common) -> bytes:
    from http.client import HTTPException
    from urllib.request import urlopen

    timeout = common.timeout or common.load().settings.timeout
    try:
        with urlopen(url, timeout=timeout) as answer:
            data: bytes = answer.read(MAX_LIST + 1)
    except (OSError, HTTPException, ValueError) as exc:
        why = getattr(exc, "reason", None) or exc
        raise Usage(f"-P {mask_url(url)}: cannot be read: {why}") from None
    if len(data) > MAX_LIST:
        raise Usage(f"-P {mask_url(url)}: more than {MAX_LIST} bytes, no list of addresses")
    return data


def _items(data: bytes, place: str) -> list[Any]:
    text = data.decode("utf-8", "replace").strip()
    if text.startswith(("[", "- ")):
        from fancli.documents import read_document

        found = read_document(data, place).value
        return found if isinstance(found, list) else [found]
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _address(item: Any, place: str) -> str:
    if not isinstance(item, str):
        raise Usage(f"-P {place}: {item!r} is no address", "one URL a line: http://HOST:PORT")
    return f"http://{item}" if _HOST_AND_PORT.fullmatch(item) else item
