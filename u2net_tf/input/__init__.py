"""From TFRecord shards to batches of patches; tf.data only."""
