"""Preprocessed cases as TFRecord shards: records, manifest, reading."""
