"""From raw scans and a plan to TFRecord shards."""
