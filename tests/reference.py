"""The README's generated parts, for cog: `nox -s docs` checks them, with `-- -r` it writes them."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def commands() -> str:
    """Every command with its help, in the order of the help."""
    return "\n".join(
        f"### `{' '.join(['fan', *path])}`\n\n```text\n{help_of(path)}```\n" for path in walk(())
    )


def walk(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    for name in subcommands(help_of(path)):
        yield from walk((*path, name))


def subcommands(text: str) -> list[str]:
    """The names under the heading `Commands` of a help text."""
    lines = text.partition("\nCommands:\n")[2].splitlines()
    names = []
    for line in lines:
        if not line.startswith("  "):
            break
        if line[2] != " ":
            names.append(line.split()[0])
    return names


def help_of(path: tuple[str, ...]) -> str:
    """What `fan ... --help` prints on a terminal of 80 columns."""
    env = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-P", "-m", "fancli", *path, "--help"],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def exits() -> str:
    """The exit codes."""
    from fancli.exits import MEANINGS

    rows = [f"| {code.value} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(["| exit | when |", "|---|---|", *rows]) + "\n"


def codes() -> str:
    """The error codes, with the first line of each class's docstring."""
    from fan.errors import CLASSES

    rows = [
        f"| `{code}` | `{cls.__name__}` | {cls.http_status} | {cls.default_executed} |"
        f" {first_line(cls.__doc__)} |"
        for code, cls in CLASSES.items()
    ]
    head = ["| code | class | HTTP | executed | when |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def settings() -> str:
    """The settings: name, variable, default and the comment above each in the code."""
    from fan.settings import Settings

    # These two are different for each user.
    own = {
        "registry": "sqlite:~/.local/share/fan/registry.db",
        "runtime_dir": "$XDG_RUNTIME_DIR/fan",
    }
    rows = []
    for name, comment in comments("fan.settings", "Settings").items():
        default = own.get(name, getattr(Settings(), name))
        shown = ", ".join(default) if isinstance(default, tuple) else str(default)
        code = f"`{shown}`" if shown else ""
        rows.append(f"| `{name}` | `FAN_{name.upper()}` | {code} | {comment} |")
    return "\n".join(["| setting | variable | default | |", "|---|---|---|---|", *rows]) + "\n"


#: The columns of the table of transports: what `Transport.can` may hold.
ABILITIES = ("call", "push", "stream", "subscribe", "cancel", "serve", "queue", "ledger")


def abilities() -> str:
    """What each built-in transport can do."""
    from fan import plugins

    columns = (*ABILITIES, "broker")
    rows = []
    for name in plugins.TRANSPORTS:
        cls = plugins.transport_class(name)
        can = {*cls.can, *(["broker"] if cls.is_shared else [])}
        cells = [f"`{name}`", *("yes" if each in can else "" for each in columns)]
        rows.append(f"| {' | '.join(cells)} |")
    head = [f"| transport | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join([*head, *rows]) + "\n"


def names() -> str:
    """The public names, with the first line of each one's docstring."""
    import fan

    rows = []
    for name in fan.__all__:
        value = getattr(fan, name)
        text = first_line(value.__doc__) if not isinstance(value, str) else "the version"
        rows.append(f"| `{name}` | {text.partition('. ')[0].rstrip('.:')} |")
    return "\n".join(["| name | |", "|---|---|", *rows]) + "\n"


def benchmarks() -> str:
    """The rows of the last run of the benchmarks."""
    kept = json.loads(Path(__file__).with_name("bench").joinpath("results.json").read_text())
    machine = kept["machine"]
    rows = [
        f"| {row['name'].replace(' : ', ' against ')} | {row['ours']:.4g} {row['unit']} |"
        f" {row['base']:.4g} {row['unit']} | {row['ratio']:.3g} | {wanted(row['target'])} |"
        f" {'yes' if row['ok'] else '**no**'} |"
        for rows in kept["benchmarks"].values()
        for row in rows
    ]
    head = ["| what | ours | base | ratio | target | met |", "|---|---|---|---|---|---|"]
    where = f"CPython {machine['python']}, {machine['cpus']} cores, {machine['at'][:10]}:"
    return "\n".join([where, "", *head, *rows]) + "\n"


#: What the last run says of moleculer: by the way, what it is called.
_WAYS = {"ipc": "over TCP, and fan over ipc", "redis": "over Redis", "amqp": "over RabbitMQ"}


def moleculer() -> str:
    """How far fan is from moleculer, and what a call costs either, as of the last run."""
    kept = json.loads(Path(__file__).with_name("bench").joinpath("results.json").read_text())
    found = []
    for row in kept["benchmarks"]["peers"]:
        way = row["name"].partition(",")[0]
        if row["name"].endswith(" : moleculer"):
            ours, base = re.findall(r"\d+ \+ \d+", row["note"])
            times = f"{row['ratio']:.2f} times moleculer's {_WAYS[way]}"
            found.append(f"{times}\n({ours} against {base})")
    return (
        "Calls a second of fan with 16 asyncio callers, and in brackets the microseconds of CPU\n"
        f"for one call, caller + server, of either: {'; '.join(found)}.\n"
    )


def wanted(target: object) -> str:
    return target if isinstance(target, str) else f"<= {target:g}"


def comments(module: str, cls: str) -> dict[str, str]:
    """The `#:` comments above the fields of a class, in their order; "" where there is none."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    lines = source.splitlines()
    found: dict[str, str] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == cls:
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    found[field.target.id] = comment_above(lines, field.lineno - 1)
    return found


def comment_above(lines: list[str], index: int) -> str:
    text: list[str] = []
    while (line := lines[index - 1].strip()).startswith("#:"):
        text.insert(0, line.removeprefix("#:").strip())
        index -= 1
    return " ".join(text)


def first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n\n")[0].replace("\n    ", " ")
