"""Loads the published PyTorch network's weights from its files (extra `torch`)."""
