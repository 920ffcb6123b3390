"""Toy data: procedural pictures and captions in the layouts of the real data sets, with the truth of every image."""
