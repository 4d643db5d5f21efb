"""The tests' own isolation holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_no_test_sees_the_users_home_or_settings(private: Path) -> None:
    assert Path.home() == private / "home"
    assert os.environ["XDG_DATA_HOME"].startswith(str(private))
    assert not [name for name in os.environ if name.startswith("FAN_")]


def test_a_registry_is_private_and_exported(registry_url: str, private: Path) -> None:
    assert registry_url == f"sqlite:{private}/registry.db"
    assert os.environ["FAN_REGISTRY"] == registry_url


def test_an_orphan_is_found(request: pytest.FixtureRequest) -> None:
    conftest = request.config.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))
    assert conftest is not None
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        parent.wait()  # the grandchild goes on, waiting for its input
        orphans = conftest.descendants()
        assert any("input()" in command for command in orphans.values())
