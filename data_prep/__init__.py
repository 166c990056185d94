"""From folders of raw scans to a plan and TFRecord shards."""
