"""Values between voxels: positions, kernels, matrices, resampling; no TensorFlow."""
