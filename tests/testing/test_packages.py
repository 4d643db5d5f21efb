"""The installer of the tests' servers, on an apt-get that writes down what it is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fan.testing.packages import can_install, install

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="installing is for root")

#: Notes its arguments and what a package's script would be told, then does as `after` says.
APT_GET = """#!/bin/sh
for last; do :; done
echo "$@" | sed 's/^.* \\(install\\|update\\)/\\1/' >>{folder}/asked
echo "$DEBIAN_FRONTEND" >>{folder}/asked
{folder}/policy >/dev/null; echo "policy $?" >>{folder}/asked
echo "E: said $1"
{after}
"""

Apt = Callable[[str], None]


@pytest.fixture
def apt_get(private: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    """Put an apt-get into PATH, the rest of which stays."""
    monkeypatch.setenv("PATH", f"{private}:{os.environ['PATH']}")

    def write(after: str) -> None:
        path = private / "apt-get"
        path.write_text(APT_GET.format(folder=private, after=after))
        path.chmod(0o755)

    return write


@needs_root
def test_it_installs_the_packages_and_lets_no_service_start(private: Path, apt_get: Apt) -> None:
    apt_get("exit 0")
    policy = private / "policy"
    assert install(["rabbitmq", "zookeeper"], str(policy)) == ""
    assert (private / "asked").read_text().splitlines() == [
        "install -y --no-install-recommends rabbitmq-server zookeeper default-jre-headless",
        "noninteractive",
        "policy 101",
    ]
    assert not policy.exists()


@needs_root
def test_it_updates_the_lists_where_the_packages_are_not_found(
    private: Path, apt_get: Apt
) -> None:
    apt_get(f'[ -e {private}/updated ] && exit 0; [ "$last" = update ] || exit 100;'
            f" touch {private}/updated")  # fmt: skip
    assert install(["redis"], str(private / "policy")) == ""
    asked = [line.split()[0] for line in (private / "asked").read_text().splitlines()[::3]]
    assert asked == ["install", "update", "install"]


@needs_root
def test_it_says_what_apt_get_said_when_it_fails(private: Path, apt_get: Apt) -> None:
    apt_get("exit 100")
    said = install(["redis"], str(private / "policy"))
    assert "ended with 100" in said
    assert "E: said" in said
    assert not (private / "policy").exists()


@needs_root
def test_it_leaves_a_policy_that_is_there_alone(private: Path, apt_get: Apt) -> None:
    apt_get("exit 0")
    policy = private / "policy"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    assert install(["redis"], str(policy)) == ""
    assert policy.read_text() == "#!/bin/sh\nexit 101\n"


def test_a_policy_that_stays_behind_forbids_nothing(private: Path) -> None:
    code = (
        "import os, sys; from fan.testing import packages;"
        f"context = packages.services_not_started({str(private / 'policy')!r});"
        "context.__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=50)
    assert subprocess.run([str(private / "policy")], check=False, timeout=50).returncode == 0


def test_without_apt_get_it_says_so(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(private))
    assert "apt-get" in can_install()
    assert install(["redis"]) == can_install()
