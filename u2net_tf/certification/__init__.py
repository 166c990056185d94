"""Certificates: which domains of a model a change left bit for bit as they were."""
