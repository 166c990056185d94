"""Values between voxels, one axis at a time; NumPy only."""
