"""The network as XLA modules, for machines that have a GPU and JAX but no TensorFlow.

`emit` writes them here, `run` executes them there, `torch_step` is PyTorch's side and
`profile` reads the trace that `run` records.
"""
