"""Converts raw scans to TFRecord shards according to a plan."""
