"""`fan call`: one call, and its result on stdout; or many."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from fancli.call_options import How, call_options, check, with_bare_wait
from fancli.complete import complete_target
from fancli.exits import Exit
from fancli.options import Common, common, reading
from fancli.params import Usage, parse_name
from fancli.request import Asking, PayloadCommand, request_options

if TYPE_CHECKING:
    from fan import App, Choice, Client, FanError, MethodInfo
    from fancli.calling import Caller
    from fancli.payload import Payload
    from fancli.recording import Tape
    from fancli.request_file import RequestFile
    from fancli.show import Show


class CallCommand(PayloadCommand):
    """`--wait-ready` may do without a value, which the next word is not."""

    def without_shon(self, args: list[str]) -> list[str]:
        return with_bare_wait(args)


@click.command(
    "call",
    cls=CallCommand,
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
        "fan call greeter.hello --each -c 8 < names.ndjson",
        "fan call greeter.hello name=Ada --against @1 @2",
        "fan call greeter.hello name=Ada --wait-ready=30s --retry 3",
        "fan call -f get.fan -A name=Bob",
        "fan call greeter.hello name=Ada --as curl",
    ),
)
@click.argument("target", required=False, default="", shell_complete=complete_target)
@request_options
@call_options
@common
@reading
def call(common: Common, *, dry_run: bool, **given: Any) -> int:
    """Call SERVICE.METHOD[@VERSION] and print its result.

    The payload is ITEMs (name=text, n:=JSON, tags[]=, addr[city]=, note=@FILE, =positional), one
    JSON document, -d, or SHON. `fan help payload` has it all, `fan help files` what -f reads.
    """
    how = How(**{name: given.pop(name) for name in How.__struct_fields__})
    check(how, is_dry=dry_run, is_json=common.env.is_json)
    file = _file(common, how)
    asking = _asking(common, how, file, given)
    from fancli.calling import Caller
    from fancli.show import Show

    show = Show(common, how)
    with _tape(how) as tape, asking.opened(live=how.each or how.repeats) as (app, client):
        if how.wait_ready:
            from fancli.ready import wait_ready

            client = wait_ready(app, asking, client, how.wait_ready)
        method = asking.describe(app)
        payload = _payload(asking, how, method, checked=dry_run)
        if dry_run:
            common.out.object(asking.echo("call", payload, asking.choice(app, client)))
            return Exit.OK
        caller = Caller(asking, client, method, tape=tape)
        if file is not None:
            caller.expect = file.expect
        return _run(app, caller, how, show, payload)


def _file(common: Common, how: How) -> RequestFile | None:
    """The request file; its timeout is that of the command where there is none."""
    if not how.file:
        return None
    from fancli.request_file import read_request

    file = read_request(how.file, how.arguments, common.env)
    if file.timeout is not None:
        common.fall_back(file.timeout)
    return file


def _asking(common: Common, how: How, file: RequestFile | None, given: dict[str, Any]) -> Asking:
    """The request, from the command line first and the file second."""
    target, items = given.pop("target"), given.pop("items")
    if file is not None:
        if _is_item(target):
            target, items = "", (target, *items)
        target = target or file.target
    if not target:
        raise Usage("a TARGET is needed", "fan call SERVICE.METHOD; fan call --help")
    if how.health:
        service, want = parse_name("TARGET", target)
        target = f"{service}.health{want and '@'}{want}"
    if how.against and "@" in target:
        raise Usage(f"--against names the versions, and TARGET {target!r} one more")
    wants = how.against or ()
    if not all(want.removeprefix("@").strip() for want in wants):
        raise Usage(f"--against {' '.join(wants)}: no version behind the @", "--against @1 @2")
    if given["key"] == "auto" and (how.each or how.repeats):
        given["key"] = ""  # each call's own id is its key, over all of its attempts
    if items and "." not in target and items[0].isidentifier():
        raise Usage(f"TARGET {target!r}: {items[0]!r} stands apart", f"{target}.{items[0]}")
    asking = Asking(common, target=target, items=items, **given)
    if asking.has_payload and (how.each or how.health):
        other = "--each" if how.each else "--health"
        raise Usage(f"{other} and a payload: {other} has its own, or none")
    asking.options |= {
        "retry_delay": how.retry_delay,
        "retries_all": how.retries_all,
        "breaker": not how.no_breaker,
    }
    if file is not None:
        _merge(asking, file)
    return asking


def _is_item(text: str) -> bool:
    """Whether what stands where a target may is one of the items."""
    return text[:1] in ("{", "[") or "=" in text.partition("@")[0]


def _merge(asking: Asking, file: RequestFile) -> None:
    """What the file says and the command line does not."""
    for name, pairs in (("headers", file.headers), ("baggage", file.baggage)):
        asking.options[name] = {**pairs, **asking.options[name]}
    if file.payload is None:
        return
    own, theirs = asking.payload, file.payload
    if not asking.has_payload:
        asking.payload = theirs
    elif not (own.raw or own.args or theirs.args):  # by name, both of them
        own.kwargs = {**theirs.kwargs, **own.kwargs}


def _tape(how: How) -> AbstractContextManager[Tape | None]:
    """What --record keeps."""
    if not how.record:
        return nullcontext()
    from fancli.recording import Tape

    return Tape(how.record)


def _payload(asking: Asking, how: How, method: MethodInfo | None, *, checked: bool) -> Payload:
    """The payload as values; that of --edit is the user's."""
    payload = asking.arguments(method, checked=checked and not how.wants_editor and not how.each)
    if not how.wants_editor:
        return payload
    from fancli.edit_payload import edited

    return edited(asking, method, payload)


def _run(app: App, caller: Caller, how: How, show: Show, payload: Payload) -> int:
    """What the options make of it."""
    asking, client = caller.asking, caller.client
    if how.language:
        from fancli.transcribe import transcribed

        is_stream = caller.is_stream
        text = transcribed(asking, client, payload, how.language, is_stream=is_stream)
        asking.common.out.text(text)
        return Exit.OK
    if how.explain or set(how.parts) & set("HBr"):
        choice = asking.choice(app, client)
        show.before(asking, payload, choice)
        caller.client = _pinned(client, choice)
    asking.talk_route(app, client, payload)
    if how.each:
        from fancli.many import each

        return each(caller, how, show)
    if how.repeats:
        from fancli.many import repeat

        return repeat(caller, how, show, payload)
    if how.fanout:
        from fancli.several import fanout

        return fanout(app, caller, payload, how, show)
    if how.against:
        from fancli.several import against

        return against(caller, payload, how.against)
    return _one(caller, how, show, payload)


def _pinned(client: Client, choice: Choice | None) -> Client:
    """A client that calls what was chosen, and nothing else."""
    if choice is None or choice.instance is None:
        return client
    where = {"instance": choice.instance.id, "want": choice.version, "transport": choice.transport}
    return client.using(**where)


def _one(caller: Caller, how: How, show: Show, payload: Payload) -> int:
    """One call, and its result."""
    from fancli.calling import print_stream, report

    body = payload.encode()
    answer = None if caller.is_stream else caller.plain(*body)
    if answer is None:
        return print_stream(caller, show, *body)
    if answer.error is not None:
        show.failed()
        raise answer.error
    if answer.result is None or "error" in answer.found:
        return report(caller, answer)
    if how.health and answer.result.value != "ok":
        raise _unwell(answer.result.value)
    show.result(caller.asking, answer.result)
    return Exit.OK


def _unwell(value: Any) -> FanError:
    from fan import Unknown
    from fancli.render import to_json

    said = value if isinstance(value, str) else to_json(value).decode()
    return Unknown(f"not well: {said}", reason="unhealthy", executed="yes", details=value)
