"""Text-to-image synthesis."""
