"""What the authors of DALLE2 recorded."""

from diffusion_steps import DALLE2

ADAPTERS = {**DALLE2}
