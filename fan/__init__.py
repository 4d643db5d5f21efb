"""fan: a microservice kit. A service is a class with `@rpc` methods; how it is reached is
configuration.

Everything public is a name of this module, imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.19.0"

#: Public name -> module that has it.
_HOME = {
    "Aborted": "errors",
    "Address": "model",
    "AlreadyExists": "errors",
    "App": "app",
    "Cancelled": "errors",
    "Choice": "model",
    "Client": "client",
    "Config": "routes",
    "Configs": "config",
    "ConfigEntry": "config_history",
    "ConfigEvent": "config_history",
    "ConfigWatch": "config_watch",
    "Confirm": "version_confirm",
    "Consumer": "model",
    "Context": "context",
    "DataLoss": "errors",
    "DeadlineExceeded": "errors",
    "Discovery": "discovery",
    "Executor": "executor",
    "FailedPrecondition": "errors",
    "FanError": "errors",
    "Generation": "version_history",
    "Finding": "checks",
    "Foreign": "tools.foreign",
    "HttpForm": "model",
    "Instance": "model",
    "Interface": "model",
    "Internal": "errors",
    "InvalidArgument": "errors",
    "Loaded": "settings",
    "MethodInfo": "model",
    "Middleware": "middleware.base",
    "NotFound": "errors",
    "Operations": "operations",
    "Options": "middleware.base",
    "OutOfRange": "errors",
    "Leftover": "operations",
    "Letter": "model",
    "Override": "model",
    "Load": "tools.load",
    "LoadPlan": "tools.load",
    "LoadReport": "tools.load",
    "Param": "model",
    "PermissionDenied": "errors",
    "Profile": "profiles",
    "Profiles": "profiles",
    "Queue": "model",
    "QueueName": "model",
    "Recorded": "tools.replay",
    "RemoteError": "errors",
    "Request": "message",
    "ResourceExhausted": "errors",
    "Response": "message",
    "Result": "client",
    "Route": "model",
    "Routes": "routes",
    "ServerStatus": "tools.servers",
    "Servers": "tools.servers",
    "Service": "service",
    "ShardRule": "shard",
    "ServiceInfo": "model",
    "Settings": "settings",
    "Trouble": "tools.mock",
    "Unauthenticated": "errors",
    "Unavailable": "errors",
    "Unimplemented": "errors",
    "Unknown": "errors",
    "Status": "version_state",
    "Switched": "version_flow",
    "Tally": "version_confirm",
    "Versions": "version",
    "Write": "writing",
    "Written": "writing",
    "check_config": "policies",
    "current": "context",
    "decode_result": "codec",
    "load_profiles": "profiles",
    "load_routes": "loader",
    "load_services": "loader",
    "load_settings": "settings",
    "mock_recorded": "tools.mock",
    "mock_samples": "tools.mock",
    "mock_service": "tools.mock",
    "new_id": "context",
    "parse_duration": "settings_values",
    "parse_target": "routing",
    "plugins": "",
    "push": "service",
    "read_legacy": "tools.legacy",
    "read_openapi": "tools.openapi",
    "read_services": "tools.foreign",
    "resolve_reference": "references",
    "rpc": "service",
    "subscribe": "service",
    "versions": "",
    "wrap": "executor",
}

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from fan import plugins as plugins
    from fan import versions as versions
    from fan.app import App as App
    from fan.checks import Finding as Finding
    from fan.client import Client as Client
    from fan.client import Result as Result
    from fan.codec import decode_result as decode_result
    from fan.config import Configs as Configs
    from fan.config_history import ConfigEntry as ConfigEntry
    from fan.config_history import ConfigEvent as ConfigEvent
    from fan.config_watch import ConfigWatch as ConfigWatch
    from fan.context import Context as Context
    from fan.context import current as current
    from fan.context import new_id as new_id
    from fan.discovery import Discovery as Discovery
    from fan.errors import (
        Aborted as Aborted,
    )
    from fan.errors import (
        AlreadyExists as AlreadyExists,
    )
    from fan.errors import (
        Cancelled as Cancelled,
    )
    from fan.errors import (
        DataLoss as DataLoss,
    )
    from fan.errors import (
        DeadlineExceeded as DeadlineExceeded,
    )
    from fan.errors import (
        FailedPrecondition as FailedPrecondition,
    )
    from fan.errors import (
        FanError as FanError,
    )
    from fan.errors import (
        Internal as Internal,
    )
    from fan.errors import (
        InvalidArgument as InvalidArgument,
    )
    from fan.errors import (
        NotFound as NotFound,
    )
    from fan.errors import (
        OutOfRange as OutOfRange,
    )
    from fan.errors import (
        PermissionDenied as PermissionDenied,
    )
    from fan.errors import (
        RemoteError as RemoteError,
    )
    from fan.errors import (
        ResourceExhausted as ResourceExhausted,
    )
    from fan.errors import (
        Unauthenticated as Unauthenticated,
    )
    from fan.errors import (
        Unavailable as Unavailable,
    )
    from fan.errors import (
        Unimplemented as Unimplemented,
    )
    from fan.errors import (
        Unknown as Unknown,
    )
    from fan.executor import Executor as Executor
    from fan.executor import wrap as wrap
    from fan.loader import load_routes as load_routes
    from fan.loader import load_services as load_services
    from fan.message import Request as Request
    from fan.message import Response as Response
    from fan.middleware.base import Middleware as Middleware
    from fan.middleware.base import Options as Options
    from fan.model import Address as Address
    from fan.model import Choice as Choice
    from fan.model import Consumer as Consumer
    from fan.model import HttpForm as HttpForm
    from fan.model import Instance as Instance
    from fan.model import Interface as Interface
    from fan.model import Letter as Letter
    from fan.model import MethodInfo as MethodInfo
    from fan.model import Override as Override
    from fan.model import Param as Param
    from fan.model import Queue as Queue
    from fan.model import QueueName as QueueName
    from fan.model import Route as Route
    from fan.model import ServiceInfo as ServiceInfo
    from fan.operations import Leftover as Leftover
    from fan.operations import Operations as Operations
    from fan.policies import check_config as check_config
    from fan.profiles import Profile as Profile
    from fan.profiles import Profiles as Profiles
    from fan.profiles import load_profiles as load_profiles
    from fan.references import resolve_reference as resolve_reference
    from fan.routes import Config as Config
    from fan.routes import Routes as Routes
    from fan.routing import parse_target as parse_target
    from fan.service import Service as Service
    from fan.service import push as push
    from fan.service import rpc as rpc
    from fan.service import subscribe as subscribe
    from fan.settings import Loaded as Loaded
    from fan.settings import Settings as Settings
    from fan.settings import load_settings as load_settings
    from fan.settings_values import parse_duration as parse_duration
    from fan.shard import ShardRule as ShardRule
    from fan.tools.foreign import Foreign as Foreign
    from fan.tools.foreign import read_services as read_services
    from fan.tools.legacy import read_legacy as read_legacy
    from fan.tools.load import Load as Load
    from fan.tools.load import LoadPlan as LoadPlan
    from fan.tools.load import LoadReport as LoadReport
    from fan.tools.mock import Trouble as Trouble
    from fan.tools.mock import mock_recorded as mock_recorded
    from fan.tools.mock import mock_samples as mock_samples
    from fan.tools.mock import mock_service as mock_service
    from fan.tools.openapi import read_openapi as read_openapi
    from fan.tools.replay import Recorded as Recorded
    from fan.tools.servers import Servers as Servers
    from fan.tools.servers import ServerStatus as ServerStatus
    from fan.version import Versions as Versions
    from fan.version_confirm import Confirm as Confirm
    from fan.version_confirm import Tally as Tally
    from fan.version_flow import Switched as Switched
    from fan.version_history import Generation as Generation
    from fan.version_state import Status as Status
    from fan.writing import Write as Write
    from fan.writing import Written as Written


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'fan' has no attribute {name!r}")
    if not home:
        value = import_module(f"fan.{name}")
    else:
        value = getattr(import_module(f"fan.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
