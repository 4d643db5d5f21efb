"""One file for each way to carry a request; the contract is `base`."""
