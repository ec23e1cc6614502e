"""Comparison of ways to train one student: arms over seeds, resumable, with statistics of the paired differences.

Importing this package does not import torch, so that help and shell completion can read the options quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ds2d2_yolo.compare.options import CompareOptions

if TYPE_CHECKING:
    from ds2d2_yolo.compare.run import Comparison, compare

__all__ = ["CompareOptions", "Comparison", "compare"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use (PEP 562)."""
    if name in {"Comparison", "compare"}:
        return getattr(import_module("ds2d2_yolo.compare.run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
