"""What runs a trained network for `inference.predictor`: each implements `Backend`."""
