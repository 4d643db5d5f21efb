"""What a one-shot command imports, by name: start-up is most of what a command costs.

Every module that is loaded beyond what `import click, msgspec` loads anyway has to stand here.
Whoever adds one pays for it on every TAB and every call in a loop, so it is a decision, taken here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import fan
from fan.demo.v1 import Greeter

#: Never on any of these ways, whatever else changes: each costs more than the whole command does.
HEAVY = {
    "asyncio", "hypothesis", "importlib.metadata", "jaeger_client", "kazoo", "opentracing",
    "packaging", "pika", "platformdirs", "pybreaker", "redis", "rich", "tornado", "uvicorn",
}  # fmt: skip


class Way(NamedTuple):
    """One way through the program, and the modules that it may import."""

    args: tuple[str, ...]
    #: Of ours, exactly.
    ours: frozenset[str]
    #: Of others and of the standard library, at most: versions of Python differ.
    others: frozenset[str]
    variables: tuple[tuple[str, str], ...] = ()


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def tab(line: str) -> tuple[tuple[str, str], ...]:
    """What a shell says when TAB is pressed at the end of a line."""
    words = str(len(line.split()) - 1)
    return (
        ("_FAN_COMPLETE", "bash_complete"),
        ("COMP_LINE", line),
        ("COMP_POINT", str(len(line))),
        ("COMP_WORDS", line),
        ("COMP_CWORD", words),
    )


#: Of ours, by every command.
PROGRAM = names(
    """
    fancli fancli.entry fancli.env fancli.exits fancli.group fancli.main fancli.output fancli.params
    """
)
#: To find a service in the registry.
LOOK_UP = names(
    """
    fan fan.chores fan.discovery fan.errors fan.forks fan.message fan.mirror fan.model fan.plugins
    fan.readings fan.references fan.registration fan.registration_again fan.settings
    fan.settings_places fan.settings_values fan.sqlite fan.sqlite.channel fan.sqlite.errors
    fan.sqlite.kind fan.sqlite.locks fan.sqlite.schema fan.stores fan.stores.base fan.stores.sqlite
    fan.stores.sqlite_rows fan.stores.sqlite_schema fancli.call_options fancli.commands
    fancli.commands.call fancli.complete fancli.options fancli.payload fancli.request
    """
)
#: To call it.
CALL = names(
    """
    fan.app fan.balancer fan.binding fan.calls fan.choosing fan.client fan.codec fan.context
    fan.dispatch fan.drivers fan.endpoint fan.error_types fan.exchange fan.failures fan.hosting
    fan.local fan.middleware fan.middleware.base fan.middleware.deadline fan.middleware.hops
    fan.middleware.retry fan.names fan.parts fan.picker fan.policies fan.routes fan.routing
    fan.runner fan.sending fan.service fan.signature fan.stale fan.transports
    fan.transports.base fan.transports.idle fancli.answers fancli.calling fancli.coerce
    fancli.show
    """
)
#: Of the standard library, by every command.
STANDARD = names("gc")
#: By what asks the registry.
ASKING = STANDARD | names("_struct fcntl struct")
#: By what calls.
CALLING = ASKING | names("_contextvars contextvars select")
#: By a TAB.
TAB = names("click.shell_completion")

WAYS: dict[str, Way] = {
    "fan --help": Way(
        ("--help",),
        PROGRAM | names("fancli.extensions"),
        STANDARD | names(
            "_bz2 _compression _locale _lzma bz2 click._textwrap fnmatch locale lzma shutil zlib"
        ),
    ),
    "fan call -t ipc": Way(
        ("call", "greeter.hello", "name=Ada", "-t", "ipc"),
        PROGRAM | LOOK_UP | CALL | names(
            """
            fan.transports.ipc fan.transports.ipc_client fan.transports.ipc_failures
            fan.transports.ipc_frames
            fan.transports.ipc_spin
            fan.transports.ipc_turns fan.transports.spin
            """
        ),
        CALLING,
    ),
    "fan call -t http": Way(
        ("call", "greeter.hello", "name=Ada", "-t", "http"),
        PROGRAM | LOOK_UP | CALL | names(
            """
            fan.transports.http fan.transports.http_client fan.transports.http_proxy
            fan.transports.http_wire
            """
        ),
        CALLING | names(
            """
            array httptools httptools._version httptools.parser httptools.parser.errors
            httptools.parser.parser httptools.parser.protocol httptools.parser.url_parser
            selectors socket
            """
        ),
    ),
    "a TAB on a command": Way(
        (),
        PROGRAM | names("fancli.extensions fancli.scripts fancli.tab"),
        STANDARD | TAB,
        tab("fan ca"),
    ),
    "a TAB on a method": Way(
        (),
        PROGRAM | LOOK_UP | names("fancli.scripts fancli.tab"),
        ASKING | TAB,
        tab("fan call greeter.he"),
    ),
}


def loaded(code: str, *args: str, **variables: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded when it has run `code`."""
    code = f"import sys; {code}; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *args],
        env={**os.environ, **variables}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *talk, names = done.stderr.splitlines()
    assert talk == []
    return set(names.split())


@pytest.fixture
def greeter(registry_url: str) -> Iterator[None]:
    """A greeter that answers over ipc and http, in this process, found through the registry."""
    with fan.App(Greeter(), settings=fan.load_settings().settings) as app:
        app.start(("ipc", "http=127.0.0.1:0"))
        yield


@pytest.mark.usefixtures("greeter")
@pytest.mark.parametrize("name", WAYS)
def test_a_command_imports_what_is_listed_and_no_more(name: str) -> None:
    way = WAYS[name]
    free = loaded("import click, msgspec, sqlite3")
    run = "from fancli.main import main; assert main() == 0"
    found = loaded(run, *way.args, **dict(way.variables))
    assert not found & HEAVY
    ours = {module for module in found if module.partition(".")[0] in ("fan", "fancli")}
    assert ours == way.ours
    others = {module for module in found - ours - free if "cython" not in module}
    assert others - way.others == set()


HEAP = """
import gc
from fan import Service, rpc

class Heap(Service):
    name = "heap"
    version = "1.0.0"

    @rpc
    def thresholds(self) -> list[int]:
        first = gc.get_threshold()[0]
        kept = [[] for _ in range(2 * first)]
        return [first, gc.get_threshold()[0]]
"""


def test_only_the_start_puts_off_the_search_for_garbage(private: Path) -> None:
    (private / "heap.py").write_text(HEAP)
    call = ("call", "heap.thresholds", "-p", f"local:{private}/heap.py")
    first, then = json.loads(ran("from fancli.main import run; run()", *call))
    usual = int(ran("import gc; print(gc.get_threshold()[0])"))
    assert first > then == usual


def ran(code: str, *args: str) -> str:
    """What a fresh interpreter prints that runs `code`."""
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *args], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True, timeout=50, check=True,
    ).stdout  # fmt: skip
