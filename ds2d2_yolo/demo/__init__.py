"""The demonstration: the whole story on the built-in scenes, from a teacher's first epoch to a checked ONNX student."""

from __future__ import annotations

from ds2d2_yolo.demo.run import run_demo

__all__ = ["run_demo"]
