"""Untrained checkpoints that detect something, so that predictions can be compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

# mean and standard deviation over anchors that each branch of the head is given: logits of the classes, bins or
# distances of the box, the angle's number
SPREAD = {"cv3": (-1.5, 1.5), "cv2": (0.0, 2.0), "cv4": (0.0, 1.0)}
DISTANCE = (2.0, 0.5)  # of the box where the head has no bins


def spread_out(model: Any, inputs: Any, strength: float) -> None:
    """Scale the last convolutions of a head so that scores, boxes and angles differ from anchor to anchor.

    With `strength` 1 they differ widely, and so does what the rounding of INT8 makes of an untrained network; with 0.25
    its differences are those of a trained one.
    """
    head = model.model[-1]

    def standardise(kind: str) -> Callable[..., Any]:
        def hook(layer: Any, _: Any, out: Any) -> Any:
            mean, std = DISTANCE if kind == "cv2" and head.reg_max == 1 else SPREAD[kind]
            if kind == "cv2" and head.reg_max > 1:  # near bins are likelier: boxes larger than the image are none
                mean = -0.6 * (torch.arange(out.shape[1]) % head.reg_max)
            dims = (0, 2, 3)
            now = out.mean(dims), out.std(dims).clamp(min=1e-9)
            mean, std = mean * (strength if kind == "cv3" else 1), std * strength
            layer.weight.data *= (std / now[1]).view(-1, 1, 1, 1)
            layer.bias.data.copy_((layer.bias.data - now[0]) * std / now[1] + mean)
            return None

        return hook

    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0  # statistics of these images: those that it starts with make all anchors alike
        model.train()(inputs)
    model.eval()
    hooks = [
        branch[-1].register_forward_hook(standardise(name.removeprefix("one2one_")))
        for name, levels in head.named_children()
        if name.removeprefix("one2one_") in SPREAD
        for branch in levels
    ]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()


def write_detecting_checkpoint(untrained: Path, data: Path, task: str, target: Path, strength: float = 1.0) -> None:
    """Write a checkpoint that detects boxes in the 96 px validation images of a data set.

    Args:
        untrained (Path): Untrained checkpoint.
        data (Path): Data-set YAML.
        task (str): 'detect' or 'obb'.
        target (Path): Checkpoint to write.
        strength (float): See `spread_out`.
    """
    state = torch.load(untrained, weights_only=False)
    images = [cv2.imread(str(p)) for p in sorted((data.parent / "images" / "val").glob("*.png"))]
    inputs = torch.from_numpy(np.stack(images)[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
    spread_out(state["model"], inputs, strength)
    torch.save({**state, "train_args": {"task": task, "imgsz": 96, "data": str(data)}}, target)
