"""The plan: preprocessing and network settings of each domain."""
