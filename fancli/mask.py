"""Secrets in echoes of a request: what is shown back to the user never holds them by default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "****"

_SECRET_NAME = re.compile(r"authorization|cookie|token|secret|password", re.IGNORECASE)
#: `user:password@` or `token@` of a URL, up to the last @ before the path.
_USER_INFO = re.compile(r"(?<=//)[^/?#\s]*@")
#: The same of a broker, whose password may hold anything: up to the last @ there is.
_BROKER_INFO = re.compile(r"\b((?:amqps?|rediss?)://)\S*@")
_URL_QUERY = re.compile(
    r"([?&][^=&#\s]*(?:token|secret|password)[^=&#\s]*=)[^&#\s]*", re.IGNORECASE
)


def is_secret(name: str) -> bool:
    """Whether a header, field or variable of that name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def shown_setting(name: str, value: Any, shows_all: bool) -> Any:
    """The value of a setting for showing. A reference to a credential (`env:NAME`) holds none."""
    if shows_all or not isinstance(value, str):
        return value
    return MASK if is_secret(name) and value else mask_url(value)


def mask_pairs(pairs: Mapping[str, str]) -> dict[str, str]:
    """Headers or baggage for showing."""
    return {name: MASK if is_secret(name) else mask_url(text) for name, text in pairs.items()}


def mask_url(text: str) -> str:
    """A URL, or a text that may hold some, without user-info and secret parameters."""
    text = _BROKER_INFO.sub(rf"\1{MASK}@", text)
    return _URL_QUERY.sub(rf"\1{MASK}", _USER_INFO.sub(f"{MASK}@", text))


def mask_value(value: Any) -> Any:
    """A JSON value for showing: members of a secret's name are masked, however deep they are."""
    if isinstance(value, dict):
        return {
            key: MASK if isinstance(key, str) and is_secret(key) else mask_value(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [mask_value(item) for item in value]
    return value
