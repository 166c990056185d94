"""u2net-tf: one 3D segmentation network for many organs (3D U²-Net)."""

__version__ = "0.2.0.dev0"
