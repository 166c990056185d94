"""Models: specification, construction, checkpoints and composition."""
