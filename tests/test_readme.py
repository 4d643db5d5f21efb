"""The README is true: its commands print what it shows, its Python runs, its tables are whole.

In a block marked `console` each line that begins with `$ ` is run, in order, in one folder with a
private registry, and what stands below it is what it prints; `...` stands for anything on a line,
and alone for any lines. `fan serve` and `fan demo` are left running once they have printed what is
shown, and end with the test. A block marked with a language and a NAME is written to that file, one
marked `python` is run. The `sh` blocks are of two sections, each with a test of its own.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import fan
from fan.errors import CLASSES, EXECUTED_BY_REASON
from fan.message import Request, Response
from fan.tools.servers_ports import free_ports

README = Path(__file__).parent.parent / "README.md"
#: A bound on hangs, in seconds; everything here takes a fraction of one on a quiet machine.
PATIENCE = 120.0
#: What answers for `curl -s -d DATA URL` where there is none.
CURL = """#!{python}
import sys, httpx
_, silent, data_follows, data, url = sys.argv
assert (silent, data_follows) == ("-s", "-d"), sys.argv
sys.stdout.write(httpx.post(url, content=data).text)
"""
#: The sections whose `sh` blocks are run by a test of their own, and how many each has.
SH = {"The two lines": 2, "The registry on ZooKeeper": 2}


class Block(NamedTuple):
    """One fenced block: the words after its fence, its text and its line in the file."""

    info: str
    text: str
    line: int


class Shown(NamedTuple):
    """One command of a console block, and the lines that it is said to print."""

    command: str
    output: list[str]
    line: int


FENCED = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (?P<command>.+)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)


def blocks(text: str) -> list[Block]:
    found = FENCED.finditer(text)
    return [Block(m["info"], m["text"], text.count("\n", 0, m.start()) + 1) for m in found]


def shown(block: Block) -> Iterator[Shown]:
    for part in COMMAND.finditer(block.text):
        line = block.line + 1 + block.text.count("\n", 0, part.start())
        yield Shown(part["command"], part["output"].rstrip("\n").splitlines(), line)


def pattern(lines: list[str]) -> re.Pattern[str]:
    """What the shown lines match."""
    text = ""
    for line in lines:
        if line == "...":
            text += r"(?:.*\n)*?"
        else:
            text += re.escape(line.rstrip()).replace(r"\.\.\.", ".*?") + r" *\n"
    return re.compile(text)


class Shell:
    """Runs the README's commands, and keeps what serves until `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bin_folder = os.path.dirname(sys.executable)
        stand_ins = folder.with_name("stand-ins")
        stand_ins.mkdir()
        if shutil.which("curl") is None:  # not everybody has it
            (stand_ins / "curl").write_text(CURL.format(python=sys.executable))
            (stand_ins / "curl").chmod(0o755)
        self.env = {
            **os.environ,
            "PATH": os.pathsep.join([bin_folder, os.environ["PATH"], str(stand_ins)]),
            "COLUMNS": "100",
        }
        self.serving: list[subprocess.Popen[str]] = []

    def run(self, step: Shown) -> None:
        where = f"README.md:{step.line}: $ {step.command}"
        if re.match(r"fan (serve|demo(?! --tour))\b", step.command):
            self.serve(step, where)
            return
        printed = self.line(step.command).stdout
        if printed and not printed.endswith("\n"):
            printed += "\n"
        assert pattern(step.output).fullmatch(printed), f"{where}\nprinted:\n{printed}"

    def line(self, command: str, patience: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a line, or several; stdout and stderr are one."""
        return subprocess.run(
            command, shell=True, executable=shutil.which("bash"), cwd=self.folder,
            env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=patience, check=False,
        )  # fmt: skip

    def serve(self, step: Shown, where: str) -> None:
        process = subprocess.Popen(
            shlex.split(step.command), cwd=self.folder, env=self.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.serving.append(process)
        assert process.stdout is not None
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        said = ""
        wanted = pattern(step.output)
        for line in process.stdout:
            said += line
            if wanted.fullmatch(said):
                break
        watchdog.cancel()
        watchdog.join()
        assert wanted.fullmatch(said), f"{where}\nprinted:\n{said}"

    def close(self) -> None:
        for process in reversed(self.serving):
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)


@pytest.fixture
def shell(private: Path) -> Iterator[Shell]:
    folder = private / "greeting"
    folder.mkdir()
    shell = Shell(folder)
    yield shell
    shell.close()


@pytest.mark.timeout(900)
def test_its_commands_print_what_it_shows(shell: Shell) -> None:
    ran = 0
    # The text says 8080, which somebody else may hold.
    text = README.read_text().replace("8080", str(free_ports(1)[0]))
    for block in blocks(text):
        info = block.info.split()
        if len(info) == 2:
            (shell.folder / info[1]).write_text(block.text)
        elif info == ["python"]:
            run_python(shell, block)
        elif info == ["console"]:
            for step in shown(block):
                shell.run(step)
                ran += 1
    assert ran > 10


def run_python(shell: Shell, block: Block) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        cwd=shell.folder, env=shell.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"README.md:{block.line}:\n{done.stdout}"


def section(title: str) -> str:
    """The text under a heading, up to the next of its level."""
    text = README.read_text()
    heading = re.search(rf"^(#+) {re.escape(title)}\n", text, re.MULTILINE)
    assert heading, f"there is no heading {title!r}"
    rest = text[heading.end() :]
    following = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def sh(title: str) -> list[str]:
    """The `sh` blocks of a section."""
    return [block.text.strip() for block in blocks(section(title)) if block.info == "sh"]


def test_every_block_is_run() -> None:
    text = README.read_text()
    # `nox -s docs` holds what cog makes against the program.
    written = re.sub(r"(?ms)^<!-- \[\[\[cog\n.*?\[\[\[end\]\]\] -->$", "", text)
    found = blocks(written)
    fences = re.findall(r"^ *```", written, re.MULTILINE)
    assert len(fences) == 2 * len(found), "a fence says no language, or is indented"
    assert {title: len(sh(title)) for title in SH} == SH
    assert sum(block.info == "sh" for block in found) == sum(SH.values())
    run = "".join(block.text for block in found if block.info in ("console", "python"))
    files = [block.info for block in found if block.info not in ("console", "python", "sh")]
    assert [info for info in files if is_unused(info.partition(" ")[2], run)] == []


def is_unused(name: str, run: str) -> bool:
    """Whether nothing that is run names a file."""
    return not name or re.search(rf"\b{re.escape(Path(name).stem)}\b", run) is None


@pytest.mark.timeout(600)
def test_the_tour_of_the_first_lines_runs(shell: Shell) -> None:
    tour, tests = sh("The two lines")
    assert tests.endswith("nox -s tests")
    *install, line = tour.split(" && ")
    # What `nox -s tests` itself does before it comes here, from the network.
    assert install == ["python3 -m venv .venv", ".venv/bin/pip install ."]
    (shell.folder / ".venv").symlink_to(sys.prefix)
    done = shell.line(line, patience=1500)
    assert done.returncode == 0, done.stdout


@pytest.mark.zookeeper
@pytest.mark.timeout(600)
def test_the_lines_about_zookeeper_say_where_it_is_and_who_may_do_what(
    shell: Shell, zookeeper_server: Any
) -> None:
    hosts = zookeeper_server.url.removeprefix("zk://")
    plain, roles = (
        line.replace("h1,h2,h3", f"{hosts}/{uuid.uuid4().hex}")
        for line in sh("The registry on ZooKeeper")
    )
    done = shell.line(f"{plain}\nfan config set shop/theme dark -q && fan config get shop/theme")
    assert done.stdout.splitlines()[-1] == "dark", done

    for user in ("ops:0ps", "svc:s3cret"):
        name = user.partition(":")[0]
        assert f"{name}:HASH" in roles
        roles = roles.replace(f"{name}:HASH", f"{name}:{hash_of(user)}")
    instance = f"export {roles}"
    operator = instance.replace("svc:s3cret@", "ops:0ps@")
    reader = instance.replace("svc:s3cret@", "")
    done = shell.line(f"{operator}\nfan config set shop/theme dark")
    assert done.returncode == 0, done
    (shell.folder / "shop.py").write_text(next(
        block.text for block in blocks(README.read_text()) if block.info == "python shop.py"
    ))  # fmt: skip
    shell.env["FAN_REGISTRY"] = instance.partition("=")[2].strip("'")
    shell.run(Shown("fan serve shop:Shop", ["...has no route...", "serving shop ...", "ready"], 0))
    for line in (instance, reader):
        done = shell.line(f"{line}\nfan config set shop/theme light")
        assert done.returncode == 4, done
        assert "permission_denied" in done.stdout
        assert shell.line(f"{line}\nfan config get shop/theme").stdout == "dark\n"
    assert shell.line(f"{reader}\nfan discover list --format name").stdout == "shop\n"


def hash_of(user: str) -> str:
    """ZooKeeper's hash of `USER:PASSWORD`, by the README's own line where openssl is."""
    hashed = base64.b64encode(hashlib.sha1(user.encode()).digest()).decode()
    if shutil.which("openssl"):
        text = section("The registry on ZooKeeper")
        line = re.search(r"`(printf [^`]+USER:PASSWORD[^`]+)`", text)
        assert line
        line_of_user = line[1].replace("USER:PASSWORD", user)
        assert subprocess.check_output(line_of_user, shell=True, text=True).strip() == hashed
    return hashed


@pytest.mark.parametrize("value", [Request, Response], ids=lambda value: value.__name__)
def test_the_envelope_names_every_field(value: type) -> None:
    text = section("The envelope")
    missing = [name for name in value.__struct_fields__ if f"`{name}`" not in text]
    assert missing == []


def test_the_table_of_transports_says_what_each_can() -> None:
    _, head, rest = section("Queues").partition("| transport |")
    table = (head + rest).partition("\n<!--")[0].splitlines()
    columns, _, *rows = ([cell.strip() for cell in row.strip("|").split("|")] for row in table)
    said = {row[0].strip("`"): dict(zip(columns[1:], row[1:], strict=True)) for row in rows}
    assert list(said) == list(fan.plugins.TRANSPORTS)
    for name, abilities in said.items():
        cls = fan.plugins.transport_class(name)
        assert (abilities.pop("broker") == "yes") is cls.is_shared
        assert {each for each, word in abilities.items() if word == "yes"} == cls.can


def test_every_code_and_reason_is_explained() -> None:
    text = section("Errors")
    missing = [name for name in [*CLASSES, *EXECUTED_BY_REASON] if f"`{name}`" not in text]
    assert missing == []


def test_the_first_lines_are_the_ones_that_ci_runs() -> None:
    lines = [line for line in README.read_text().splitlines() if "nox -s tests" in line]
    assert lines[0] == (
        "python3 -m venv .venv && .venv/bin/pip install nox"
        " && FAN_TEST_INSTALL=1 .venv/bin/nox -s tests"
    )


def test_every_session_is_named() -> None:
    source = README.with_name("noxfile.py").read_text()
    text = section("Development")
    sessions = re.findall(r"@nox\.session.*\ndef (\w+)", source)
    assert sessions
    assert [name for name in sessions if f"`{name}`" not in text] == []


def test_every_public_name_is_in_the_reference_of_names() -> None:
    text = section("The library's names")
    assert [name for name in fan.__all__ if f"`{name}`" not in text] == []
