"""How `fan call` shows the result of one call: the body, a part of it, or what --print names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from fancli.answers import document_of, end_of, envelope, item_of
from fancli.call_options import How
from fancli.options import Common
from fancli.params import Usage

if TYPE_CHECKING:
    from fan import Choice, Response, Result
    from fancli.payload import Payload
    from fancli.request import Asking


class Show:
    """What goes to stdout, or to the file of -o."""

    def __init__(self, common: Common, how: How) -> None:
        self._common = common
        self._out = common.out
        self._env = common.env
        self._how = how
        self._parts = how.parts or "b"
        self._has_begun = False
        self._has_section = False
        self._why: tuple[str, ...] = ()
        #: What --print shows of the request: a failure leaves stdout empty, so it has to wait.
        self._waiting: list[list[str] | bytes] = []
        self._path: tuple[str | int, ...] = ()
        if how.path:
            from fancli.paths import parse_path

            self._path = parse_path(how.path)
        if how.output and (problem := _problem_of(how.output)):
            # Better said before it is sent.
            raise Usage(f"-o {how.output}: cannot be written: {problem}")

    def before(self, asking: Asking, payload: Payload, choice: Choice | None) -> None:
        """What of --print and --explain is known before it is sent."""
        from fancli.mask import mask_url

        why = choice.why if choice is not None else ("hosted in this process",)
        if not self._env.show_secrets:
            why = tuple(map(mask_url, why))
        self._why = why
        if self._how.explain:
            for line in why:
                self._out.talk(f"* {line}")
        if not set(self._parts) & set("HBr"):
            return
        request = asking.echo("call", payload, choice)
        if "H" in self._parts:
            sent = request["request"]
            baggage = [f"baggage: {name}={value}" for name, value in sent["baggage"].items()]
            want = f"@{sent['want']}" if sent["want"] else ""
            head = f"call {asking.target.name}{want} timeout={sent['timeout_ms']}ms"
            self._waiting.append([head, *_lines(sent["headers"]), *baggage])
        if "B" in self._parts:
            from fancli.render import to_json

            self._waiting.append(to_json(request["request"]["body"]))
        if "r" in self._parts:
            address = request["address"]
            self._waiting.append([*why, *([f"address {address}"] if address else [])])

    def failed(self) -> None:
        """There is no result: what waits for it is talk."""
        from fancli.render import clean

        waiting, self._waiting = self._waiting, []
        for part in waiting:
            for line in [part.decode()] if isinstance(part, bytes) else part:
                self._out.talk(f"> {clean(line)}")

    def _begin(self) -> None:
        """There is a result: what waits for it goes first."""
        waiting, self._waiting = self._waiting, []
        for part in waiting:
            if isinstance(part, bytes):
                self._begin_section()
                self._out.json(part)
            else:
                self._section(part)

    def result(self, asking: Asking, result: Result) -> None:
        """The one result of a call. Raises Internal (malformed_reply), NotFound (no_such_path)."""
        value = result.value
        document = document_of(result.response)
        if self._common.verbose == 2:
            self._out.talk(f"< {document.decode()}")
        value, document = self._part(value, document)
        self._begin()
        if "h" in self._parts:
            served = f"{result.version or 'version unknown'} {result.instance}".rstrip()
            self._section([f"ok {served}", *_lines(self._masked(result.response.headers))])
        if self._env.is_json:
            shows_all = self._env.show_secrets
            found = envelope(asking.target.name, result, document, shows_all=shows_all)
            if self._how.explain:
                found["why"] = self._why
            self._print(msgspec.json.encode({**found, **self._out.marks}))
        elif "b" in self._parts:
            self._begin_section()
            self._body(value, document)
        self._meta_of(result)

    def _part(self, value: Any, document: bytes) -> tuple[Any, bytes]:
        """The part that --get names."""
        if not self._path:
            return value, document
        from fancli.paths import Missing, part_of
        from fancli.render import to_json

        try:
            value = part_of(value, self._path)
        except Missing:
            from fan import NotFound

            raise NotFound(
                f"the result has no {self._how.path}", reason="no_such_path", executed="yes"
            ) from None
        return value, to_json(value)

    def bare(self, answer: dict[str, Any]) -> bytes:
        """The result in the object of an answer, as a line of its own. Raises NotFound."""
        document = msgspec.json.encode(answer["result"])
        value = msgspec.json.decode(document)
        value, document = self._part(value, document)
        if self._how.is_raw and isinstance(value, str):
            return f"{value}\n".encode()
        return document + b"\n"

    def _body(self, value: Any, document: bytes) -> None:
        if self._how.is_raw and isinstance(value, (str, bytes)):
            self._write(value if isinstance(value, bytes) else f"{value}\n".encode())
        elif self._how.output and isinstance(value, bytes):
            self._write(value)
        else:
            self._print(document)

    def item(self, response: Response, seq: int) -> None:
        """One item of a stream, in a line."""
        from fan import decode_result

        value = decode_result(response)
        value, document = self._part(value, document_of(response))
        if seq == 0 and self._how.parts:
            self._begin()
            if "b" in self._parts:
                self._begin_section()
        if self._env.is_json:
            self._write(msgspec.json.encode(item_of(document, seq)) + b"\n")
        elif "b" not in self._parts:
            return
        elif self._how.is_raw and isinstance(value, (str, bytes)):
            self._write(value if isinstance(value, bytes) else f"{value}\n".encode())
        else:
            self._write(document + b"\n")

    def end(self, asking: Asking, last: Response, count: int) -> None:
        """The end of a stream; on stdout only JSON says it."""
        self._begin()
        told = f"* {_served_by(last.version, last.instance)}, items={count}"
        if "m" in self._parts:
            self._section([told[2:]])
        if self._how.wants_meta or self._common.verbose:
            self._out.talk(told)
        if self._env.is_json:
            self._write(msgspec.json.encode(end_of(asking.target.name, last, count)) + b"\n")

    def _meta_of(self, result: Result) -> None:
        wants_talk = self._how.wants_meta or self._common.verbose
        if not wants_talk and "m" not in self._parts:
            return
        timing = " ".join(f"{name}={ms:.3f}ms" for name, ms in result.timing_ms.items())
        told = (
            f"{_served_by(result.version, result.instance)}"
            f" over {result.transport}, attempts={result.attempts} trace={result.trace_id} {timing}"
        )
        if "m" in self._parts:
            self._section([told])
        if wants_talk:
            self._out.talk(f"* {told}")

    # --- --print ---

    def _begin_section(self) -> None:
        if self._has_section:
            self._out.text("")
        self._has_section = True

    def _section(self, lines: Iterable[str]) -> None:
        from fancli.render import clean

        self._begin_section()
        self._out.text("\n".join(map(clean, lines)))

    def _masked(self, headers: dict[str, str]) -> dict[str, str]:
        from fancli.mask import mask_pairs

        return headers if self._env.show_secrets else mask_pairs(headers)

    # --- stdout or a file ---

    def _print(self, document: bytes) -> None:
        if self._how.output:
            self._write(document + b"\n")
        else:
            self._out.json(document)

    def _write(self, data: bytes) -> None:
        path = self._how.output
        if not path:
            self._out.write(data)
            return
        from fancli.output import StdoutFailed

        try:
            with open(path, "ab" if self._has_begun else "wb") as file:
                file.write(data)
        except OSError as exc:
            raise StdoutFailed(exc.strerror or str(exc), path) from exc
        self._has_begun = True


def _lines(headers: dict[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


def _served_by(version: str, instance: str) -> str:
    return f"{version or 'version unknown'} {instance or 'instance unknown'}"


def _problem_of(path: str) -> str:
    """Why a file cannot be put there, or nothing."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        return "it is a folder"
    if not os.path.isdir(folder):
        return "there is no such folder"
    return "" if os.access(folder, os.W_OK) else "its folder takes no new file"
