"""`fan call --fanout` and `--against`: the same call of several instances, or of two versions, and
how their replies differ."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from fancli.answers import broken_promise
from fancli.batch import run_all
from fancli.calling import Answer, Caller
from fancli.compare import comparable, has_answered, label_of, unified
from fancli.exits import Exit
from fancli.many import print_bare
from fancli.paths import differences

if TYPE_CHECKING:
    from fan import App, Client, Instance
    from fancli.call_options import How
    from fancli.output import Output
    from fancli.payload import Payload
    from fancli.show import Show

#: Calls of a fan-out at once.
AT_ONCE = 32


def fanout(app: App, caller: Caller, payload: Payload, how: How, show: Show) -> Exit:
    """Call every instance that takes calls, or every address of -p; an object for each answer, or
    with -r and --get what is asked for of it."""
    out, asking, wants_diff = caller.asking.common.out, caller.asking, how.diff
    is_bare = bool(how.is_raw or how.path) and not asking.env.is_json
    clients = _clients(app, caller)
    body = payload.encode()
    answers: list[Answer] = []

    def emit(place: int, answer: Answer) -> None:
        answers.append(answer)
        found = answer.found
        if not answer.is_ok:  # who failed is known here alone
            found = answer.found = {**found, "instance": clients[place][0]}
        if is_bare and not wants_diff:
            print_bare(asking.common, show, answer, f"{clients[place][0]}: ")
        elif asking.env.is_json or not wants_diff:
            out.write(msgspec.json.encode(found) + b"\n")

    jobs = [partial(caller.answer, *body, client) for _, client in clients]
    status = run_all(jobs, emit, workers=min(AT_ONCE, len(jobs)))
    if not wants_diff:
        return status
    names = [name for name, _ in clients]
    return _differ(out, asking.target.name, names, answers, status)


def _clients(app: App, caller: Caller) -> list[tuple[str, Client]]:
    """A client for each, with its name. Raises Unavailable (no_instance) where there is none."""
    asking, client = caller.asking, caller.client
    if asking.local:
        return [("local", client)]
    if asking.options["peers"]:
        from fancli.mask import mask_url

        return [(mask_url(url), client.using(peers=(url,))) for url in asking.options["peers"]]
    found = _instances(app, caller)
    # The instance says which version it is: what was asked for found it.
    return [(each.id, client.using(instance=each.id, want="")) for each in found]


def _instances(app: App, caller: Caller) -> list[Instance]:
    import time

    from fan import Unavailable
    from fan import versions as ordered

    target, client = caller.asking.target, caller.client
    timeout = caller.asking.common.timeout or app.settings.timeout
    info = app.discovery.service(target.service, time.monotonic() + timeout)
    if target.want:
        versions = {client.resolve(target.service, target.method).version}
    else:
        versions = {instance.version for instance in info.instances}
    wanted = caller.asking.options["instance"]
    live = {each.id for version in versions for each in info.live(version)}
    found = [each for each in info.instances if each.id in live and wanted in ("", each.id)]
    if not found:
        raise Unavailable(f"{target.service} has no live instance", reason="no_instance")
    order = ordered.newest_last(versions)
    return sorted(found, key=lambda each: (order.index(each.version), each.id))


def _differ(
    out: Output, target: str, names: list[str], answers: list[Answer], status: Exit
) -> Exit:
    """Compare what the instances answered, print it, and say with which status to exit."""
    groups: dict[bytes, list[int]] = {}
    values = [comparable(answer.found) for answer in answers]
    for place, value in enumerate(values):
        groups.setdefault(msgspec.json.encode(value, order="sorted"), []).append(place)
    largest = max(groups.values(), key=len)
    base = largest[0]
    others = [group[0] for group in groups.values() if group is not largest]
    if out.env.is_json:
        told = [
            {
                "instances": [names[place] for place in group],
                "versions": sorted({str(answers[place].found.get("version")) for place in group}),
                **values[group[0]],
            }
            for group in groups.values()
        ]
        same = {"v": 1, "ok": not others and status == Exit.OK, "kind": "diff", "target": target}
        out.line({**same, "same": not others, "groups": told})
    elif not others:
        out.note(f"* {len(answers)} of {len(answers)} answer the same")
        _print_common(out, target, answers[base])
    else:
        labels = [label_of(a.found, name) for a, name in zip(answers, names, strict=True)]
        for place in others:
            out.text(unified(values[base], values[place], labels[base], labels[place]))
    return Exit.PARTIAL if others else status


def against(caller: Caller, payload: Payload, wants: tuple[str, str]) -> Exit:
    """Call two versions and compare their replies."""
    asking, body = caller.asking, payload.encode()
    out, target = asking.common.out, asking.target.name
    asked = [want.removeprefix("@") for want in wants]
    answers = [caller.answer(*body, caller.client.using(want=want), want) for want in asked]
    for answer in answers:
        if answer.error is not None and not has_answered(answer.error):
            raise answer.error  # there is nothing to compare
    left, values = answers[0], [comparable(answer.found) for answer in answers]
    found = list(differences(values[0], values[1]))
    if not found:
        if left.error is not None:
            raise left.error
        if out.env.is_json:
            out.line({"v": 1, "ok": True, "target": target, "same": True,
                      "replies": [a.found for a in answers], "diff": []})  # fmt: skip
        else:
            _print_common(out, target, left)
        return Exit.OK
    names = [
        label_of(answer.found, f"@{want.removeprefix('@')}")
        for answer, want in zip(answers, wants, strict=True)
    ]
    if out.env.is_json:
        message = f"{names[0]} and {names[1]} answer differently"
        diff = [each.as_json("left", "right") for each in found]
        out.line(
            broken_promise(target, "replies_differ", message, {"diff": diff}, same=False,
                           replies=[a.found for a in answers], diff=diff)
        )  # fmt: skip
    else:
        out.text(unified(values[0], values[1], names[0], names[1]))
    return Exit.PARTIAL


def _print_common(out: Output, target: str, answer: Answer) -> None:
    if answer.error is None:
        out.json(msgspec.json.encode(answer.found["result"]))
    else:
        from fancli.render import clean, plain_error

        out.warn(clean(plain_error(answer.error, target)), is_error=True)
