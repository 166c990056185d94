"""The network as XLA modules, for GPU machines that have JAX but not TensorFlow.

`emit` writes the modules, `run` executes them on the other machine, `torch_step`
measures PyTorch there, and `profile` reads the traces of `run`. `plan` compiles modules
for an H200 without one, and `ways` compares implementations of single operations.
"""
