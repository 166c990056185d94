"""The network: operations, layers, models."""
