"""What the authors of LDM recorded."""

from diffusion_steps import LDM

ADAPTERS = {**LDM}
