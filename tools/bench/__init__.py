"""Benchmarks against PyTorch; each is a command that prints a table."""
