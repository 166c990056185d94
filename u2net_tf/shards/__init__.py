"""TFRecord shards of preprocessed cases: records, manifest and reading."""
