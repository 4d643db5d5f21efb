"""One file for each layer around a call; the contract is `base`."""
