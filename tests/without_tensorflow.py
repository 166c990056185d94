"""Hides TensorFlow and Keras when it is preloaded into a command server."""

import sys

for name in ("tensorflow", "keras"):
    sys.modules[name] = None
