"""What `fan mock` is told, as a service that answers so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from fancli.params import Usage, check_name, json_error, read_bytes

if TYPE_CHECKING:
    from fan import App, Interface, MethodInfo, Recorded, Service, ServiceInfo, Trouble
    from fancli.env import Environment

#: The version of a stand-in for a service that nobody has registered.
VERSION = "1.0.0"


class Place(msgspec.Struct, frozen=True):
    """Whose place it takes: a service, one of its methods or all, and a version."""

    service: str
    method: str
    version: str
    #: What is registered of that version; None where nothing is.
    interface: Interface | None


def find_place(app: App, text: str, timeout: float, *, is_method: bool) -> Place:
    """The place that `SERVICE[.METHOD][@VERSION]` names: a known service's, else that of one that
    is not there yet, whose method stands behind the last dot where `is_method`. Raises Usage, and
    FanError of a registry that cannot be read."""
    name, at, want = text.partition("@")
    name = check_name("TARGET", name.replace("::", ".").replace("/", "."))
    if at and not want.strip():
        raise Usage(f"TARGET {text!r}: no version behind the @", "greeter.hello@2.0.0")
    known = {info.name: info for info in app.discovery.services(time.monotonic() + timeout)}
    service, _, method = name.rpartition(".")
    if name in known or not (service in known or is_method):
        service, method = name, ""
    if not service:
        raise Usage(f"TARGET {text!r}: a service and a method are needed", "greeter.hello")
    version, interface = _version(known.get(service), want.strip())
    return Place(service, method, version, interface)


def _version(info: ServiceInfo | None, want: str) -> tuple[str, Interface | None]:
    from fan import versions

    interface = info.interface_for() if info is not None else None
    if want:
        best = versions.best(want, info.interfaces) if info is not None else None
        interface = info.interfaces[best] if info is not None and best else None
    if interface is not None:
        return interface.version, interface
    if want:
        versions.matches("0", want)  # refuses what is neither a version nor a constraint
        if want[0] in "<>=!~":
            raise Usage(f"@{want}: a version that is not there is an exact one", "@2.0.0")
    return want or VERSION, None


def read_reply(text: str, env: Environment) -> Any:
    """The value of `--reply JSON|@FILE|-`. Raises Usage."""
    is_file = text.startswith("@") or text == "-"
    data = read_bytes(text.removeprefix("@"), "--reply", env) if is_file else text.encode()
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise json_error(data, "--reply", exc) from None


def with_reply(place: Place, value: Any, trouble: Trouble) -> Service:
    """A service that answers every call with a value. Raises Unimplemented (unknown_method)."""
    from fan import mock_service

    names = [method.name for method in methods_of(place, "--reply")]
    answers = {name: lambda args, kwargs: value for name in names}
    return mock_service(
        place.service, place.version, answers, interface=place.interface, trouble=trouble
    )


def with_samples(place: Place, trouble: Trouble) -> Service:
    """A service that answers with samples of what is registered. Raises NotFound for a service that
    is not, Unimplemented (unknown_method)."""
    from fan import NotFound, mock_samples

    if place.interface is None:
        raise NotFound(
            f"nothing is registered of {place.service} {place.version}", reason="no_interface"
        )
    return mock_samples(place.interface, methods_of(place, "--from-schema"), trouble=trouble)


def with_recorded(place: Place, path: str, trouble: Trouble) -> Service:
    """A service that answers as it did when it was recorded. Raises Usage for a file that has none
    of its calls."""
    from fan import InvalidArgument, Recorded, mock_recorded

    try:
        calls = [call for call in Recorded.read(path) if _is_of(call, place)]
    except OSError as exc:
        raise Usage(f"--record {path}: {exc.strerror}") from None
    except InvalidArgument as exc:
        raise Usage(f"--record {exc}") from None
    if not calls:
        name = f"{place.service}.{place.method}".rstrip(".")
        raise Usage(f"--record {path} has no call of {name}", "fan call TARGET --record FILE")
    return mock_recorded(
        place.service, place.version, calls, interface=place.interface, trouble=trouble
    )


def _is_of(call: Recorded, place: Place) -> bool:
    return call.service == place.service and place.method in ("", call.method)


def methods_of(place: Place, option: str) -> Sequence[MethodInfo]:
    """The methods that are to be answered. Raises Usage, Unimplemented (unknown_method)."""
    from fan import MethodInfo, Param
    from fancli.catalog import method

    if place.interface is None:
        if not place.method:
            raise Usage(
                f"{option}: nothing is registered of {place.service}: name a method",
                f"fan mock {place.service}.METHOD",
            )
        # Whatever it is called with.
        params = (
            Param(name="args", kind="var_positional"), Param(name="kwargs", kind="var_keyword"),
        )  # fmt: skip
        return [MethodInfo(name=place.method, params=params)]
    if place.method:
        return [method(place.interface, place.method)]
    built_in = ("health", "info", "stats")
    return [each for each in place.interface.methods if each.name not in built_in]
