"""From what a user names (`greeter`, `shop.users:Users`, `greeter.py`) to service objects.

Code from the current folder is imported only here, for `fan serve`, and by the `local:` transport.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import msgspec

from fan.errors import InvalidArgument, Unknown
from fan.interface import interface_of
from fan.routes import Routes
from fan.service import Service


class Spec(msgspec.Struct, frozen=True):
    """One `MODULE[:CLASS]`. `folder` is where the module is looked for first."""

    text: str
    module: str
    name: str
    folder: str


def parse_spec(text: str, folder: str) -> Spec:
    """The parts of `MODULE[:CLASS]`; a path to a file (`src/greeter.py`) is a module in its folder.
    Raises InvalidArgument (bad_module)."""
    module, colon, name = text.partition(":")
    if module.endswith(".py"):
        path = os.path.join(folder, module)
        folder, module = os.path.dirname(path), os.path.basename(path).removesuffix(".py")
    parts = [*module.split("."), *(name.split(".") if colon else ())]
    if not all(part.isidentifier() for part in parts):
        raise _bad(f"{text!r} is no MODULE[:CLASS]: greeter, shop.users:Users or greeter.py")
    return Spec(text, module, name, os.path.abspath(folder))


def load_services(specs: Iterable[str], folder: str = "") -> list[Service]:
    """One object of each service class that the `MODULE[:CLASS]` name, in their order; without
    CLASS every service that the module defines. Modules in `folder` (the current one) are found
    without being installed.

    Raises InvalidArgument (bad_module) for what does not exist or is no service, and Unknown
    (import_failed) where the module's own code fails.
    """
    found: list[Service] = []
    for text in specs:
        spec = parse_spec(text, folder or os.getcwd())
        module = _import(spec)
        found += [_create(cls, spec) for cls in _classes(module, spec)]
    return found


def load_routes(specs: Iterable[str], folder: str = "") -> type[Routes] | None:
    """The one `Routes` class that the modules define, None where they define none. Raises as
    `load_services` does, and InvalidArgument (bad_module) where there are several."""
    found: list[type[Routes]] = []
    for text in specs:
        module = _import(parse_spec(text, folder or os.getcwd()))
        for value in vars(module).values():
            is_routes = isinstance(value, type) and issubclass(value, Routes)
            if is_routes and value.__module__ == module.__name__ and value not in found:
                found.append(value)
    if len(found) > 1:
        names = ", ".join(cls.__qualname__ for cls in found)
        raise _bad(f"one program has one way for each call, and here are several Routes: {names}")
    return found[0] if found else None


def _import(spec: Spec) -> ModuleType:
    from importlib import import_module

    if spec.folder not in sys.path:
        sys.path.insert(0, spec.folder)
    try:
        return import_module(spec.module)
    except ModuleNotFoundError as exc:
        # Only when it is the module itself that is missing, or its package; not what it imports.
        if exc.name and f"{spec.module}.".startswith(f"{exc.name}."):
            raise _bad(_no_such_module(spec)) from exc
        raise _failed(spec, exc) from exc
    except (Exception, SystemExit) as exc:
        raise _failed(spec, exc) from exc


def _no_such_module(spec: Spec) -> str:
    from difflib import get_close_matches

    near = get_close_matches(spec.module, list(_modules_in(spec.folder)), n=3, cutoff=0.5)
    hint = f": did you mean {' or '.join(near)}?" if near else ""
    return f"there is no module {spec.module!r} in {spec.folder} nor installed{hint}"


def _modules_in(folder: str) -> Iterator[str]:
    """Names that could be imported from a folder."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.endswith(".py"):
            yield entry.name.removesuffix(".py")
        elif os.path.isfile(os.path.join(entry.path, "__init__.py")):
            yield entry.name
            yield from (
                f"{entry.name}.{name}" for name in _modules_in(entry.path) if name[0] != "_"
            )


def _failed(spec: Spec, exc: BaseException) -> Unknown:
    return Unknown(
        f"{spec.text} cannot be imported: {_sentence(exc)}{_place(exc)}",
        reason="import_failed",
        executed="no",
    )


def _place(exc: BaseException) -> str:
    """` (greeter.py:12)`: the line that is at fault, without a traceback."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f" ({exc.filename}:{exc.lineno})"
    line, trace = "", exc.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith("<frozen") and name != __file__ and "importlib" not in name:
            line = f" ({name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return line


def _sentence(exc: BaseException) -> str:
    if isinstance(exc, SyntaxError):
        return f"{type(exc).__name__}: {exc.msg}"
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _classes(module: ModuleType, spec: Spec) -> list[Any]:
    """What to serve of a module: the class or object that is named, or all that it defines."""
    own = _defined_in(module)
    if not spec.name:
        if own:
            return own
        where = getattr(module, "__file__", None) or "built in"
        raise _bad(f"{spec.text} has no service: {where} defines no subclass of fan.Service")
    target: Any = module
    for part in spec.name.split("."):
        target = getattr(target, part, None)
    if _is_service(target) or isinstance(target, Service):
        return [target]
    names = ", ".join(cls.__name__ for cls in own)
    there = f": there is {names}" if names else ""
    what = "is no subclass of fan.Service" if target is not None else "does not exist"
    raise _bad(f"{spec.text}: {spec.name} {what}{there}")


def _defined_in(module: ModuleType) -> list[type[Service]]:
    """The services that a module defines, or else those that it imports, in order. A class without
    a name is a base for others."""
    every = [c for c in dict.fromkeys(v for v in vars(module).values() if _is_service(v)) if c.name]
    return [c for c in every if c.__module__ == module.__name__] or every


def _is_service(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Service) and value is not Service


def _create(cls: Any, spec: Spec) -> Service:
    try:
        service: Service = cls if isinstance(cls, Service) else cls()
        interface_of(service)  # whatever makes no sense is said here, before anything starts
    except ValueError as exc:
        raise _bad(f"{spec.text}: {exc}") from exc
    except Exception as exc:
        raise Unknown(
            f"{spec.text}: {_name_of(cls)} failed: {_sentence(exc)}{_place(exc)}",
            reason="import_failed",
            executed="no",
        ) from exc
    return service


def _name_of(cls: Any) -> str:
    return f"{cls.__name__}()" if isinstance(cls, type) else type(cls).__name__


def _bad(message: str) -> InvalidArgument:
    return InvalidArgument(message, reason="bad_module")
