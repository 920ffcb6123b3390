"""What the authors of ADM recorded."""

from diffusion_steps import ADM

ADAPTERS = {**ADM}
