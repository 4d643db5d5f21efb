"""The import rule: a level imports only levels below it, and each driver has one owner.

The table names every module of both packages. A new module without a row fails, and so does a row
without a module: where a line lives is a decision, and this is where it is written down.

An import counts wherever it stands, in a function as at the top. Only `if TYPE_CHECKING:` is exempt
from the levels, since a name in an annotation runs nothing; it is not exempt from the drivers and
siblings, since a driver's type in a signature is what the contracts are there to prevent.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import fan

# The levels, lowest first.
VALUE, CONTRACT, IMPLEMENTATION, LOGIC, COMPOSITION, TOOL = range(6)
#: May import anything in fan; nothing imports it.
ASIDE = 6
#: `fan/__init__.py`: the public names, as a table of text.
FACADE = 7
#: fancli, which sees fan through `from fan import X` alone. Commands are the leaves.
PROGRAM, COMMAND = 8, 9


class Row(NamedTuple):
    """Where a module stands. Modules of one `family` are parts of one implementation."""

    level: int
    family: str = ""
    drivers: frozenset[str] = frozenset()


def row(level: int, *drivers: str, family: str = "") -> Row:
    return Row(level, family, frozenset(drivers))


TABLE: dict[str, Row] = {
    "fan": row(FACADE),
    # values
    "fan.errors": row(VALUE),
    "fan.error_types": row(VALUE),
    "fan.message": row(VALUE),
    "fan.model": row(VALUE),
    "fan.context": row(VALUE),
    "fan.forks": row(VALUE),
    "fan.quiet": row(VALUE),
    "fan.codec": row(VALUE),
    # contracts
    "fan.transports": row(CONTRACT),
    "fan.transports.base": row(CONTRACT),
    "fan.transports.idle": row(CONTRACT),
    "fan.transports.spin": row(CONTRACT),
    "fan.stores": row(CONTRACT),
    "fan.stores.base": row(CONTRACT),
    "fan.stores.rules": row(CONTRACT),
    "fan.middleware": row(CONTRACT),
    "fan.middleware.base": row(CONTRACT),
    "fan.tracers": row(CONTRACT),
    "fan.tracers.base": row(CONTRACT),
    # files that are SQLite databases: what the registry and the queues share
    "fan.sqlite": row(CONTRACT, family="sqlite"),
    "fan.sqlite.channel": row(CONTRACT, "sqlite3", family="sqlite"),
    "fan.sqlite.errors": row(CONTRACT, "sqlite3", family="sqlite"),
    "fan.sqlite.kind": row(CONTRACT, family="sqlite"),
    "fan.sqlite.locks": row(CONTRACT, family="sqlite"),
    "fan.sqlite.schema": row(CONTRACT, "sqlite3", family="sqlite"),
    "fan.sqlite.wake": row(CONTRACT, "inotify_simple", family="sqlite"),
    # transports
    "fan.transports.local": row(IMPLEMENTATION),
    "fan.transports.ipc": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_channel": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_client": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_failures": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_frames": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_files": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_server": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_loop": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_session": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_session_shared": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_shared": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_spin": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_turns": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_waiting": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_watch": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.ipc_workers": row(IMPLEMENTATION, family="ipc"),
    "fan.transports.http": row(IMPLEMENTATION, family="http"),
    "fan.transports.http_app": row(IMPLEMENTATION, family="http"),
    "fan.transports.http_client": row(IMPLEMENTATION, "httptools", family="http"),
    "fan.transports.http_foreign": row(IMPLEMENTATION, family="http"),
    "fan.transports.http_gate": row(IMPLEMENTATION, family="http"),
    "fan.transports.http_proxy": row(IMPLEMENTATION, "httpx", family="http"),
    "fan.transports.http_protocol": row(IMPLEMENTATION, "uvicorn", family="http"),
    "fan.transports.http_server": row(IMPLEMENTATION, "uvicorn", family="http"),
    "fan.transports.http_wire": row(IMPLEMENTATION, family="http"),
    "fan.transports.http_waiting": row(IMPLEMENTATION, family="http"),
    "fan.transports.http_workers": row(IMPLEMENTATION, family="http"),
    "fan.transports.amqp": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_acks": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_broker": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_calls": row(IMPLEMENTATION, "pika", family="amqp"),
    "fan.transports.amqp_consumer": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_deliveries": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_failures": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_layout": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_link": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_listener": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_loop": row(IMPLEMENTATION, "pika", family="amqp"),
    "fan.transports.amqp_names": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_part": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_pending": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_place": row(IMPLEMENTATION, "pika", family="amqp"),
    "fan.transports.amqp_posts": row(IMPLEMENTATION, "pika", family="amqp"),
    "fan.transports.amqp_queues": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_reaper": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_replies": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_steps": row(IMPLEMENTATION, "pika", family="amqp"),
    "fan.transports.amqp_taps": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.amqp_watch": row(IMPLEMENTATION, "pika", family="amqp"),
    "fan.transports.amqp_wire": row(IMPLEMENTATION, "pika", family="amqp"),
    "fan.transports.amqp_workers": row(IMPLEMENTATION, family="amqp"),
    "fan.transports.redis": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_calls": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_crew": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_desk": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_events": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_failures": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_fields": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_hub": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_keeper": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_keys": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_lane": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_ledger": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_line": row(IMPLEMENTATION, "redis", family="redis"),
    "fan.transports.redis_loop": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_message": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_news": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_outbox": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_pending": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_pipe": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_place": row(IMPLEMENTATION, "redis", family="redis"),
    "fan.transports.redis_presence": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_queues": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_replies": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_resp": row(IMPLEMENTATION, "hiredis", family="redis"),
    "fan.transports.redis_scripts": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_scripts_care": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_send": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_server": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_settle": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_taking": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_tasks": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_watch": row(IMPLEMENTATION, family="redis"),
    "fan.transports.redis_worker": row(IMPLEMENTATION, family="redis"),
    "fan.transports.database": row(IMPLEMENTATION, family="database"),
    "fan.transports.database_care": row(IMPLEMENTATION, "sqlite3", family="database"),
    "fan.transports.database_consumer": row(IMPLEMENTATION, family="database"),
    "fan.transports.database_desk": row(IMPLEMENTATION, "sqlite3", family="database"),
    "fan.transports.database_listener": row(IMPLEMENTATION, family="database"),
    "fan.transports.database_rows": row(IMPLEMENTATION, "sqlite3", family="database"),
    "fan.transports.database_schema": row(IMPLEMENTATION, family="database"),
    "fan.transports.database_session": row(IMPLEMENTATION, family="database"),
    "fan.transports.database_workers": row(IMPLEMENTATION, family="database"),
    # stores
    "fan.stores.memory": row(IMPLEMENTATION),
    "fan.stores.sqlite": row(IMPLEMENTATION, "sqlite3", family="sqlite"),
    "fan.stores.sqlite_rows": row(IMPLEMENTATION, "sqlite3", family="sqlite"),
    "fan.stores.sqlite_writes": row(IMPLEMENTATION, "sqlite3", family="sqlite"),
    "fan.stores.sqlite_session": row(IMPLEMENTATION, family="sqlite"),
    "fan.stores.sqlite_schema": row(IMPLEMENTATION, family="sqlite"),
    "fan.stores.sqlite_lookout": row(IMPLEMENTATION, family="sqlite"),
    "fan.stores.sqlite_watch": row(IMPLEMENTATION, family="sqlite"),
    "fan.stores.zookeeper": row(IMPLEMENTATION, family="zookeeper"),
    "fan.stores.zookeeper_channel": row(IMPLEMENTATION, "kazoo", family="zookeeper"),
    "fan.stores.zookeeper_connection": row(IMPLEMENTATION, "kazoo", family="zookeeper"),
    "fan.stores.zookeeper_commit": row(IMPLEMENTATION, family="zookeeper"),
    "fan.stores.zookeeper_errors": row(IMPLEMENTATION, "kazoo", family="zookeeper"),
    "fan.stores.zookeeper_ground": row(IMPLEMENTATION, family="zookeeper"),
    "fan.stores.zookeeper_client": row(IMPLEMENTATION, "kazoo", family="zookeeper"),
    "fan.stores.zookeeper_handler": row(IMPLEMENTATION, "kazoo", family="zookeeper"),
    "fan.stores.zookeeper_legacy": row(IMPLEMENTATION, family="zookeeper"),
    "fan.stores.zookeeper_layout": row(IMPLEMENTATION, family="zookeeper"),
    "fan.stores.zookeeper_multiread": row(IMPLEMENTATION, "kazoo", family="zookeeper"),
    "fan.stores.zookeeper_reading": row(IMPLEMENTATION, family="zookeeper"),
    "fan.stores.zookeeper_records": row(IMPLEMENTATION, family="zookeeper"),
    "fan.stores.zookeeper_servers": row(IMPLEMENTATION, "kazoo", family="zookeeper"),
    "fan.stores.zookeeper_session": row(IMPLEMENTATION, family="zookeeper"),
    "fan.stores.zookeeper_tls": row(IMPLEMENTATION, family="zookeeper"),
    "fan.stores.zookeeper_trim": row(IMPLEMENTATION, family="zookeeper"),
    "fan.stores.zookeeper_url": row(IMPLEMENTATION, family="zookeeper"),
    "fan.stores.zookeeper_watch": row(IMPLEMENTATION, family="zookeeper"),
    # middleware
    "fan.middleware.breaker": row(IMPLEMENTATION, "pybreaker"),
    "fan.middleware.bulkhead": row(IMPLEMENTATION),
    "fan.middleware.deadline": row(IMPLEMENTATION),
    "fan.middleware.dedupe": row(IMPLEMENTATION, family="dedupe"),
    "fan.middleware.dedupe_shared": row(IMPLEMENTATION, family="dedupe"),
    "fan.middleware.hops": row(IMPLEMENTATION),
    "fan.middleware.logs": row(IMPLEMENTATION),
    "fan.middleware.metrics": row(IMPLEMENTATION),
    "fan.middleware.retry": row(IMPLEMENTATION),
    "fan.middleware.span": row(IMPLEMENTATION),
    # tracers
    "fan.tracers.noop": row(IMPLEMENTATION),
    "fan.tracers.opentracing": row(IMPLEMENTATION, "opentracing"),
    # logic
    "fan.versions": row(LOGIC, "packaging"),
    "fan.signature": row(LOGIC),
    "fan.service": row(LOGIC),
    "fan.interface": row(LOGIC, "packaging"),
    "fan.names": row(LOGIC),
    "fan.hosting": row(LOGIC),
    "fan.runner": row(LOGIC),
    "fan.pool": row(LOGIC),
    "fan.drivers": row(LOGIC),
    "fan.failures": row(LOGIC),
    "fan.exchange": row(LOGIC),
    "fan.overdue": row(LOGIC),
    "fan.pulling": row(LOGIC),
    "fan.dispatch": row(LOGIC),
    "fan.chores": row(LOGIC),
    "fan.consumer": row(LOGIC),
    "fan.discovery": row(LOGIC),
    "fan.readings": row(LOGIC),
    "fan.registration": row(LOGIC),
    "fan.registration_again": row(LOGIC),
    "fan.route_log": row(LOGIC),
    "fan.mirror": row(LOGIC),
    "fan.routes": row(LOGIC),
    "fan.writing": row(LOGIC),
    "fan.following": row(LOGIC),
    "fan.config": row(LOGIC),
    "fan.config_history": row(LOGIC),
    "fan.config_live": row(LOGIC),
    "fan.config_plans": row(LOGIC),
    "fan.config_values": row(LOGIC, "jsonschema", "referencing"),
    "fan.config_views": row(LOGIC),
    "fan.config_watch": row(LOGIC),
    "fan.version_back": row(LOGIC),
    "fan.version_confirm": row(LOGIC),
    "fan.version_depend": row(LOGIC),
    "fan.version_flow": row(LOGIC),
    "fan.version_history": row(LOGIC),
    "fan.version_prepare": row(LOGIC),
    "fan.version_routes": row(LOGIC),
    "fan.version_state": row(LOGIC),
    "fan.version_switch": row(LOGIC),
    "fan.version_undo": row(LOGIC),
    "fan.routing": row(LOGIC),
    "fan.balancer": row(LOGIC),
    "fan.shard": row(LOGIC),
    "fan.stale": row(LOGIC),
    "fan.picker": row(LOGIC),
    "fan.choosing": row(LOGIC),
    "fan.sending": row(LOGIC),
    "fan.events": row(LOGIC),
    "fan.executor": row(LOGIC),
    "fan.intake": row(COMPOSITION),
    "fan.local": row(LOGIC),
    "fan.endpoint": row(LOGIC),
    "fan.binding": row(LOGIC),
    "fan.calls": row(LOGIC),
    "fan.client": row(LOGIC),
    # composition
    "fan.settings": row(COMPOSITION),
    "fan.settings_files": row(COMPOSITION),
    "fan.settings_places": row(COMPOSITION, "platformdirs"),
    "fan.settings_values": row(COMPOSITION),
    "fan.plugins": row(COMPOSITION),
    "fan.profiles": row(COMPOSITION),
    "fan.references": row(COMPOSITION),
    "fan.policies": row(COMPOSITION),
    "fan.gate": row(COMPOSITION),
    "fan.lifecycle": row(COMPOSITION),
    "fan.standby": row(COMPOSITION),
    "fan.loader": row(COMPOSITION),
    "fan.needs": row(COMPOSITION),
    "fan.operations": row(COMPOSITION),
    "fan.app": row(COMPOSITION),
    "fan.parts": row(COMPOSITION),
    "fan.version": row(COMPOSITION),
    "fan.version_retire": row(COMPOSITION),
    "fan.checks": row(COMPOSITION),
    # tools
    "fan.tools": row(TOOL),
    "fan.tools.foreign": row(TOOL, "packaging", "yaml", family="foreign"),
    "fan.tools.legacy": row(TOOL, family="foreign"),
    "fan.tools.openapi": row(TOOL, "yaml", family="foreign"),
    "fan.tools.histogram": row(TOOL),
    "fan.tools.load": row(TOOL),
    "fan.tools.mock": row(TOOL),
    "fan.tools.replay": row(TOOL),
    "fan.tools.servers": row(TOOL),
    "fan.tools.servers_base": row(TOOL),
    "fan.tools.servers_keeper": row(TOOL),
    "fan.tools.servers_ports": row(TOOL),
    "fan.tools.servers_process": row(TOOL),
    "fan.tools.servers_rabbitmq": row(TOOL),
    "fan.tools.servers_redis": row(TOOL),
    "fan.tools.servers_zookeeper": row(TOOL),
    # aside
    "fan.demo": row(ASIDE),
    "fan.demo.greeter": row(ASIDE),
    "fan.demo.journal": row(ASIDE),
    "fan.demo.v1": row(ASIDE),
    "fan.demo.v2": row(ASIDE),
    "fan.testing": row(ASIDE),
    "fan.testing.fakes": row(ASIDE),
    "fan.testing.packages": row(ASIDE),
    "fan.testing.plugin": row(ASIDE, "pytest"),
    "fan.testing.servers": row(ASIDE, "pytest"),
    "fan.testing.contracts": row(ASIDE, "pytest"),
    "fan.testing.contracts.bare": row(ASIDE),
    "fan.testing.contracts.callers": row(ASIDE),
    "fan.testing.contracts.concurrency": row(ASIDE, "pytest"),
    "fan.testing.contracts.context": row(ASIDE, "pytest"),
    "fan.testing.contracts.deadlines": row(ASIDE, "pytest"),
    "fan.testing.contracts.errors": row(ASIDE, "pytest"),
    "fan.testing.contracts.faults": row(ASIDE, "pytest"),
    "fan.testing.contracts.fleet": row(ASIDE),
    "fan.testing.contracts.forking": row(ASIDE),
    "fan.testing.contracts.harness": row(ASIDE, "pytest"),
    "fan.testing.contracts.probe": row(ASIDE),
    "fan.testing.contracts.queue_care": row(ASIDE, "pytest"),
    "fan.testing.contracts.queue_drains": row(ASIDE, "pytest"),
    "fan.testing.contracts.queue_events": row(ASIDE, "pytest"),
    "fan.testing.contracts.queue_faults": row(ASIDE, "pytest"),
    "fan.testing.contracts.queue_forking": row(ASIDE),
    "fan.testing.contracts.queue_harness": row(ASIDE, "pytest"),
    "fan.testing.contracts.queue_probe": row(ASIDE),
    "fan.testing.contracts.queue_pushes": row(ASIDE, "pytest"),
    "fan.testing.contracts.queue_tries": row(ASIDE, "pytest"),
    "fan.testing.contracts.queue_server": row(ASIDE),
    "fan.testing.contracts.queues": row(ASIDE),
    "fan.testing.contracts.resilience": row(ASIDE, "pytest"),
    "fan.testing.contracts.server": row(ASIDE),
    "fan.testing.contracts.store": row(ASIDE),
    "fan.testing.contracts.store_commits": row(ASIDE, "pytest"),
    "fan.testing.contracts.store_generations": row(ASIDE, "pytest"),
    "fan.testing.contracts.store_harness": row(ASIDE, "pytest"),
    "fan.testing.contracts.store_records": row(ASIDE, "pytest"),
    "fan.testing.contracts.store_watches": row(ASIDE),
    "fan.testing.contracts.streams": row(ASIDE, "pytest"),
    "fan.testing.contracts.transport": row(ASIDE),
    "fan.testing.contracts.values": row(ASIDE, "pytest"),
    # the program
    "fancli": row(PROGRAM),
    "fancli.__main__": row(PROGRAM),
    "fancli.bench_report": row(PROGRAM),
    "fancli.answers": row(PROGRAM),
    "fancli.batch": row(PROGRAM),
    "fancli.call_options": row(PROGRAM, "click"),
    "fancli.calling": row(PROGRAM),
    "fancli.catalog": row(PROGRAM),
    "fancli.coerce": row(PROGRAM),
    "fancli.companion": row(PROGRAM),
    "fancli.compare": row(PROGRAM),
    "fancli.complete": row(PROGRAM, "click"),
    "fancli.configs": row(PROGRAM, "click"),
    "fancli.confirming": row(PROGRAM, "click"),
    "fancli.cursors": row(PROGRAM),
    "fancli.describing": row(PROGRAM),
    "fancli.documents": row(PROGRAM, "yaml"),
    "fancli.edit_payload": row(PROGRAM),
    "fancli.editor": row(PROGRAM),
    "fancli.entry": row(PROGRAM),
    "fancli.env": row(PROGRAM),
    "fancli.exits": row(PROGRAM),
    "fancli.extensions": row(PROGRAM),
    "fancli.expect": row(PROGRAM),
    "fancli.files": row(PROGRAM),
    "fancli.fleet": row(PROGRAM, "click"),
    "fancli.fitting": row(PROGRAM),
    "fancli.group": row(PROGRAM, "click"),
    "fancli.guard": row(PROGRAM),
    "fancli.guarded": row(PROGRAM),
    "fancli.history": row(PROGRAM),
    "fancli.keeper": row(PROGRAM),
    "fancli.live": row(PROGRAM),
    "fancli.lines": row(PROGRAM),
    "fancli.local": row(PROGRAM),
    "fancli.letters": row(PROGRAM),
    "fancli.listening": row(PROGRAM),
    "fancli.main": row(PROGRAM),
    "fancli.many": row(PROGRAM),
    "fancli.man": row(PROGRAM, "click"),
    "fancli.mask": row(PROGRAM),
    "fancli.mocking": row(PROGRAM),
    "fancli.options": row(PROGRAM, "click"),
    "fancli.output": row(PROGRAM, "click", "rich"),
    "fancli.params": row(PROGRAM, "click"),
    "fancli.paths": row(PROGRAM),
    "fancli.payload": row(PROGRAM),
    "fancli.peers": row(PROGRAM),
    "fancli.processes": row(PROGRAM),
    "fancli.prompt": row(PROGRAM, "click", "prompt_toolkit"),
    "fancli.queues": row(PROGRAM),
    "fancli.reaching": row(PROGRAM),
    "fancli.ready": row(PROGRAM),
    "fancli.recording": row(PROGRAM),
    "fancli.reload": row(PROGRAM),
    "fancli.render": row(PROGRAM),
    "fancli.request": row(PROGRAM, "click"),
    "fancli.request_file": row(PROGRAM),
    "fancli.scripts": row(PROGRAM),
    "fancli.session": row(PROGRAM),
    "fancli.switching": row(PROGRAM),
    "fancli.slo": row(PROGRAM),
    "fancli.staged": row(PROGRAM),
    "fancli.several": row(PROGRAM),
    "fancli.show": row(PROGRAM),
    "fancli.tab": row(PROGRAM, "click"),
    "fancli.tap": row(PROGRAM),
    "fancli.topics": row(PROGRAM),
    "fancli.transcribe": row(PROGRAM),
    "fancli.watching": row(PROGRAM),
    "fancli.writes": row(PROGRAM, "click"),
    # commands
    "fancli.commands": row(COMMAND),
    "fancli.commands.bench": row(COMMAND, "click"),
    "fancli.commands.call": row(COMMAND, "click"),
    "fancli.commands.completion": row(COMMAND, "click"),
    "fancli.commands.config": row(COMMAND),
    "fancli.commands.config_edit": row(COMMAND),
    "fancli.commands.config_files": row(COMMAND, "click"),
    "fancli.commands.config_read": row(COMMAND, "click"),
    "fancli.commands.config_watch": row(COMMAND, "click"),
    "fancli.commands.config_write": row(COMMAND, "click"),
    "fancli.commands.demo": row(COMMAND, "click"),
    "fancli.commands.dev": row(COMMAND, "click"),
    "fancli.commands.discover": row(COMMAND),
    "fancli.commands.discover_check": row(COMMAND, "click"),
    "fancli.commands.discover_clean": row(COMMAND, "click"),
    "fancli.commands.discover_import": row(COMMAND, "click"),
    "fancli.commands.discover_read": row(COMMAND, "click"),
    "fancli.commands.discover_register": row(COMMAND, "click"),
    "fancli.commands.discover_shards": row(COMMAND, "click"),
    "fancli.commands.discover_state": row(COMMAND, "click"),
    "fancli.commands.discover_watch": row(COMMAND, "click"),
    "fancli.commands.help": row(COMMAND, "click"),
    "fancli.commands.listen": row(COMMAND, "click"),
    "fancli.commands.plugins": row(COMMAND),
    "fancli.commands.mock": row(COMMAND, "click"),
    "fancli.commands.profile": row(COMMAND, "click"),
    "fancli.commands.push": row(COMMAND, "click"),
    "fancli.commands.queue": row(COMMAND, "click"),
    "fancli.commands.replay": row(COMMAND, "click"),
    "fancli.commands.run": row(COMMAND, "click"),
    "fancli.commands.serve": row(COMMAND, "click"),
    "fancli.commands.settings": row(COMMAND),
    "fancli.commands.shell": row(COMMAND),
    "fancli.commands.version": row(COMMAND),
    "fancli.commands.version_read": row(COMMAND, "click"),
    "fancli.commands.version_rollback": row(COMMAND, "click"),
    "fancli.commands.version_share": row(COMMAND, "click"),
    "fancli.commands.version_state": row(COMMAND, "click"),
    "fancli.commands.version_switch": row(COMMAND, "click"),
}

#: Everybody may import these, and the standard library less the OWNED part of it.
EVERYWHERE = {"msgspec"}
#: Parts of the standard library that are drivers here.
OWNED = {"sqlite3"}
#: Drivers that more than one family may use: a module of the standard library, for those who keep
#: something in a file, and the reader of a format that the library and the program both take.
SHARED = {"sqlite3": {"sqlite", "database"}, "yaml": {"foreign", "fancli"}}
#: Modules that may import by a name that is data, which no table of imports can see.
BY_NAME = {"fan", "fan.loader", "fan.plugins", "fancli.group"}


def folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@cache
def modules() -> dict[str, Path]:
    """Every module of both packages: dotted name -> file."""
    found = {}
    for package in ("fan", "fancli"):
        root = folder_of(package)
        for path in root.rglob("*.py"):
            parts = [package, *path.relative_to(root).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


class Import(NamedTuple):
    """One import: the module, and the name taken from it ("" for `import module`)."""

    module: str
    name: str
    line: int
    is_typing: bool
    is_top: bool


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports_in(node: ast.AST, is_typing: bool = False, is_top: bool = True) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, "", child.lineno, is_typing, is_top)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports hide where a name comes from"
            for alias in child.names:
                yield Import(child.module or "", alias.name, child.lineno, is_typing, is_top)
        elif is_type_checking(child):
            assert isinstance(child, ast.If)
            for part in child.body:
                yield from imports_in(ast.Module([part], []), True, is_top)
            for part in child.orelse:
                yield from imports_in(ast.Module([part], []), is_typing, is_top)
        else:
            in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_in(child, is_typing, is_top and not in_function)


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    return tuple(imports_in(ast.parse(modules()[module].read_text())))


def target_of(found: Import) -> str:
    """The module that is reached: `fan.transports.ipc` by `from fan.transports import ipc`."""
    whole = f"{found.module}.{found.name}"
    return whole if whole in modules() else found.module


def is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("fan", "fancli")


def named(module: str, found: Import) -> str:
    return f"{module}:{found.line}: {found.module}" + (f".{found.name}" if found.name else "")


every_module = pytest.mark.parametrize("module", sorted(modules()))


def test_every_module_has_a_row_and_every_row_a_module() -> None:
    assert TABLE.keys() - modules().keys() == set(), "rows without a module"
    assert modules().keys() - TABLE.keys() == set(), "modules without a row"


@every_module
def test_a_level_imports_only_levels_below_it(module: str) -> None:
    own = TABLE[module]
    if own.level >= ASIDE:
        return
    for found in imports_of(module):
        if found.is_typing or not is_ours(found.module):
            continue
        target = target_of(found)
        other = TABLE[target]
        if own.level == IMPLEMENTATION:
            fine = other.level < own.level or (other.family == own.family != "")
        else:
            fine = other.level <= own.level and (
                other.level != IMPLEMENTATION or own.level >= COMPOSITION
            )
        assert fine, f"{named(module, found)} is not below it"


@every_module
def test_implementations_never_know_each_other_not_even_their_types(module: str) -> None:
    own = TABLE[module]
    if own.level != IMPLEMENTATION:
        return
    for found in imports_of(module):
        other = TABLE.get(target_of(found))
        if other is not None and other.level == IMPLEMENTATION:
            assert other.family == own.family != "", named(module, found)


@every_module
def test_a_driver_is_imported_by_its_owner_alone(module: str) -> None:
    for found in imports_of(module):
        top = found.module.partition(".")[0]
        if is_ours(top) or top in EVERYWHERE:
            continue
        if top in sys.stdlib_module_names and top not in OWNED:
            continue
        assert top in TABLE[module].drivers, named(module, found)


@every_module
def test_a_row_grants_no_driver_that_is_not_used(module: str) -> None:
    used = {found.module.partition(".")[0] for found in imports_of(module)}
    assert used >= TABLE[module].drivers


def test_a_driver_belongs_to_one_family() -> None:
    owners: dict[str, set[str]] = {}
    for module, own in TABLE.items():
        if own.level == ASIDE:
            continue
        for driver in own.drivers - {"packaging"}:
            family = "fancli" if module.startswith("fancli") else own.family
            owners.setdefault(driver, set()).add(family or module)
    shared = {driver: names for driver, names in owners.items() if len(names) > 1}
    assert shared == SHARED


@every_module
def test_nothing_imports_what_stands_aside(module: str) -> None:
    own = TABLE[module]
    if own.level in (ASIDE, FACADE):
        return
    for found in imports_of(module):
        if is_ours(found.module):
            assert TABLE[target_of(found)].level != ASIDE, named(module, found)


def test_no_module_needs_itself_to_be_imported() -> None:
    """The imports at the top of modules form no cycle, so that any module can be imported first."""
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way, module))
        if module in done:
            return
        for found in imports_of(module):
            target = target_of(found)
            runs = found.is_top and not found.is_typing and is_ours(target)
            if runs and target not in (module, "fan", "fancli"):
                visit(target, (*way, module))
        done.add(module)

    for module in modules():
        visit(module, ())


@pytest.mark.parametrize("module", sorted(m for m in modules() if m.startswith("fancli")))
def test_the_program_sees_only_public_names(module: str) -> None:
    for found in imports_of(module):
        if found.module == "fan" and found.name:
            assert found.name in fan.__all__, named(module, found)
        else:
            assert found.module.partition(".")[0] != "fan", named(module, found)


@pytest.mark.parametrize("module", sorted(m for m in modules() if m.startswith("fancli.commands.")))
def test_commands_never_import_each_other(module: str) -> None:
    for found in imports_of(module):
        target = target_of(found)
        assert target == module or not target.startswith("fancli.commands."), named(module, found)


@pytest.mark.parametrize("module", sorted(m for m in modules() if not m.startswith("fancli")))
def test_the_library_knows_nothing_of_the_program(module: str) -> None:
    for found in imports_of(module):
        assert found.module.partition(".")[0] != "fancli", named(module, found)


@every_module
def test_only_the_composition_imports_by_name(module: str) -> None:
    if module in BY_NAME or TABLE[module].level == ASIDE:
        return
    tree = ast.parse(modules()[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("importlib.import_module", "import_module", "__import__"), (
                f"{module}:{node.lineno}"
            )
