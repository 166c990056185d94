"""A model: what it is, how it is built and how it lies on disk."""
