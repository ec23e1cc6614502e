"""Losses of other distillation methods, which `compare` trains beside DS2D2. Not part of the published method."""
