"""Dual-Stream Spectral Decoupling Distillation (DS2D2) for Ultralytics YOLO, horizontal and oriented boxes.

The core (`ds2d2_yolo.core`) needs torch and PyWavelets only. Importing this package imports nothing heavy: the names
below that need Ultralytics are loaded when they are first used.

Examples:
    >>> from ds2d2_yolo import distill
    >>> distill(teacher="yolov8x-obb.pt", student="yolov8n-obb.yaml", data="dota.yaml", epochs=100)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ds2d2_yolo._version import __version__

if TYPE_CHECKING:
    from ds2d2_yolo.bridge.api import check, distill
    from ds2d2_yolo.bridge.inference.explain import explain
    from ds2d2_yolo.bridge.training.amplify import amplify
    from ds2d2_yolo.bridge.training.trainer import DS2D2OBBTrainer, DS2D2Trainer

__all__ = ["DS2D2OBBTrainer", "DS2D2Trainer", "__version__", "amplify", "check", "distill", "explain"]

_LAZY = {
    "amplify": "ds2d2_yolo.bridge.training.amplify",
    "check": "ds2d2_yolo.bridge.api",
    "distill": "ds2d2_yolo.bridge.api",
    "explain": "ds2d2_yolo.bridge.inference.explain",
    "DS2D2Trainer": "ds2d2_yolo.bridge.training.trainer",
    "DS2D2OBBTrainer": "ds2d2_yolo.bridge.training.trainer",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it (PEP 562)."""
    if name in _LAZY:
        # before the import that would fail on an internal which has moved
        import_module("ds2d2_yolo.bridge.upstream.compat").check_ultralytics()
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
