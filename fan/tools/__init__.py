"""Whole capabilities built on the rest of fan, each in a file of its own."""
