"""The README is true: its commands print what it shows, its Python runs, its tables are whole.

In a block marked `console` each line that begins with `$ ` is run, in order, in one folder with a
private registry, and what stands below it is what it prints; `...` stands for anything on a line,
and alone for any lines. `fan serve` and `fan demo` are left running once they have printed what is
shown, and end with the test. A block marked `python NAME` is written to that file, one marked
`python` is run.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import fan
from fan.errors import CLASSES, EXECUTED_BY_REASON
from fan.message import Request, Response

README = Path(__file__).parent.parent / "README.md"
#: A bound on hangs, in seconds; everything here takes a fraction of one.
PATIENCE = 30.0


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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


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
        self.env = {
            **os.environ,
            "PATH": os.pathsep.join([bin_folder, os.environ["PATH"]]),
            "COLUMNS": "100",
        }
        self.serving: list[subprocess.Popen[str]] = []

    def run(self, step: Shown) -> None:
        where = f"README.md:{step.line}: $ {step.command}"
        if step.command.startswith("curl") and shutil.which("curl") is None:
            return  # not everybody has it; the tests of the http transport speak plain HTTP too
        if re.match(r"fan (serve|demo(?! --tour))\b", step.command):
            self.serve(step, where)
            return
        done = subprocess.run(
            step.command, shell=True, executable=shutil.which("bash"), cwd=self.folder,
            env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        printed = done.stdout if done.stdout.endswith("\n") else f"{done.stdout}\n"
        assert pattern(step.output).fullmatch(printed), f"{where}\nprinted:\n{printed}"

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


@pytest.mark.timeout(400)
def test_its_commands_print_what_it_shows(shell: Shell) -> None:
    ran = 0
    # The text says 8080, which somebody else may hold.
    text = README.read_text().replace("8080", str(free_port()))
    for block in blocks(text):
        info = block.info.split()
        if info[0] == "python" and len(info) == 2:
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
