"""Losses of the two streams."""
