"""What is known of a volume on disk and in memory; NumPy only."""
