"""nameko over RabbitMQ: one container of 16 workers, and a proxy for each calling thread, which
is how nameko is called from elsewhere."""

from __future__ import annotations

import sys
import warnings

warnings.simplefilter("ignore")  # of eventlet, about itself

if sys.argv[1] == "serve":
    import eventlet

    eventlet.monkey_patch()

from contextlib import ExitStack  # noqa: E402

from calling import answer_with_threads, say  # noqa: E402
from nameko.rpc import rpc  # noqa: E402
from nameko.standalone.rpc import ServiceRpcProxy  # noqa: E402


class Echo:
    """What is called."""

    name = "bench"

    @rpc
    def echo(self, text):
        """The text."""
        return text


def main(what: str, url: str) -> None:
    config = {"AMQP_URI": url, "max_workers": 16}
    if what == "serve":
        from eventlet import tpool
        from nameko.runners import run_services

        with run_services(config, Echo):
            say("ready")
            tpool.execute(sys.stdin.read)  # which would stop all green threads
        return
    with ExitStack() as stack:

        def make():
            """A call over a proxy that no other thread uses."""
            proxy = stack.enter_context(ServiceRpcProxy("bench", config))
            return proxy.echo

        answer_with_threads(make)


if __name__ == "__main__":
    main(*sys.argv[1:])
