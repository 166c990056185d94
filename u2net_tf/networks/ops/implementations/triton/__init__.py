"""The implementation "triton": operations whose kernels Triton compiles for a GPU."""
