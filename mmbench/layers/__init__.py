"""Building blocks, one concept per file."""
