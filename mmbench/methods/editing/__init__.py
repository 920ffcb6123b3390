"""Editing by other means than a generator of edits: inversion, and latents of trained generators."""
