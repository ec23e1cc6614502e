"""A checkpoint or an exported file, run on images as Ultralytics runs it, with what it predicts before NMS."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision  # noqa: F401  Ultralytics' NMS takes torchvision's only where it is loaded: both sides are to have it
from numpy.typing import NDArray
from torch import Tensor
from ultralytics.data.augment import LetterBox
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xywh2xyxy, xyxy2xywh

F64 = NDArray[np.float64]
PATIENCE = 600.0  # seconds an image may take in NMS: Ultralytics drops detections after 50 ms, a busy machine or not


@dataclass(frozen=True)
class Cuts:
    """What is kept of the predictions.

    Attributes:
        kept (float): Score above which a detection is kept.
        raw (float): Score above which a prediction before NMS is listed.
        iou (float): IoU above which NMS drops the lower score.
        max_det (int): Most detections of an image.
        agnostic (bool): Whether NMS looks past classes.
    """

    kept: float
    raw: float
    iou: float
    max_det: int
    agnostic: bool


class Detector:
    """A model with the letterbox before it and Ultralytics' NMS behind it.

    Args:
        file (Path): Checkpoint or exported file.
        task (str): 'detect' or 'obb'.
        device (torch.device): Where it runs; formats of one device take theirs.
        end2end (bool | None): Of a checkpoint: which head; None takes its current one.
        half (bool): Whether it is fed FP16; only TorchScript does not know by itself.
    """

    def __init__(
        self, file: Path, task: str, device: torch.device, end2end: bool | None = None, half: bool = False
    ) -> None:
        self.model: Any = AutoBackend(str(file), device=device, end2end=end2end, fp16=half, verbose=False).eval()
        self.rotated, self.device = task == "obb", device
        self.classes = len(self.model.names)
        exported = self.model.metadata.get("args", {})
        self.inside = bool(exported.get("nms"))
        self.end2end = bool(self.model.end2end) and not self.inside
        self.quantize = exported.get("quantize")

    @property
    def format(self) -> str:
        """(str): Ultralytics' name of the format."""
        return str(self.model.format)

    @property
    def computes(self) -> str:
        """(str): What the runtime computes in where it decides: OpenVINO takes bfloat16 on some processors."""
        if self.format != "openvino":
            return "float32"
        hint = self.model.backend.ov_compiled_model.get_property("INFERENCE_PRECISION_HINT")
        return str(hint.get_type_name())

    def prepare(self, images: Sequence[NDArray[np.uint8]], shape: tuple[int, int]) -> Tensor:
        """Return images as network input.

        Args:
            images (Sequence[NDArray[np.uint8]]): Images H x W x channels; BGR where there are 3.
            shape (tuple[int, int]): Height and width to letterbox to, in pixels.

        Returns:
            (Tensor): N x channels x height x width in [0, 1], on the model's device; RGB where there are 3.
        """
        boxed = np.stack([LetterBox(shape)(image=image) for image in images])
        boxed = boxed[..., ::-1] if boxed.shape[-1] == 3 else boxed
        tensor = torch.from_numpy(np.ascontiguousarray(boxed.transpose(0, 3, 1, 2)))
        return tensor.to(self.model.device).float() / 255

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the model predicts, before NMS unless that is inside."""
        found = self.model(inputs)
        first: Tensor = found[0] if isinstance(found, (list, tuple)) else found
        return first

    def detections(self, predicted: Tensor, cuts: Cuts) -> list[Tensor]:
        """Return the detections of each image, N x 6 (xyxy, score, class) or N x 7 (xywh, score, class, angle)."""
        found: list[Tensor] = non_max_suppression(
            predicted.float(), cuts.kept, cuts.iou, agnostic=cuts.agnostic, max_det=cuts.max_det, nc=self.classes,
            rotated=self.rotated, end2end=self.end2end or self.inside, max_time_img=PATIENCE,
        )  # fmt: skip
        return found

    def raw(self, predicted: Tensor, low: float) -> list[Tensor]:
        """Return what each image has before NMS, as `detections` does: each box with each class above `low`."""
        if self.end2end:
            return [rows[rows[:, 4] > low] for rows in predicted.float()]
        found = []
        for rows in predicted.float().transpose(-1, -2):
            scores = rows[:, 4 : 4 + self.classes]
            which, kind = (scores > low).nonzero(as_tuple=True)
            box, rest = rows[which, :4], rows[which, 4 + self.classes :]
            box = box if self.rotated else xywh2xyxy(box)
            found.append(torch.cat((box, scores[which, kind, None], kind[:, None].float(), rest), 1))
        return found

    def look(
        self, images: Sequence[NDArray[np.uint8]], shape: tuple[int, int], batch: int, cuts: Cuts
    ) -> Iterator[tuple[F64, F64 | None]]:
        """Find the objects of images.

        Args:
            images (Sequence[NDArray[np.uint8]]): Images H x W x channels; BGR where there are 3.
            shape (tuple[int, int]): Height and width of the network input, in pixels.
            batch (int): Images at once; the last ones may be fewer.
            cuts (Cuts): What is kept.

        Yields:
            kept (F64): Detections N x 7: x, y, w, h in pixels of the network input, angle, score, class.
            raw (F64 | None): The same before NMS, None where NMS is inside the file.
        """
        for start in range(0, len(images), batch):
            predicted = self.forward(self.prepare(images[start : start + batch], shape))
            raw = [None] * len(predicted) if self.inside else [self._rows(r) for r in self.raw(predicted, cuts.raw)]
            yield from zip([self._rows(r) for r in self.detections(predicted, cuts)], raw, strict=True)

    def _rows(self, found: Tensor) -> F64:
        """Return Ultralytics' columns in the order of `deploy.matching`."""
        rows = found.cpu().double()
        box = rows[:, :4].clone() if self.rotated else xyxy2xywh(rows[:, :4])
        box[:, 2:] = box[:, 2:].abs()  # a head without bins can give a negative side: the rectangle is the same
        angle = rows[:, 6:7] if self.rotated else torch.zeros(len(rows), 1, dtype=torch.float64)
        array: F64 = torch.cat((box, angle, rows[:, 4:6]), 1).numpy()
        return array


def time_of(work: Any, device: torch.device) -> float:
    """Return the seconds that a call takes, the device's own queue included."""
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    """Wait until a device has computed all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
