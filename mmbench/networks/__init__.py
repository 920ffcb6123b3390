"""Whole networks with official weights."""
