"""Plans preprocessing, split and network settings of each surveyed domain."""
