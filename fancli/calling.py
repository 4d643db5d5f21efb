"""One call of `fan call`, from a payload to what it came to: sent, waited for, held against what is
expected, and recorded."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec

from fancli.answers import as_value, broken_promise, document_of, end_of, envelope, failure_of

if TYPE_CHECKING:
    from fan import Client, FanError, MethodInfo, Result
    from fancli.recording import Tape
    from fancli.request import Asking
    from fancli.show import Show


class Answer(msgspec.Struct):
    """What one call came to: `found` is its object, with the error where it failed."""

    found: dict[str, Any]
    result: Result | None = None
    error: FanError | None = None

    @property
    def is_ok(self) -> bool:
        """Whether it went as it was to go."""
        return bool(self.found["ok"])


class Caller:
    """Makes the calls of one run, with one client."""

    def __init__(
        self,
        asking: Asking,
        client: Client,
        method: MethodInfo | None,
        *,
        expect: Any = msgspec.UNSET,
        tape: Tape | None = None,
    ) -> None:
        self.asking = asking
        self.client = client
        self.expect = expect
        self.tape = tape
        self.is_stream = method is not None and method.is_stream
        self._shows_all = asking.env.show_secrets
        # Without a registry only the callee knows that a method is a stream.
        self._may_turn_out = bool(asking.options["peers"] or asking.local)

    def answer(
        self, content_type: str, body: bytes, client: Client | None = None, want: str | None = None
    ) -> Answer:
        """Make the call, with another client or version where they are given. A stream is read to
        its end: its items are the result."""
        target = self.asking.target
        try:
            answer = answer_of(
                client or self.client, target.service, target.method, content_type, body,
                is_stream=self.is_stream, shows_all=self._shows_all,
                may_turn_out=self._may_turn_out,
            )  # fmt: skip
        except _fan_error() as exc:
            answer = self._failed(exc)
        finally:
            self.talk()
        return self._noted(content_type, body, answer, want)

    def plain(self, content_type: str, body: bytes) -> Answer | None:
        """Make the call; None where it turns out to be of a stream: nothing of it has run."""
        target = self.asking.target
        try:
            answer = answer_of(
                self.client, target.service, target.method, content_type, body,
                is_stream=False, shows_all=self._shows_all,
            )  # fmt: skip
        except _fan_error() as exc:
            if exc.reason == "streaming_unsupported" and self._may_turn_out:
                return None
            answer = self._failed(exc)
        finally:
            self.talk()
        return self._noted(content_type, body, answer)

    def _failed(self, exc: FanError) -> Answer:
        found = failure_of(self.asking.common.out, self.asking.target.name, exc)
        return Answer(found, error=exc)

    def _noted(
        self, content_type: str, body: bytes, answer: Answer, want: str | None = None
    ) -> Answer:
        if self.tape is not None:
            self.tape.keep(self.asking, content_type, body, answer.found, want)
        return answer if self.expect is msgspec.UNSET else self.held(answer)

    def chunks(self, client: Client, content_type: str, body: bytes) -> Any:
        """The chunks of a stream, to be closed."""
        target = self.asking.target
        return client.open_stream(target.service, target.method, content_type, body)

    def held(self, answer: Answer) -> Answer:
        """The answer, held against what is expected of it."""
        from fancli import expect

        error, wants_failure = answer.error, expect.wants_failure(self.expect)
        if error is not None and error.executed != "yes" and not wants_failure:
            return answer  # nobody has answered: its own error says more
        value = as_value(answer.found)
        unmet = expect.unmet(self.expect, value)
        if not unmet:
            return Answer({**answer.found, "ok": True}, answer.result)
        told = "; ".join(expect.told(each) for each in unmet)
        if error is not None:
            told += f" ({error.code}: {value['error']['message']})"
        details = {"differences": [each.as_json("expected", "actual") for each in unmet]}
        more = {"result": value["result"]} if "result" in value else {}
        found = broken_promise(
            self.asking.target.name, "unexpected", f"not as expected: {told}", details, **more
        )
        return Answer(found, answer.result)

    def talk(self) -> None:
        """-vvv: what was on the wire."""
        tap = self.asking.tap
        if tap is not None:
            for line in tap.take(self._shows_all):
                self.asking.common.out.talk(line)


def answer_of(
    client: Client,
    service: str,
    method: str,
    content_type: str,
    body: bytes,
    *,
    is_stream: bool,
    shows_all: bool = False,
    may_turn_out: bool = False,
) -> Answer:
    """One call, and what it came to. `may_turn_out`: only the callee knows whether the method is a
    stream. Raises FanError."""
    target = f"{service}.{method}"
    if not is_stream:
        try:
            result = client.request(service, method, content_type, body)
        except _fan_error() as exc:
            if exc.reason != "streaming_unsupported" or not may_turn_out:
                raise
        else:
            document = document_of(result.response)
            return Answer(envelope(target, result, document, shows_all=shows_all), result)
    items = []
    with closing(client.open_stream(service, method, content_type, body)) as chunks:  # type: ignore[type-var]
        for last in chunks:
            if last.kind == "chunk":
                items.append(msgspec.Raw(document_of(last)))
    return Answer({**end_of(target, last, len(items)), "result": items})


def print_stream(caller: Caller, show: Show, content_type: str, body: bytes) -> int:
    """Print the items of a stream as they come, and return the exit status."""
    from fancli.exits import Exit, exit_of

    asking, count, items = caller.asking, 0, []
    keeps = caller.tape is not None or caller.expect is not msgspec.UNSET
    out, target = asking.common.out, asking.target.name
    try:
        with closing(caller.chunks(caller.client, content_type, body)) as chunks:
            for response in chunks:
                caller.talk()
                if response.kind == "chunk":
                    show.item(response, count)
                    if keeps:
                        items.append(msgspec.Raw(document_of(response)))
                    count += 1
                last = response
    except _fan_error() as exc:
        show.failed()
        found = failure_of(out, target, exc)
        if caller.tape is not None:
            caller.tape.keep(asking, content_type, body, found)
        if caller.expect is not msgspec.UNSET:
            answer = caller.held(Answer({**found, "result": items}, error=exc))
            if answer.error is None:
                return report(caller, answer)
        if not asking.env.is_json:
            raise
        out.line({**found, "kind": "end", "items": count})
        return exit_of(exc.code, exc.reason, exc.executed)
    answer = Answer({**end_of(target, last, count), "result": items} if keeps else {"ok": True})
    if caller.tape is not None:
        caller.tape.keep(asking, content_type, body, answer.found)
    if caller.expect is not msgspec.UNSET:
        answer = caller.held(answer)
        if not answer.is_ok:
            return report(caller, answer)
    show.end(asking, last, count)
    return Exit.OK


def report(caller: Caller, answer: Answer) -> int:
    """Say that an answer is none of those that were wanted, or a failure that was."""
    from fancli.exits import Exit
    from fancli.render import clean

    out = caller.asking.common.out
    if caller.asking.env.is_json:
        out.object(answer.found)
    elif not answer.is_ok:
        said = f"{answer.found['target']}: {answer.found['error']['message']}"
        out.warn(clean(said), is_error=True)
    else:
        error = answer.found["error"]
        out.note(clean(f"* as expected: {error['code']}: {error['message']}"))
    return Exit.OK if answer.is_ok else Exit.PARTIAL


def _fan_error() -> type[FanError]:
    from fan import FanError

    return FanError
