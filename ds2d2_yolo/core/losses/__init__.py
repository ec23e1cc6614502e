"""Distillation losses of DS2D2 (arXiv 2512.04413): the explicit stream and the implicit stream."""
