"""Diffusion: schedules, denoisers, samplers, guidance and losses over one contract, denoised = f(x, step, y)."""
