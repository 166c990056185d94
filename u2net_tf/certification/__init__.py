"""Certificates that record which domains a change of a model left bit-identical."""
