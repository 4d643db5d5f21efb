"""One file for each tracer; the contract is `base`."""
