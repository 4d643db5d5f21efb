"""The processes that benchmarks measure: the installed program, and a private demo."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


def fan_program() -> str:
    """The `fan` script that is installed beside the running Python."""
    found = shutil.which("fan", path=os.path.dirname(sys.executable))
    if found is None:
        sys.exit("fan is not installed for this Python: nox -s bench")
    return found


def private_environment(folder: str) -> dict[str, str]:
    """The environment of a process that keeps everything in `folder`, a short path."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAN_")}
    os.makedirs(f"{folder}/run", mode=0o700, exist_ok=True)
    return {
        **env,
        "HOME": folder,
        "XDG_CONFIG_HOME": f"{folder}/config",
        "XDG_DATA_HOME": f"{folder}/data",
        "XDG_CACHE_HOME": f"{folder}/cache",
        "XDG_RUNTIME_DIR": f"{folder}/run",
        "FAN_REGISTRY": f"sqlite:{folder}/registry.db",
    }


@contextlib.contextmanager
def demo() -> Iterator[Mapping[str, str]]:
    """`fan demo`, ready, until the block ends; the value is the environment that finds it."""
    with tempfile.TemporaryDirectory(prefix="fan-") as folder:
        env = private_environment(folder)
        process = subprocess.Popen(
            [fan_program(), "demo"], env=env, cwd=folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_ready(process)
            yield {**env, "DEMO_PID": str(process.pid)}
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


def wait_ready(process: subprocess.Popen[str]) -> None:
    """Read what a process says until it is ready."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "ready" in line:
            return
    raise RuntimeError("it ended before it was ready:\n" + "".join(said))


def children_of(pid: int) -> list[int]:
    """Process ids of the children, all levels."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    own = [int(child) for child in path.read_text().split()] if path.exists() else []
    return own + [below for child in own for below in children_of(child)]


def rss_mb(pid: int) -> float:
    """Resident megabytes (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has taken, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
