"""mmbench: reproduce, compare and extend published results in multimodal image synthesis and editing."""

__version__ = "0.1.0"
