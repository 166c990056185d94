"""Writes trained networks in the formats of other runtimes."""
