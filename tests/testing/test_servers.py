"""The fixtures with real servers, in runs of pytest of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_rabbitmq(rabbitmq_server):
    print("url", rabbitmq_server.url)

@pytest.mark.zookeeper
def test_zookeeper(request):
    print("url", request.getfixturevalue("new_zookeeper")().url)

def test_other():
    pass
"""

PLUGINS = ("-p", "fan.testing.servers", "-p", "no:valkey", "-p", "no:cacheprovider")

Run = Callable[..., str]


@pytest.fixture
def run(private: Path) -> Run:
    """`run(TESTS, CI="true")` runs pytest where neither epmd nor java is in PATH, and returns what
    it printed."""
    (private / "bin").mkdir()

    def pytest_in_a_process(tests: str, **vars: str) -> str:
        (private / "test_it.py").write_text(tests)
        env = {name: value for name, value in os.environ.items() if name != "CI"}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pytest", "-rA", "-W", "error", *PLUGINS,
             "--rootdir", str(private), "-c", "/dev/null", str(private / "test_it.py")],
            cwd=private, env={**env, "PATH": str(private / "bin"), **vars}, check=False,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50,
        )  # fmt: skip
        return done.stdout + done.stderr

    return pytest_in_a_process


def test_a_missing_server_skips_loudly_on_a_laptop(run: Run) -> None:
    said = run(TESTS)
    assert "1 passed, 2 skipped" in said
    assert "= servers and shells that are not installed =" in said
    assert "1 skipped: RabbitMQ is not installed: `apt-get install rabbitmq-server`" in said
    assert "FAN_TEST_INSTALL=1" in said


def test_a_missing_server_fails_in_ci(run: Run) -> None:
    said = run(TESTS, CI="true")
    assert "1 failed, 1 passed, 1 error" in said
    assert "ZooKeeper is not installed: `apt-get install zookeeper default-jre-headless`" in said


SHELL = """
import pytest
from fan.testing.servers import require

@pytest.mark.fish
def test_fish(request):
    require(request.config, "fish")
"""


def test_a_missing_shell_skips_loudly_and_fails_in_ci(run: Run) -> None:
    said = run(SHELL)
    assert "1 skipped: fish is not installed: apt-get install fish" in said
    assert "1 failed" in run(SHELL, CI="true")


def test_a_server_that_is_named_is_used(run: Run) -> None:
    given = {"FAN_TEST_AMQP_URL": "amqp://a.b:1/", "FAN_TEST_ZK_HOSTS": "a.b:2,a.b:3"}
    tests = TESTS.replace('"new_zookeeper")()', '"zookeeper_server")')
    said = run(tests, CI="true", **given)
    assert "3 passed" in said
    assert "url amqp://a.b:1/" in said
    assert "url zk://a.b:2,a.b:3" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="installing is for root")
def test_what_the_chosen_tests_need_is_installed_before_the_first(run: Run, private: Path) -> None:
    asked = private / "asked"
    (private / "bin" / "apt-get").write_text(f'#!/bin/sh\necho "$@" >>{asked}\nexit 100\n')
    (private / "bin" / "apt-get").chmod(0o755)
    said = run(TESTS, FAN_TEST_INSTALL="1", CI="true")
    assert "installing rabbitmq, zookeeper" in said
    assert "rabbitmq-server zookeeper default-jre-headless" in asked.read_text()
    assert "apt-get update ended with 100" in said
    asked.unlink()
    run("def test_other(): pass", FAN_TEST_INSTALL="1")
    assert not asked.exists(), "nothing is installed that no test asks for"


@pytest.mark.redis
def test_the_server_of_the_run_ends_with_it(run: Run, redis_server: object) -> None:
    tests = """
def test_redis(redis_server, new_redis):
    print("pid", redis_server.pid)
    print("pid", new_redis().pid)
"""
    said = run(tests, PATH=os.environ["PATH"])
    pids = re.findall(r"^pid (\d+)$", said, re.MULTILINE)
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}/cwd").exists() for pid in pids)
