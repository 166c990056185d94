"""Data preparation: from folders of raw scans to a plan and TFRecord shards."""
