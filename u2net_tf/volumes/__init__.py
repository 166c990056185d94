"""Volumes on disk and in memory: reading, checks, preprocessing; no TensorFlow."""
