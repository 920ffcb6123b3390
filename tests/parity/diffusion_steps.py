"""Schedules, steps, loops and losses of diffusion, which the families `adm`, `ldm` and `dalle2` share."""
