"""One file per command group; `fancli.group.COMMANDS` says which."""
