"""Checks raw scans before preprocessing."""
