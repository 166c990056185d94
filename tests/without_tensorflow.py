"""Preloaded into a command server: TensorFlow and Keras count as not installed."""

import sys

for name in ("tensorflow", "keras"):
    sys.modules[name] = None
