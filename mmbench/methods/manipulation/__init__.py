"""Text-guided image manipulation."""
