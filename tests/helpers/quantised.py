"""Tests that need NVIDIA ModelOpt, and what tells a quantised student from another."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d2_yolo.bridge.upstream.modelopt import modelopt_installed

needs_modelopt = pytest.mark.skipif(not modelopt_installed(), reason="needs NVIDIA ModelOpt, the extra 'quantize'")


def quantisers(model: Any) -> list[str]:
    """Return the names of the fake quantisers of a model."""
    return [name for name, module in model.named_modules() if type(module).__name__ == "TensorQuantizer"]
