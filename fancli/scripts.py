"""The completion scripts: click's (https://click.palletsprojects.com/shell-completion), changed
where they fall short. In bash the line is handed over whole, since bash cuts words at = and :, and
a completion that goes on (`greeter.`, `name=`) gets no space. In zsh click's asks for the context
of its first call, and is silent at the second."""

from __future__ import annotations

_BASH = """\
# bash completion for fan; source it, or put it where bash-completion looks.
_fan_completion() {
    local kind value
    COMPREPLY=()
    while IFS=$'\\t' read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            part)
                compopt -o nospace
                COMPREPLY+=("$value")
                ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        _FAN_COMPLETE=bash_complete "$1" 2>/dev/null)
}

# Only bash >= 4.4 has the nosort option.
complete -o nosort -F _fan_completion fan 2>/dev/null || complete -F _fan_completion fan
"""

_ZSH = """\
#compdef fan

_fan_completion() {
    local -a completions completions_with_descriptions parts response
    (( ! $+commands[fan] )) && return 1

    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        _FAN_COMPLETE=zsh_complete fan 2>/dev/null)}")

    for type key descr in ${response}; do
        if [[ "$type" == "part" ]]; then
            parts+=("$key")
        elif [[ "$type" == "plain" ]]; then
            if [[ "$descr" == "_" ]]; then
                completions+=("$key")
            else
                completions_with_descriptions+=("${key//:/\\\\:}":"$descr")
            fi
        elif [[ "$type" == "dir" ]]; then
            _path_files -/
        elif [[ "$type" == "file" ]]; then
            _path_files -f
        fi
    done

    if [ -n "$completions_with_descriptions" ]; then
        _describe -V unsorted completions_with_descriptions -U
    fi
    if [ -n "$completions" ]; then
        compadd -U -V unsorted -a completions
    fi
    if [ -n "$parts" ]; then
        compadd -U -S '' -V unsorted -a parts
    fi
}

if [[ $funcstack[1] == _fan ]]; then
    # autoloaded from fpath: this file is the function's body, at every call
    _fan_completion "$@"
else
    # eval/source/. command, register function for later
    compdef _fan_completion fan
fi
"""

_FISH = """\
# fish completion for fan. fish itself adds no space behind = and the dot.
function _fan_completion
    env _FAN_COMPLETE=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) \\
        fan 2>/dev/null
end

complete --no-files --command fan --arguments "(_fan_completion)"
"""

#: By shell.
SCRIPTS: dict[str, str] = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

#: File of each shell under `completions/`.
FILES: dict[str, str] = {"bash": "fan.bash", "zsh": "_fan", "fish": "fan.fish"}

#: How a shell is told, for the help.
HOW: dict[str, str] = {
    "bash": "source <(fan completion bash)",
    "zsh": "fan completion zsh > ~/.zfunc/_fan   # a folder of $fpath",
    "fish": "fan completion fish > ~/.config/fish/completions/fan.fish",
}
