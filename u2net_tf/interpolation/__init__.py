"""Interpolation: positions, kernels, matrices and resampling, without TensorFlow."""
