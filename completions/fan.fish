# fish completion for fan. fish itself adds no space behind = and the dot.
function _fan_completion
    env _FAN_COMPLETE=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) \
        fan 2>/dev/null
end

complete --no-files --command fan --arguments "(_fan_completion)"
