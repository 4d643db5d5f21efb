"""`fan serve`: what is served, and when it is ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fan import App
from tests.cli.test_serve.conftest import GREETER, GREETER2, instances

pytestmark = pytest.mark.usefixtures("registry_url")


def test_a_service_of_the_current_folder_is_found_without_installing_it(
    folder: Path, start_fan: Any, app: App
) -> None:
    served = start_fan("serve", "greeter", cwd=folder)
    line = served.wait_for("serving greeter 1.0.0 as greeter-")
    assert "unix:///" in line
    served.wait_for("ready")
    assert app.call("greeter.hello", name="Ada") == "Hello Ada"
    assert served.stdout == []


def test_verbose_logs_every_request(folder: Path, start_fan: Any, app: App) -> None:
    served = start_fan("serve", "-v", "greeter", cwd=folder)
    served.wait_for("ready")
    app.call("greeter.hello", name="Ada")
    assert "greeter.hello ok" in served.wait_for("fan.access")


def test_a_file_may_be_named_by_its_path(folder: Path, start_fan: Any, app: App) -> None:
    start_fan("serve", "project/greeter.py:Greeter", cwd=folder.parent).wait_for("ready")
    assert app.call("greeter.hello") == "Hello World"


def test_every_transport_that_is_named_is_served(folder: Path, start_fan: Any, app: App) -> None:
    args = ("--transport", "ipc", "--transport", "http=127.0.0.1:0")
    start_fan("serve", "greeter", *args, cwd=folder).wait_for("ready")
    (instance,) = instances(app)
    assert [address.scheme for address in instance.addresses] == ["unix", "http"]
    for transport in ("ipc", "http"):
        assert app.using(transport=transport).call("greeter.hello") == "Hello World"


def test_several_versions_share_a_process_and_the_first_argument_gets_the_route(
    folder: Path, start_fan: Any, app: App
) -> None:
    (folder / "greeter.py").write_text(GREETER + GREETER2)
    args = ("greeter:Greeter2", "greeter:Greeter", "--id", "two", "--id", "one")
    served = start_fan("serve", *args, cwd=folder)
    served.wait_for("serving greeter 2.0.0 as two")
    served.wait_for("serving greeter 1.0.0 as one")
    served.wait_for("ready")
    assert app.call("greeter.hello") == "Hi World"
    assert app.call("greeter.hello@1") == "Hello World"
    assert {(i.id, i.pid) for i in instances(app)} == {("one", served.pid), ("two", served.pid)}


def test_without_a_class_every_service_of_the_module_is_served(
    folder: Path, start_fan: Any, app: App
) -> None:
    (folder / "greeter.py").write_text(GREETER + GREETER2)
    start_fan("serve", "greeter", cwd=folder).wait_for("ready")
    assert {i.version for i in instances(app)} == {"1.0.0", "2.0.0"}
    assert app.call("greeter.hello") == "Hello World"


def test_adopt_moves_the_route(folder: Path, start_fan: Any, app: App) -> None:
    start_fan("serve", "greeter", cwd=folder).wait_for("ready")
    (folder / "newer.py").write_text(GREETER + GREETER2)
    start_fan("serve", "newer:Greeter2", cwd=folder).wait_for("ready")
    assert app.discovery.service("greeter").route.versions == {"1.0.0": 10_000}  # type: ignore[union-attr]
    start_fan("serve", "newer:Greeter2", "--adopt", cwd=folder).wait_for("ready")
    with App(settings=app.settings) as fresh:
        assert fresh.call("greeter.hello") == "Hi World"


def test_json_prints_one_object_for_each_service(folder: Path, start_fan: Any, app: App) -> None:
    served = start_fan("serve", "greeter", "--json", "--id", "greeter-a", cwd=folder)
    row = msgspec.json.decode(served.wait_for("{", "stdout"))
    (instance,) = instances(app)
    assert row == {
        "v": 1,
        "ok": True,
        "service": "greeter",
        "version": "1.0.0",
        "instance": "greeter-a",
        "addresses": [address.url for address in instance.addresses],
    }


def test_a_service_that_waits_says_for_what_and_is_ready_later(
    start_fan: Any, registry_url: str, tmp_path: Path
) -> None:
    (tmp_path / "needy.py").write_text(
        "from fan import Service, rpc\n\n\n"
        "class Shop(Service):\n"
        '    name, version = "shop", "1.0.0"\n'
        '    depend = {"hard": {"users": ">=1.2"}}\n\n\n'
        "class Users(Service):\n"
        '    name, version = "users", "1.3.0"\n'
    )
    shop = start_fan("serve", "needy:Shop", cwd=tmp_path)
    shop.wait_for("shop waits for users>=1.2 (have none)")
    shop.wait_for("waiting: shop")
    users = start_fan("serve", "needy:Users", cwd=tmp_path)
    users.wait_for("ready")
    shop.wait_for("ready")


def test_a_service_that_waited_and_cannot_start_ends_it_as_any_other(
    start_fan: Any, registry_url: str, tmp_path: Path
) -> None:
    (tmp_path / "needy.py").write_text(
        "from fan import Service, rpc\n\n\n"
        "class Shop(Service):\n"
        '    name, version = "shop", "1.0.0"\n'
        '    depend = {"hard": ["users"]}\n\n'
        "    def service_start(self):\n"
        "        raise OSError('no disk')\n\n\n"
        "class Users(Service):\n"
        '    name, version = "users", "1.3.0"\n'
    )
    shop = start_fan("serve", "needy:Shop", cwd=tmp_path)
    shop.wait_for("waiting: shop")
    start_fan("serve", "needy:Users", cwd=tmp_path).wait_for("ready")
    assert shop.wait() == 5
    said = "".join(shop.stderr)
    assert "fan: unknown: shop 1.0.0 could not start: OSError: no disk" in said
    assert "ready" not in said
    assert "Traceback" not in said
