"""Augmentation of patches: parameters are drawn, applying them is deterministic."""
