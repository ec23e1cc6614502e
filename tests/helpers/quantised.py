"""Tests that need NVIDIA ModelOpt, and checkpoints of quantised students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.utils.torch_utils import prepare_qat

from ds2d2_yolo.bridge.upstream.modelopt import modelopt_installed

needs_modelopt = pytest.mark.skipif(not modelopt_installed(), reason="needs NVIDIA ModelOpt, the extra 'quantize'")


def quantisers(model: Any) -> list[str]:
    """Return the names of the fake quantisers of a model."""
    return [name for name, module in model.named_modules() if type(module).__name__ == "TensorQuantizer"]


def quantise(checkpoint: Path, data: Path) -> Path:
    """Overwrite a float checkpoint with a quantised one, calibrated on the validation images and not trained."""
    images = [cv2.imread(str(p))[..., ::-1] for p in sorted((data.parent / "images" / "val").glob("*.png"))]
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    yolo = YOLO(str(checkpoint))
    prepare_qat(yolo.model, [batch], lambda x: x, batches=1)
    yolo.save(str(checkpoint))
    return checkpoint
