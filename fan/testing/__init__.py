"""For those who test what they build on fan: fakes, a pytest plugin, and the contract suites."""
