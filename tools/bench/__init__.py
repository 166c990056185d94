"""Benchmarks: ours beside PyTorch, each one command that prints a table."""
