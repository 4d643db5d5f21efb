"""The sessions of the project: `nox` runs tests, lint, types, docs and completions.

The tests run against the installed package, never against the source tree, so that what is missing
from the package is missing from the tests too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.options.sessions = ["tests", "lint", "types", "docs", "completions"]
nox.options.error_on_external_run = True

ROOT = Path(__file__).parent
OLDEST = (3, 11)

#: Variables of the caller's that would change what is tested or measured.
CLEAN = {"PYTHONDONTWRITEBYTECODE": None, "PYTHONPATH": None, "PYTHONSTARTUP": None}

#: Variables that say which servers the tests use, and what to do without: fan.testing.servers.
SERVERS = (
    "CI", "FAN_TEST_INSTALL", "FAN_TEST_AMQP_URL", "FAN_TEST_REDIS_URL", "FAN_TEST_ZK_HOSTS",
)  # fmt: skip


def install(session: nox.Session, *extras: str) -> None:
    """Install the package as a user would, with the named extras."""
    session.install(f".[{','.join(extras)}]" if extras else ".")


def run_tests(session: nox.Session) -> None:
    """The whole suite against the installed package; arguments after `--` go to pytest."""
    install(session, "test")
    wanted = {name: os.environ[name] for name in SERVERS if name in os.environ}
    # Two at a time, whole classes and files: most tests wait for processes that they start.
    at_once = ("-n", "2", "--dist", "loadscope")
    session.run("pytest", *at_once, *session.posargs, env={**CLEAN, **wanted})


def interpreters() -> dict[str, str]:
    """Every CPython of `OLDEST` or newer on this machine: "3.11" -> one path, oldest first.

    Looks in PATH for python3.N, and beside it where version managers keep theirs."""
    names = [f"python3.{minor}" for minor in range(OLDEST[1], OLDEST[1] + 10)]
    managed = [
        Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions"),
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python"),
        Path.home() / ".local/share/mise/installs/python",
        Path.home() / ".asdf/installs/python",
    ]
    candidates = [found for name in names if (found := shutil.which(name))]
    candidates += [str(path) for root in managed for path in sorted(root.glob("*/bin/python3"))]
    candidates.append(sys.executable)
    found: dict[tuple[int, int], str] = {}
    ask = "import sys; print(*sys.version_info[:2], sys.implementation.name, sys.version_info[3])"
    for candidate in candidates:
        try:
            answer = subprocess.run(
                [candidate, "-I", "-c", ask],
                capture_output=True, text=True, timeout=30, check=True, stdin=subprocess.DEVNULL,
            ).stdout.split()
        except (OSError, subprocess.SubprocessError):  # a shim of a version that is not installed
            continue
        version = (int(answer[0]), int(answer[1]))
        if version >= OLDEST and answer[2:] == ["cpython", "final"]:
            found.setdefault(version, candidate)
    return {f"{version[0]}.{version[1]}": found[version] for version in sorted(found)}


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite on the running Python."""
    run_tests(session)


@nox.session(venv_backend="none")
def matrix(session: nox.Session) -> None:
    """The test suite on every Python from 3.11 on that is found."""
    for version, path in interpreters().items():
        session.log(f"Python {version}: {path}")
        session.run(
            *(sys.executable, "-m", "nox", "-f", str(ROOT / "noxfile.py"), "-s", "tests"),
            *("--force-python", path, "--envdir", str(ROOT / ".nox" / f"matrix-{version}")),
            *("--", *session.posargs),
            external=True,
        )


@nox.session
def lint(session: nox.Session) -> None:
    """ruff's rules, as pyproject.toml selects them."""
    session.install("ruff>=0.6")
    session.run("ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict on both packages; the public contracts need pytest's types."""
    install(session, "test")
    session.install("mypy>=1.11", "types-pyyaml>=6")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The README's generated parts are those of the code; `nox -s docs -- -r` writes them."""
    install(session)
    session.install("cogapp>=3.4")
    session.run("cog", "-I", "tests", *(session.posargs or ["--check", "--diff"]), "README.md")


@nox.session
def completions(session: nox.Session) -> None:
    """The checked-in completion scripts are those of the program; `-- --write` writes them."""
    install(session)
    for shell, name in {"bash": "fan.bash", "zsh": "_fan", "fish": "fan.fish"}.items():
        made = session.run("fan", "completion", shell, env=CLEAN, silent=True, log=False)
        path = ROOT / "completions" / name
        if "--write" in session.posargs:
            path.write_text(made)
        elif made != path.read_text():
            session.error(f"{path} is out of date: nox -s completions -- --write")


@nox.session
def soak(session: nox.Session) -> None:
    """The long runs at full length: about an hour. The tests hold a short form of each."""
    install(session, "test")
    wanted = {name: os.environ[name] for name in SERVERS if name in os.environ}
    environment = {**CLEAN, **wanted, "FAN_TEST_LONG": "1"}
    session.run("pytest", "-m", "soak", *session.posargs, env=environment)


@nox.session
def bench(session: nox.Session) -> None:
    """Every ratio of tests/bench against its base line; names after `--` choose files."""
    install(session, "test")
    session.run("python", "-P", "tests/bench/bench.py", *session.posargs, env=CLEAN)


@nox.session
def build(session: nox.Session) -> None:
    """Source distribution and wheel in dist/, and the wheel installs into an empty environment."""
    session.install("build")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", "dist", ".")
    (wheel,) = (ROOT / "dist").glob("*.whl")
    session.install(str(wheel))
    version = session.run("fan", "--version", silent=True)
    if not re.search(rf"\b{re.escape(wheel.name.split('-')[1])}\b", version):
        session.error(f"{wheel.name} installs as {version!r}")
