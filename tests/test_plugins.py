"""Plugins: the tables, entry points of others, and what happens when one is broken."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fan import plugins
from fan.errors import InvalidArgument, Unimplemented
from fan.middleware.base import Middleware
from fan.plugins import PluginWarning, default_middleware, listing, open_store, transport_class
from fan.settings import Settings

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution `fan-carrier` that brings transports, one of them broken, and a store."""
    (tmp_path / "fan_carrier.py").write_text(
        "class Pigeon:\n    scheme = 'pigeon'\n"
        "class Shelf:\n"
        "    def __init__(self, place, namespace):\n        self.at = (place, namespace)\n"
    )
    info = tmp_path / "fan_carrier-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fan-carrier\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[fan.transports]\npigeon = fan_carrier:Pigeon\nsnail = fan_snail:Snail\n"
        "http = fan_carrier:Pigeon\n"
        "[fan.stores]\nshelf = fan_carrier:Shelf\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_the_tables_and_the_packages_entry_points_agree() -> None:
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]
    assert declared["fan.transports"] == plugins.TRANSPORTS
    assert declared["fan.stores"] == plugins.STORES


@pytest.mark.parametrize("scheme", ["ipc", "unix", "http", "https", "local"])
def test_a_scheme_leads_to_its_transport(scheme: str) -> None:
    assert transport_class(scheme).scheme == plugins.transport_name(scheme)


def test_a_transport_from_elsewhere_is_found_by_name(installed: None) -> None:
    assert transport_class("pigeon").scheme == "pigeon"
    assert {"pigeon", "ipc"} <= set(plugins.transport_names())


def test_a_store_from_elsewhere_gets_its_place_and_the_namespace(installed: None) -> None:
    assert open_store("shelf:top", "dev").at == ("top", "dev")  # type: ignore[attr-defined]


def test_an_unknown_transport_is_refused_with_what_is_close() -> None:
    with pytest.raises(InvalidArgument, match="did you mean 'http'") as caught:
        transport_class("htpt")
    assert caught.value.reason == "unknown_scheme"


def test_an_unknown_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no store for the registry 'mysql:x'") as caught:
        open_store("mysql:x", "default")
    assert caught.value.reason == "unknown_scheme"


def test_an_incomplete_registry_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="names no file"):
        open_store("sqlite:", "default")


def test_a_broken_transport_warns_by_name(installed: None) -> None:
    with (
        pytest.warns(PluginWarning, match="'snail' of fan-carrier cannot be loaded"),
        pytest.raises(Unimplemented, match="No module named 'fan_snail'") as caught,
    ):
        transport_class("snail")
    assert caught.value.reason == "broken_plugin"


def test_a_broken_transport_does_not_hide_the_others(installed: None) -> None:
    rows = {(row.kind, row.name, row.target): row for row in listing()}
    snail = rows["transport", "snail", "fan_snail:Snail"]
    assert (snail.is_ok, snail.origin) == (False, "fan-carrier")
    assert "fan_snail" in snail.error
    assert rows["transport", "pigeon", "fan_carrier:Pigeon"].is_ok
    assert rows["store", "shelf", "fan_carrier:Shelf"].is_ok


def test_a_built_in_name_cannot_be_taken_over(installed: None) -> None:
    taken = next(row for row in listing() if row.name == "http" and row.origin == "fan-carrier")
    assert taken.error == f"the name is taken by {plugins.TRANSPORTS['http']}"
    assert transport_class("http").__module__ == "fan.transports.http"


def test_every_built_in_plugin_can_be_loaded() -> None:
    rows = [row for row in listing() if row.origin == "built-in"]
    assert {row.name for row in rows} == {*plugins.TRANSPORTS, *plugins.STORES, *plugins.TRACERS}
    assert [row for row in rows if not row.is_ok] == []


def names(layers: list[Middleware]) -> list[str]:
    return [type(layer).__name__ for layer in layers]


def test_the_layers_stand_in_the_documented_order() -> None:
    layers = default_middleware(Settings(bulkhead_calls=3))
    for layer in layers:
        layer.close()
    assert names(layers) == [
        "Hops",
        "Deadline",
        "Retry",
        "Breaker",
        "ClientBulkhead",
        "Bulkhead",
        "Dedupe",
        "Logs",
    ]


def test_an_app_for_one_call_has_no_layers_of_a_server() -> None:
    layers = default_middleware(Settings(breaker_failures=0), is_live=False)
    assert names(layers) == ["Hops", "Deadline", "Retry"]


def test_a_built_in_name_needs_no_look_at_installed_distributions() -> None:
    code = (
        "import sys; from fan import plugins; plugins.open_store('memory:', 'default');"
        "plugins.transport_class('ipc'); print('importlib.metadata' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
