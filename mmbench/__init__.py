"""mmbench: reproduce, compare and extend published results in multimodal image synthesis and editing."""

import mmbench.core.torchvision_schema  # noqa: F401  (first of all: half of the libraries below import torchvision)

__version__ = "0.1.0"
