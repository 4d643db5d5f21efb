"""`fan call`: one call, and its result on stdout."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fancli.exits import Exit, exit_of
from fancli.mask import mask_pairs
from fancli.options import Common, common, reading
from fancli.params import Usage
from fancli.render import times, to_json
from fancli.request import Asking, PayloadCommand, request_options

if TYPE_CHECKING:
    from fan import Client, Response, Result
    from fancli.payload import Payload

_BYTES = "application/octet-stream"


@click.command(
    "call",
    cls=PayloadCommand,
    short_help="Call a method and print its result.",
    examples=(
        "fan call greeter.hello name=Ada",
        "fan call greeter.add a=1 b:=2 -t http",
        'fan call greeter.hello@2 -d \'{"name": "Ada"}\' --json',
        "fan call greeter.echo =first tags[]=a addr[city]=Paris note=@notes.txt",
        "fan call greeter.echo [ --a 1 --o [ --x -t ] ]",
        "fan call greeter.slow s=3 --timeout 300ms",
        "fan call greeter.hello name=Ada -p http://127.0.0.1:8080",
        "fan call greeter.count n=1000000 | head -1",
    ),
)
@request_options
@click.option("-r", "--raw", is_flag=True, help="A text result without quotes, bytes as they are.")
@click.option("-o", "--output", metavar="FILE", default="", help="Write the result to a file.")
@click.option("--meta", is_flag=True, help="Version, instance and timing on stderr.")
@common
@reading
def call(
    common: Common, *, raw: bool, output: str, meta: bool, dry_run: bool, **request: Any
) -> int:
    """Call SERVICE.METHOD[@VERSION] and print its result.

    The payload is ITEMs (name=text, n:=JSON, tags[]=, addr[city]=, note=@FILE, =positional), one
    JSON document, -d, or SHON. `fan help payload` has it all.
    """
    asking = Asking(common, **request)
    show = Show(common, is_raw=raw, path=output, wants_meta=meta)
    with asking.opened() as (app, client):
        method = asking.describe(app)
        payload = asking.arguments(method, checked=dry_run)
        if dry_run:
            common.out.object(asking.echo("call", payload, asking.choice(client)))
            return Exit.OK
        asking.talk_route(client, payload)
        if method is not None and method.is_stream:
            return _stream(asking, client, payload, show)
        return _call(asking, client, payload, show)


def _call(asking: Asking, client: Client, payload: Payload, show: Show) -> int:
    from fan import Unimplemented

    target = asking.target
    try:
        result = client.request(target.service, target.method, *payload.encode())
    except Unimplemented as exc:
        # Without a registry only the callee knows that the method is a stream; it has not run.
        if exc.reason != "streaming_unsupported" or not (asking.options["peers"] or asking.local):
            raise
        return _stream(asking, client, payload, show)
    finally:
        _talk_wire(asking)
    show.result(asking, result)
    return Exit.OK


def _stream(asking: Asking, client: Client, payload: Payload, show: Show) -> int:
    from fan import FanError

    target, count = asking.target, 0
    chunks = client.open_stream(target.service, target.method, *payload.encode())
    try:
        with closing(chunks):  # type: ignore[type-var]
            for response in chunks:
                if response.kind == "chunk":
                    show.item(response, count)
                    count += 1
                _talk_wire(asking)
                last = response
    except FanError as exc:
        if not asking.env.is_json:
            raise
        exc.target = exc.target or target.name
        status = exit_of(exc.code, exc.reason, exc.executed)
        asking.common.out.line(
            {**asking.common.out.failure_of(exc, status), "kind": "end", "items": count}
        )
        return status
    show.end(asking, last, count)
    return Exit.OK


def _talk_wire(asking: Asking) -> None:
    if asking.tap is not None:
        for line in asking.tap.take(asking.env.show_secrets):
            asking.common.out.talk(line)


class Show:
    """How the result is shown."""

    def __init__(self, common: Common, *, is_raw: bool, path: str, wants_meta: bool) -> None:
        self._common = common
        self._out = common.out
        self._env = common.env
        self._is_raw = is_raw
        self._path = path
        self._wants_meta = wants_meta
        self._has_begun = False
        folder = os.path.dirname(path) or "."
        if path and (os.path.isdir(path) or not os.access(folder, os.W_OK)):
            raise Usage(f"-o {path}: cannot be written")  # better said before something is sent

    def result(self, asking: Asking, result: Result) -> None:
        """The one result of a call. Raises Internal (malformed_reply)."""
        value = result.value
        response = result.response
        document = _document(response, value)
        if self._common.verbose == 2:
            self._out.talk(f"< {document.decode()}")
        if self._env.is_json:
            document = to_json(self._envelope(asking, result, document))
            self._print(document)
        elif self._is_raw and isinstance(value, (str, bytes)):
            self._write(value if isinstance(value, bytes) else f"{value}\n".encode())
        elif self._path and isinstance(value, bytes):
            self._write(value)
        else:
            self._print(document)
        if self._wants_meta or self._common.verbose:
            self._meta(result)

    def item(self, response: Response, seq: int) -> None:
        """One item of a stream, in a line."""
        from fan import decode_result

        value = decode_result(response)
        document = _document(response, value)
        if self._env.is_json:
            item = {"v": 1, "ok": True, "kind": "item", "seq": seq, "result": msgspec.Raw(document)}
            self._write(msgspec.json.encode(item) + b"\n")
        elif self._is_raw and isinstance(value, (str, bytes)):
            self._write(value if isinstance(value, bytes) else f"{value}\n".encode())
        else:
            self._write(document + b"\n")

    def end(self, asking: Asking, last: Response, count: int) -> None:
        """The end of a stream; only JSON says it."""
        if self._env.is_json:
            end = {
                "v": 1,
                "ok": True,
                "kind": "end",
                "target": asking.target.name,
                "version": last.version or None,
                "instance": last.instance or None,
                "gen": last.gen or None,
                "items": count,
                **self._out.marks,
            }
            self._write(to_json(end) + b"\n")

    def _envelope(self, asking: Asking, result: Result, document: bytes) -> dict[str, Any]:
        headers = dict(result.response.headers)
        return {
            "v": 1,
            "ok": True,
            "target": asking.target.name,
            "version": result.version or None,
            "transport": result.transport,
            "instance": result.instance or None,
            "gen": result.gen or None,
            "result": msgspec.Raw(document),
            "headers": headers if self._env.show_secrets else mask_pairs(headers),
            "trace_id": result.trace_id,
            "attempts": result.attempts,
            "timing_ms": times(result.timing_ms),
            **self._out.marks,
        }

    def _meta(self, result: Result) -> None:
        timing = " ".join(f"{name}={ms:.3f}ms" for name, ms in result.timing_ms.items())
        self._out.talk(
            f"* {result.version or 'version unknown'} {result.instance or 'instance unknown'}"
            f" over {result.transport}, attempts={result.attempts} trace={result.trace_id} {timing}"
        )

    def _print(self, document: bytes) -> None:
        if self._path:
            self._write(document + b"\n")
        else:
            self._out.json(document)

    def _write(self, data: bytes) -> None:
        if not self._path:
            self._out.write(data)
            return
        from fancli.output import StdoutFailed

        try:
            with open(self._path, "ab" if self._has_begun else "wb") as file:
                file.write(data)
        except OSError as exc:
            raise StdoutFailed(exc.strerror or str(exc), self._path) from exc
        self._has_begun = True


def _document(response: Response, value: Any) -> bytes:
    """The result as compact JSON: what came, not what a decoder made of its numbers."""
    if response.content_type == _BYTES:
        return to_json(value)
    return msgspec.json.format(response.body, indent=-1) if response.body else b"null"
