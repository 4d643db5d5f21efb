"""The peers, each in an environment of its own below one folder: what they need may contradict what
fan needs, and each other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
#: Seconds for one installation.
TIMEOUT = 600
_VERSIONS = """
import sys
from importlib.metadata import version
print(*(f"{name} {version(name)}" for name in sys.argv[1:]), sep=", ")
"""


class Missing(Exception):
    """A peer that cannot be installed here, as a sentence."""


class Peer(NamedTuple):
    """What starts a peer's program, and what runs in it."""

    command: list[str]
    #: `nameko 2.14.1, kombu 5.7.0`.
    versions: str
    variables: Mapping[str, str]


def install_python(folder: str, program: str, *packages: str) -> Peer:
    """A virtual environment with the packages. Raises Missing."""
    where = os.path.join(folder, program.partition("_")[0])
    _run(sys.executable, "-m", "venv", where)
    python = os.path.join(where, "bin", "python")
    _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages)
    names = [package.partition("[")[0] for package in packages]
    versions = _run(python, "-c", _VERSIONS, *names).strip()
    return Peer([python, "-P", str(HERE / program)], versions, {"PYTHONPATH": str(HERE)})


def install_node(folder: str, program: str, *packages: str) -> Peer:
    """A folder with the packages of npm. Raises Missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise Missing("node and npm are not installed")
    where = os.path.join(folder, program.partition("_")[0])
    os.makedirs(where)
    _run(npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", where, *packages)
    modules = os.path.join(where, "node_modules")
    versions = []
    for package in packages:
        with open(os.path.join(modules, package, "package.json"), encoding="utf-8") as file:
            versions.append(f"{package} {json.load(file)['version']}")
    return Peer([node, str(HERE / program)], ", ".join(versions), {"NODE_PATH": modules})


def _run(*command: str) -> str:
    shown: Sequence[str] = [os.path.basename(command[0]), *command[1:]]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Missing(f"{' '.join(shown)}: {exc}") from exc
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Missing(f"{' '.join(shown)}: {' '.join(said)}")
    return done.stdout
