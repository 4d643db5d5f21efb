"""fan itself: `WHAT SCHEME URL FOLDER`. The URL is that of the broker, where the scheme has one;
the folder has the registry. `call` calls by name, with `TEXT`; `call-async` does so from tasks;
`record` and `record-async` are the same with `RECORD`; `call-bound` binds once what it calls."""

from __future__ import annotations

import asyncio
import sys

from calling import RECORD, answer_with_tasks, answer_with_threads, wait_for_end

import fan


class Echo(fan.Service):
    """What is called."""

    name = "bench"
    version = "1.0.0"

    @fan.rpc
    def echo(self, text: str) -> str:
        """The text."""
        return text

    @fan.rpc
    def record(
        self, id: int, name: str, tags: list[str], score: float, note: str
    ) -> tuple[int, str, list[str], float, str]:
        """All that it was given."""
        return id, name, tags, score, note


def main(what: str, scheme: str, url: str, folder: str) -> None:
    broker = {} if scheme == "ipc" else {"queue": scheme, f"{scheme}_url": url}
    settings = fan.Settings(
        registry=f"sqlite:{folder}/registry.db", runtime_dir=f"{folder}/run", **broker
    )
    with fan.App(*([Echo()] if what == "serve" else []), settings=settings) as app:
        if what == "serve":
            app.start((scheme,))
            wait_for_end()
            app.stop()
        elif what == "call":
            answer_with_threads(lambda: lambda text: app.call("bench.echo", text))
        elif what == "record":
            answer_with_threads(lambda: lambda of: app.call("bench.record", **of), RECORD)
        elif what == "call-bound":
            answer_with_threads(lambda: app.bind("bench.echo"))
        elif what == "record-async":
            asyncio.run(answer_with_tasks(lambda of: app.acall("bench.record", **of), RECORD))
        else:
            asyncio.run(answer_with_tasks(lambda text: app.acall("bench.echo", text)))


if __name__ == "__main__":
    main(*sys.argv[1:])
