"""One file for each place that a registry can live in; the contract is `base`."""
