"""Inpainting: holes of images, filled with or without a text."""
