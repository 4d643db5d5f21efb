"""The program `fan`: argument -> one library call -> rendering. The library is `fan`."""
