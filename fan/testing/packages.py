"""Installs what a test run needs from Debian's packages, without starting any service."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

#: Product -> the packages that bring it.
PACKAGES: dict[str, tuple[str, ...]] = {
    "redis": ("redis-server",),
    "rabbitmq": ("rabbitmq-server",),
    "zookeeper": ("zookeeper", "default-jre-headless"),
    "zsh": ("zsh",),
    "fish": ("fish",),
}
#: Seconds for one run of apt-get; another one's lock is waited for within it.
_TIMEOUT = 900
#: What Debian's scripts ask before they start a service: exit 101 forbids it.
POLICY = "/usr/sbin/policy-rc.d"


def can_install() -> str:
    """Why packages cannot be installed here, as a sentence; empty when they can."""
    if shutil.which("apt-get") is None:
        return "FAN_TEST_INSTALL=1 installs on Debian and Ubuntu, and there is no apt-get here"
    if os.geteuid() != 0:
        return "FAN_TEST_INSTALL=1 installs as root alone"
    return ""


def install(products: Sequence[str], policy: str = POLICY) -> str:
    """Install the packages of `products`. What went wrong, as a text; empty when nothing did.
    `policy` is the file that Debian's scripts ask before they start a service."""
    if problem := can_install():
        return problem
    with _alone():
        return _install(products, policy)


def _install(products: Sequence[str], policy: str) -> str:
    packages = [package for product in products for package in PACKAGES[product]]
    command = ["install", "-y", "--no-install-recommends", *packages]
    with services_not_started(policy):
        said = _apt_get(*command)
        if said:  # a list of packages that is missing, or too old
            said = _apt_get("update") or _apt_get(*command)
    return said


def _apt_get(*args: str) -> str:
    """Run it; the end of what it said when it failed."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    wait = ("-o", f"DPkg::Lock::Timeout={_TIMEOUT // 2}", "-o", "Acquire::Retries=3")
    try:
        done = subprocess.run(
            ["apt-get", *wait, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"apt-get {args[0]}: {exc}"
    if done.returncode == 0:
        return ""
    lines = "\n".join(done.stdout.splitlines()[-10:])
    return f"apt-get {args[0]} ended with {done.returncode}:\n{lines}"


@contextmanager
def _alone() -> Iterator[None]:
    """One process of a run at a time: two would take each other's locks and policies."""
    with open(os.path.join(tempfile.gettempdir(), "fan-packages.lock"), "a") as file:
        until = time.monotonic() + 2 * _TIMEOUT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
        yield


@contextmanager
def services_not_started(policy: str) -> Iterator[None]:
    """A package's own service is not started, where the machine does not forbid it already."""
    if os.path.exists(policy):
        yield
        return
    with open(policy, "w", encoding="ascii") as file:
        # It forbids as long as we live, so that it does no harm if it stays behind.
        file.write(f"#!/bin/sh\n[ -d /proc/{os.getpid()} ] && exit 101\nexit 0\n")
    os.chmod(policy, 0o755)
    try:
        yield
    finally:
        os.unlink(policy)
