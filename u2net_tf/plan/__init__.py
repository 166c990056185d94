"""What preprocessing and network need to know of each domain."""
