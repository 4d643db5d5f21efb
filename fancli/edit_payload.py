"""--edit: the payload in the user's editor, beginning with what the method's schema asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from fancli.editor import discard, is_untouched, run_editor, write_draft
from fancli.params import Usage, read_text
from fancli.payload import Payload, read_payload

if TYPE_CHECKING:
    from fan import MethodInfo
    from fancli.request import Asking


def edited(asking: Asking, method: MethodInfo | None, payload: Payload) -> Payload:
    """What the user makes of a payload: the one that was given, and what its method takes besides.
    Raises Usage for what is no JSON, which stays in a file that the message names, and for a file
    that was emptied."""
    env = asking.env
    draft = msgspec.json.format(msgspec.json.encode(_draft(method, payload)), indent=2).decode()
    path = write_draft(asking.target.name, draft, ".json")
    try:
        run_editor(env, path)
        text = read_text(path, "--edit", env)
        found = read_payload((), (text,), None, env) if text.strip() else None
    except Usage as exc:
        said = exc.message.replace("-d", "--edit", 1)
        raise Usage(f"{said}; what was edited is in {path}", exc.hint) from None
    except BaseException:
        if is_untouched(path, draft):
            discard(path)
        else:
            asking.common.out.note(f"what was edited is in {path}")
        raise
    discard(path)
    asking.let_go()  # that may have taken an hour
    if found is None:
        raise Usage("--edit: the payload was emptied, and nothing was sent")
    return found


def _draft(method: MethodInfo | None, payload: Payload) -> Any:
    if method is None:
        if payload.args and payload.kwargs:
            raise Usage("--edit: arguments by name and by position, and the method is not known")
        return payload.args or payload.kwargs
    from fancli.describing import skeleton

    by_place = [param.name for param in method.params if param.kind.startswith("positional")]
    if len(payload.args) > len(by_place):
        return payload.args
    return {**skeleton(method), **dict(zip(by_place, payload.args, strict=False)), **payload.kwargs}
