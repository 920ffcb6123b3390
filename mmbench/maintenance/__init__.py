"""What keeps this repository's own numbers and small networks fresh."""
