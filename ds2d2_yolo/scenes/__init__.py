"""Synthetic aerial scenes with oriented boxes: a generated data set for trials and tests without a download.

Needs numpy and OpenCV only. The same seed gives the same pixels and labels.
"""

from ds2d2_yolo.scenes.dataset import write_dataset
from ds2d2_yolo.scenes.render import draw_scene
from ds2d2_yolo.scenes.world import NAMES

__all__ = ("NAMES", "draw_scene", "write_dataset")
