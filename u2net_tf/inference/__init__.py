"""From a volume to probabilities and a label map."""
