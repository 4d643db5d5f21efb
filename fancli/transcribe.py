"""--as: a call in other words: a line for curl, a Python program, a request file."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from fancli.mask import mask_pairs, mask_url, mask_value
from fancli.payload import JSON

if TYPE_CHECKING:
    from fan import Client
    from fancli.payload import Payload
    from fancli.request import Asking

_SHEBANG = "#!/usr/bin/env -S fan call -f"


def transcribed(
    asking: Asking, client: Client, payload: Payload, language: str, *, is_stream: bool
) -> str:
    """The call in `language`: curl, python or file; secrets masked unless they are to be shown.
    Raises Unavailable where curl reaches no instance."""
    if language == "curl":
        return _curl(asking, client, payload, is_stream)
    return _python(asking, payload, is_stream) if language == "python" else _file(asking, payload)


def _curl(asking: Asking, client: Client, payload: Payload, is_stream: bool) -> str:
    from urllib.parse import quote

    target, options, shows_all = asking.target, asking.options, asking.env.show_secrets
    content_type, body = payload.encode()
    choice = client.using(transport="http").resolve(target.service, target.method)
    url = choice.address.url.rstrip("/")
    headers = {"content-type": content_type}
    if options["timeout"]:
        headers["fan-timeout-ms"] = str(round(options["timeout"] * 1000))
    named = {"fan-caller": options["caller"], "idempotency-key": options["key"],
             "fan-want": options["want"], "fan-shard": options["shard"],
             "fan-instance": options["instance"]}  # fmt: skip
    headers |= {name: value for name, value in named.items() if value}
    own = options["headers"] if shows_all else mask_pairs(options["headers"])
    baggage = options["baggage"] if shows_all else mask_pairs(options["baggage"])
    headers |= own
    if baggage:
        headers["baggage"] = ",".join(f"{k}={quote(v)}" for k, v in baggage.items())
    if is_stream:
        headers["accept"] = "application/x-ndjson"
    if not shows_all:
        body = _masked_body(payload, body)
    words = ["curl", "-sS", *(["-N"] if is_stream else [])]
    lines = [" ".join([*words, shlex.quote(
        f"{url if shows_all else mask_url(url)}/rpc/{quote(target.service)}/{quote(target.method)}"
    )])]  # fmt: skip
    lines += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items()]
    # Not -d: that would drop line ends, and read a file where the body begins with @.
    lines.append(f"--data-binary {shlex.quote(body.decode('utf-8', 'surrogateescape'))}")
    return " \\\n  ".join(lines)


def _masked_body(payload: Payload, body: bytes) -> bytes:
    import msgspec

    value = msgspec.json.decode(body)
    masked = mask_value(value)
    return body if masked == value else msgspec.json.encode(masked)


def _python(asking: Asking, payload: Payload, is_stream: bool) -> str:
    target = asking.target
    shown = _shown_options(asking)
    name = f"{target.name}@{target.want}" if target.want else target.name
    args, kwargs = payload.args, payload.kwargs
    if not asking.env.show_secrets:
        args, kwargs = mask_value(args), mask_value(kwargs)
    words = [repr(name), *map(repr, args)]
    rest = {key: value for key, value in kwargs.items() if not key.isidentifier()}
    words += [f"{key}={value!r}" for key, value in kwargs.items() if key not in rest]
    words += [f"**{rest!r}"] if rest else []
    client = "app.client"
    if shown:
        client = f"app.client.using({', '.join(f'{k}={v!r}' for k, v in shown.items())})"
    call = f"{client}.{'stream' if is_stream else 'call'}({', '.join(words)})"
    settings = asking.common.given_settings
    settings.pop("timeout", None)  # it is one of the options
    flags = f"load_settings({settings!r})" if settings else "load_settings()"
    app = f"App(settings={flags}.settings, live=False)"
    if asking.local:
        app = f"App(*load_services([{asking.local[0]!r}]), settings={flags}.settings, live=False)"
    used = ["App", *(["load_services"] if asking.local else []), "load_settings"]
    body = (
        [f"    for item in {call}:", "        print(item)"]
        if is_stream
        else [f"    print({call})"]
    )
    return "\n".join([f"from fan import {', '.join(used)}", "", f"with {app} as app:", *body])


def _shown_options(asking: Asking) -> dict[str, Any]:
    """The options that were given, secrets masked; `want` is part of the target."""
    usual = {"want": asking.options["want"], "retries_all": False, "breaker": True}
    found = {
        name: value
        for name, value in asking.options.items()
        if value not in (None, "", (), {}) and (name not in usual or value != usual[name])
    }
    if not asking.env.show_secrets:
        for name in ("headers", "baggage"):
            if name in found:
                found[name] = mask_pairs(found[name])
        if "peers" in found:
            found["peers"] = tuple(map(mask_url, found["peers"]))
    return found


def _file(asking: Asking, payload: Payload) -> str:
    import msgspec

    from fancli.render import to_yaml

    target, options, shows_all = asking.target, asking.options, asking.env.show_secrets
    content_type, body = payload.encode()
    found: dict[str, Any] = {
        "target": f"{target.name}@{target.want}" if target.want else target.name
    }
    if options["timeout"]:
        found["timeout"] = f"{options['timeout']:g}s"
    for name in ("headers", "baggage"):
        if options[name]:
            found[name] = options[name] if shows_all else mask_pairs(options[name])
    value = msgspec.json.decode(body)
    if not shows_all:
        value = mask_value(value)
    if content_type == JSON:
        found["args"] = value
    else:
        found |= {"args": value["args"], "data": value["kwargs"]}
    if not found["args"]:
        del found["args"]
    return f"{_SHEBANG}\n{to_yaml(_escaped(found))}"


def _escaped(value: Any) -> Any:
    """Texts with `${` in them, which a request file would take for something to fill."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value
