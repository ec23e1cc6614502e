"""Synthetic aerial scenes with oriented boxes: a generated data set for trials and tests without a download.

Needs numpy and OpenCV only. The same seed gives the same pixels and labels.
"""

from .dataset import write_dataset
from .render import draw_scene
from .world import NAMES

__all__ = ("NAMES", "draw_scene", "write_dataset")
