"""Runtimes of trained networks for `inference.predictor`; each implements `Backend`."""
