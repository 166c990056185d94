"""Weights of the published PyTorch network, read from its files (extra `torch`)."""
