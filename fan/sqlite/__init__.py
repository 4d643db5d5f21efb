"""What the registry and the queues share of files that are SQLite databases: opening them, their
locks, being woken by their changes, and what goes wrong with them.

It stands below the implementations, which know nothing of each other, and above the values.
"""
