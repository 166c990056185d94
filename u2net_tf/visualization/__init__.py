"""Figures of scans, label maps, patches and training runs (extra `pictures`)."""
