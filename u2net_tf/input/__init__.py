"""From TFRecord shards to batches of patches, entirely in tf.data."""
