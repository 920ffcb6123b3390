"""Captioning: images to sentences."""
