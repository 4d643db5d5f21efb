"""A TAB: what bash, zsh and fish ask by their scripts, and what they are told. Silent on every
error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fancli import scripts

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

    from fancli.env import Environment

#: The shell of who uses the script that click makes for bash: it knows no `part`.
CLICKS_BASH = "click's bash"


def answer(instruction: str, env: Environment) -> int:
    """What a completion script asks for: `_FAN_COMPLETE=bash_complete`, or `bash_source` for the
    script itself; answers on stdout, status 0 whatever happens."""
    from fancli.group import root_group
    from fancli.output import Output

    shell, _, what = instruction.partition("_")
    if shell not in scripts.SCRIPTS or what not in ("complete", "source"):
        return 0
    if what == "source":
        Output(env).write(scripts.SCRIPTS[shell].encode())
        return 0
    if shell == "bash" and "COMP_LINE" not in env.vars:
        shell = CLICKS_BASH
    try:
        args, word, typed = words_of(shell, env)
        found = candidates(root_group(), env, args, word)
        text = "\n".join(told(shell, item, typed) for item in found)
        if text:
            Output(env).text(text)
    except Exception:  # a broken plug-in or registry must not litter the prompt
        if env.is_debug:
            raise
    return 0


def candidates(
    root: click.Command, env: Environment, args: list[str], word: str
) -> list[CompletionItem[str]]:
    """What may stand in the place of `word`, behind `args`."""
    from click.shell_completion import ShellComplete

    return ShellComplete(root, {"obj": env}, "fan", "_FAN_COMPLETE").get_completions(args, word)


def words_of(shell: str, env: Environment) -> tuple[list[str], str, str]:
    """The complete words behind `fan`, the one being typed, and that part of it which the shell
    keeps on the line by itself: bash cuts words at COMP_WORDBREAKS, so at = and :, and replaces
    only what comes after the last of them; an @ or $ that cuts is replaced, too (readline's
    `rl_special_prefixes`). click's own script for bash hands over the words as zsh's does."""
    if shell == "bash":
        line = env.vars["COMP_LINE"][: int(env.vars["COMP_POINT"])]
        words = split(line)
        if not line or line[-1].isspace():
            words.append("")
        word = words[-1]
        marks = env.vars.get("COMP_WORDBREAKS", "=:")
        cut = max((word.rfind(mark) for mark in marks if mark.strip()), default=-1)
        is_kept = cut >= 0 and word[cut] not in "@$"
        return words[1:-1], word, word[: cut + is_kept] if cut >= 0 else ""
    words = split(env.vars["COMP_WORDS"])
    if shell in ("zsh", CLICKS_BASH):
        here = int(env.vars["COMP_CWORD"])
        return words[1:here], words[here] if here < len(words) else "", ""
    word = "".join(split(env.vars["COMP_CWORD"])[:1])
    if word and words and words[-1] == word:
        words.pop()
    return words[1:], word, ""


def split(line: str) -> list[str]:
    """The words of a line as a shell sees them, the last perhaps unfinished."""
    if not any(mark in line for mark in "'\"\\"):  # then `shlex` is not worth its import
        plain = line.translate({ord(blank): " " for blank in "\t\r\n"})
        return [word for word in plain.split(" ") if word]
    from click.shell_completion import split_arg_string

    return split_arg_string(line)


def told(shell: str, item: CompletionItem[str], typed: str) -> str:
    """One answer in the form that the shell's script reads. The type `part` wants no space
    behind."""
    value = item.value.removeprefix(typed) if typed else item.value
    if shell == "bash":
        return f"{item.type}\t{value}"
    if shell == CLICKS_BASH:
        return f"{'plain' if item.type == 'part' else item.type},{value}"
    if shell == "fish":
        return f"{value}\t{item.help}" if item.help else value
    help = (item.help or "_").partition("\n")[0]
    return f"{item.type}\n{value}\n{help}"
