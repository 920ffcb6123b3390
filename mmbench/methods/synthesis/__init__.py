"""Synthesis: images of a text, or of noise alone."""
