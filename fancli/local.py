"""`-p local:MODULE[:CLASS]`: the service is hosted in this very process, for the length of a
call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fancli.params import Usage

if TYPE_CHECKING:
    from fan import App
    from fancli.options import Common


def host(place: str, common: Common) -> App:
    """An App that hosts the services of `package.module[:Class]`, started, with a registry of its
    own. The current folder counts as installed. Raises Usage for what cannot be found."""
    from fan import App, InvalidArgument, load_services, load_settings

    try:
        services = load_services([place])
    except InvalidArgument as exc:
        raise Usage(f"-p local:{place}: {exc}") from exc
    timeout = common.load().settings.timeout
    own = load_settings({"registry": "memory:", "timeout": timeout}, env=common.env.vars).settings
    app = App(*services, settings=own, live=False, name="fan")
    try:
        app.start(())
    except BaseException:
        app.close()
        raise
    return app
