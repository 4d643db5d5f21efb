# bash completion for fan; source it, or put it where bash-completion looks.
_fan_completion() {
    local kind value
    COMPREPLY=()
    while IFS=$'\t' read -r kind value; do
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            part)
                compopt -o nospace
                COMPREPLY+=("$value")
                ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
        _FAN_COMPLETE=bash_complete "$1" 2>/dev/null)
}

# Only bash >= 4.4 has the nosort option.
complete -o nosort -F _fan_completion fan 2>/dev/null || complete -F _fan_completion fan
