"""What may be relied on: `fan.__all__`, exactly, each name documented, and imported when used."""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import fan
import fancli

PUBLIC = {
    "Aborted",
    "Address",
    "AlreadyExists",
    "App",
    "Cancelled",
    "Choice",
    "Client",
    "Config",
    "ConfigEntry",
    "ConfigEvent",
    "ConfigWatch",
    "Configs",
    "Confirm",
    "Consumer",
    "Context",
    "DataLoss",
    "DeadlineExceeded",
    "Discovery",
    "Executor",
    "FailedPrecondition",
    "FanError",
    "Generation",
    "Finding",
    "Foreign",
    "HttpForm",
    "Instance",
    "Interface",
    "Internal",
    "InvalidArgument",
    "Leftover",
    "Letter",
    "Load",
    "LoadPlan",
    "LoadReport",
    "Loaded",
    "MethodInfo",
    "Middleware",
    "NotFound",
    "Operations",
    "Options",
    "OutOfRange",
    "Override",
    "Param",
    "PermissionDenied",
    "Profile",
    "Profiles",
    "Queue",
    "QueueName",
    "Recorded", "RemoteError",
    "Request",
    "ResourceExhausted",
    "Response",
    "Result",
    "Route",
    "Routes",
    "ServerStatus",
    "Servers",
    "Service",
    "ServiceInfo",
    "Settings",
    "Trouble",
    "Status",
    "Switched",
    "Tally",
    "ShardRule",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "Versions",
    "Write",
    "Written",
    "__version__",
    "check_config",
    "current",
    "decode_result",
    "load_profiles",
    "load_routes",
    "load_services",
    "load_settings",
    "mock_recorded",
    "mock_samples",
    "mock_service",
    "new_id",
    "parse_duration",
    "parse_target",
    "plugins",
    "push",
    "read_legacy",
    "read_openapi",
    "read_services",
    "resolve_reference",
    "rpc",
    "subscribe",
    "versions",
    "wrap",
}

MODULES_TO_EXTEND = [
    "fan.transports.base",
    "fan.stores.base",
    "fan.middleware.base",
    "fan.tracers.base",
    "fan.testing.contracts",
    "fan.testing.fakes",
]


def test_the_public_names_are_exactly_these() -> None:
    assert set(fan.__all__) == PUBLIC
    assert len(fan.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(fan.__all__))
def test_a_public_name_can_be_imported_and_is_documented(name: str) -> None:
    value = getattr(fan, name)
    if isinstance(value, ModuleType) or callable(value):
        assert inspect.getdoc(value)


@pytest.mark.parametrize("name", sorted(fan.__all__))
def test_public_methods_are_documented(name: str) -> None:
    value = getattr(fan, name)
    if not inspect.isclass(value):
        return
    members = inspect.getmembers(value, lambda m: inspect.isfunction(m) or isinstance(m, property))
    ours = [cls for cls in value.__mro__ if cls.__module__.startswith("fan")]
    own = {member for cls in ours for member in vars(cls)}
    bare = [n for n, m in members if n in own and not n.startswith("_") and not inspect.getdoc(m)]
    assert bare == []


def test_dir_shows_the_public_names() -> None:
    assert set(fan.__all__) <= set(dir(fan))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        fan.no_such_name  # noqa: B018


def test_importing_fan_imports_nothing_of_it() -> None:
    code = "import fan, sys; print(*sorted(m for m in sys.modules if m.startswith('fan')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.split() == ["fan"]


@pytest.mark.parametrize("name", MODULES_TO_EXTEND)
def test_what_is_there_to_be_extended_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for member, value in vars(module).items():
        if getattr(value, "__module__", "") == name and not member.startswith("_"):
            assert inspect.getdoc(value), f"{name}.{member}"


def test_both_packages_say_that_they_are_typed() -> None:
    for package in (fan, fancli):
        assert importlib.resources.files(package).joinpath("py.typed").is_file()
