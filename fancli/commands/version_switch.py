"""`fan version switch`: other versions and configs of any number of services, in one generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from fancli.complete import complete_switch
from fancli.configs import value_of
from fancli.confirming import basis_points, confirming, force, min_healthy, shares_of
from fancli.group import command
from fancli.options import Common, common
from fancli.params import Usage, parse_json, read_bytes
from fancli.switching import opened, report
from fancli.writes import Writing, writing

if TYPE_CHECKING:
    from fan import Confirm

#: What a plan may hold.
_MEMBERS = ("services", "configs", "weights", "sticky")


class Asked(msgspec.Struct):
    """What is to be switched."""

    services: dict[str, str] = {}
    #: Values as they are, and texts that take the type of their schema.
    configs: dict[str, Any] = {}
    texts: dict[str, str] = {}
    weights: dict[str, int] = {}
    sticky: str = ""


@command(
    "switch",
    short_help="Send calls to other versions.",
    examples=(
        "fan version switch shop=2 stock=1.4 --config shop/theme=dark -m 'new shop'",
        "fan version switch shop=2 --weight 2=5% --sticky header:x-user",
        "fan version switch shop=2 --prepare --confirm all --auto-rollback",
        "fan version switch shop.search=2.1.0",
        "fan version switch shop=store@3",
        "fan version switch -f plan.json --dry-run",
    ),
)
@click.argument(
    "services", metavar="[SVC=V...]", nargs=-1, shell_complete=complete_switch
)
@click.option("--config", "configs", metavar="K=V", multiple=True, help="A config's new value.")
@click.option(
    "-f", "--file", "file", metavar="PLAN", help="A plan: JSON, or TOML in NAME.toml; - is stdin."
)
@click.option(
    "--weight", "weights", metavar="V=5%", multiple=True, help="The share of a version. [100%]"
)
@click.option(
    "--sticky",
    metavar="WHAT",
    default="",
    help="What calls stick to a version by: header:NAME, baggage:KEY, principal, trace.",
)
@min_healthy
@force
@common
@writing
@confirming
def switch(
    common: Common,
    *,
    writing: Writing,
    confirm: Confirm,
    services: tuple[str, ...],
    configs: tuple[str, ...],
    file: str | None,
    weights: tuple[str, ...],
    sticky: str,
    min_healthy: int,
    force: bool,
) -> int:
    """Send the calls of services to other versions, and give configs values: one generation, all of
    it or nothing. It is undone by `fan version rollback`.

    SVC=V is an exact version, or a prefix that stands for its highest live match. SVC.METHOD=V
    sends one method elsewhere, and SVC.METHOD= back. SVC=OTHER@V has another service answer. With
    --weight V gets a share, and the versions routed now keep the rest. A PLAN is an object with the
    members services, configs, weights and sticky.
    """
    asked = _plan(common, file) if file is not None else Asked()
    asked.services |= _pairs(services, "SVC=V", "shop=2.0.0")
    asked.texts = _pairs(configs, "K=V", "shop/theme=dark")
    asked.weights |= shares_of(weights, "--weight")
    asked.sticky = sticky or asked.sticky
    if not (asked.services or asked.configs or asked.texts):
        raise Usage("a service and its version are needed", "fan version switch shop=2.0.0")
    with opened(common, next(iter(asked.services), "")) as (versions, deadline):
        done = versions.switch(
            asked.services,
            configs={**asked.configs, **_typed(common, asked.texts, deadline)},
            weights=asked.weights,
            sticky=asked.sticky,
            min_healthy=min_healthy,
            force=force,
            how=writing.how,
            confirm=confirm,
            deadline=deadline,
        )
        return report(common, writing, done)


def _pairs(given: tuple[str, ...], form: str, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Usage(f"{text!r} is not {form}", f"as in {example}")
        if name in found:
            raise Usage(f"{name} is named twice")
        found[name] = value
    return found


def _typed(common: Common, texts: dict[str, str], deadline: float) -> dict[str, Any]:
    """The values of configs, each of the type of its schema."""
    if not texts:
        return {}
    from fan import Configs, InvalidArgument, plugins

    settings = common.load().settings
    with plugins.open_store(settings.registry_url, settings.namespace, settings) as store:
        config = Configs(lambda: store, live=False, timeout=settings.timeout)

        def value(key: str, text: str) -> Any:
            schema = config.schema(key, deadline=deadline)

            def fits(found: Any) -> bool:
                try:
                    config.check(key, found, schema)
                except InvalidArgument:
                    return False
                return True

            return value_of(text, None, schema, fits, common.env)

        return {key: value(key, text) for key, text in texts.items()}


def _plan(common: Common, path: str) -> Asked:
    """The plan in a file. Raises Usage."""
    data = read_bytes(path, "-f", common.env)
    found = _toml(data) if path.endswith(".toml") else parse_json(data, "-f")
    if not isinstance(found, dict):
        raise Usage("-f: a plan is an object", '{"services": {"shop": "2"}}')
    if unknown := found.keys() - set(_MEMBERS):
        raise Usage(f"-f: a plan has no {min(unknown)!r}", f"its members: {', '.join(_MEMBERS)}")
    for name in _MEMBERS[:3]:
        if not isinstance(found.get(name, {}), dict):
            raise Usage(f"-f: {name} is an object")
    services = found.get("services", {})
    sticky = found.get("sticky", "")
    if not all(isinstance(text, str) for text in (*services.values(), sticky)):
        raise Usage("-f: versions and sticky are strings", '{"services": {"shop": "2"}}')
    weights = {
        version: basis_points(str(share), f"-f: weight {version}")
        for version, share in found.get("weights", {}).items()
    }
    return Asked(
        services=services, configs=found.get("configs", {}), weights=weights, sticky=sticky
    )


def _toml(data: bytes) -> Any:
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise Usage(f"-f: no TOML: {exc}") from None
