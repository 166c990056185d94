"""Augmentation of patches: parameters are drawn, then applied deterministically."""
