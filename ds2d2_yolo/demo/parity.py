"""Whether an exported student answers as the PyTorch one does: raw outputs side by side on real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ds2d2_yolo.errors import DS2D2Error

# Both sides compute in float32 and differ in the order of their sums only.
BOX_TOLERANCE = 0.01  # pixels
SCORE_TOLERANCE = 1e-4
ANGLE_TOLERANCE = 1e-4  # radians


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences between two sets of raw predictions.

    Attributes:
        boxes (float): Of centre, width and height, in pixels.
        scores (float): Of the class scores.
        angles (float): Of the angle, in radians.
        images (int): Number of images compared.
    """

    boxes: float
    scores: float
    angles: float
    images: int

    @property
    def holds(self) -> bool:
        """(bool): Whether every difference is within its tolerance; a difference that is no number is not."""
        return self.boxes <= BOX_TOLERANCE and self.scores <= SCORE_TOLERANCE and self.angles <= ANGLE_TOLERANCE

    def __str__(self) -> str:
        """Return the differences and tolerances in one line."""
        return (
            f"largest difference on {self.images} images: boxes {self.boxes:.2g} px (tolerance {BOX_TOLERANCE:g}), "
            f"scores {self.scores:.2g} ({SCORE_TOLERANCE:g}), angles {self.angles:.2g} rad ({ANGLE_TOLERANCE:g})"
        )


def onnx_output(file: Path, inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return the raw predictions of an ONNX file on the CPU.

    Args:
        file (Path): The ONNX file, with one input and one output.
        inputs (Sequence[NDArray[np.float32]]): Network inputs of one image each.

    Returns:
        (list[NDArray[np.float32]]): Its output for each.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [session.run(None, {name: x})[0] for x in inputs]


def compare(expected: Sequence[NDArray[np.float32]], got: Sequence[NDArray[np.float32]]) -> Parity:
    """Compare raw predictions of oriented boxes.

    Args:
        expected (Sequence[NDArray[np.float32]]): Of PyTorch, 1 x (4 + classes + 1) x anchors for each image.
        got (Sequence[NDArray[np.float32]]): Of ONNX Runtime.

    Returns:
        (Parity): The largest differences over all images and anchors.

    Raises:
        DS2D2Error: If the outputs have different shapes.
    """
    shapes = [x.shape for x in expected], [x.shape for x in got]
    if shapes[0] != shapes[1]:
        raise DS2D2Error(f"the ONNX outputs have the shapes {shapes[1]}, those of PyTorch {shapes[0]}")
    difference = np.abs(np.concatenate(expected) - np.concatenate(got)).max(axis=(0, 2))
    return Parity(
        boxes=float(difference[:4].max()),
        scores=float(difference[4:-1].max()),
        angles=float(difference[-1]),
        images=len(expected),
    )
