"""A checkpoint or an exported file that runs as Ultralytics runs it, with access to its predictions before NMS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torchvision  # noqa: F401  Ultralytics takes torchvision's NMS only if it is loaded: both sides need the same one
from numpy.typing import NDArray
from torch import Tensor
from ultralytics.data.augment import LetterBox
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import xywh2xyxy, xyxy2xywh

F64 = NDArray[np.float64]
T = TypeVar("T")
# Seconds of NMS for an image. Ultralytics drops detections after 50 ms, also if only the machine is busy.
NMS_TIME_LIMIT = 600.0


@dataclass(frozen=True)
class NMSSettings:
    """Thresholds of non-maximum suppression.

    Attributes:
        conf (float): Score above which a detection is kept.
        candidate_conf (float): Score above which a prediction before NMS is listed.
        iou (float): IoU above which NMS drops the lower score.
        max_det (int): Largest number of detections of an image.
        agnostic (bool): Whether boxes of different classes suppress each other.
    """

    conf: float
    candidate_conf: float
    iou: float
    max_det: int
    agnostic: bool


class BackendModel:
    """A model with Ultralytics' letterbox before it and Ultralytics' NMS after it.

    Args:
        file (Path): Checkpoint or exported file.
        task (str): 'detect' or 'obb'.
        device (torch.device): Device; a format that runs on one device only takes that one.
        end2end (bool | None): Head of a checkpoint: end-to-end or not; None is its current one.
        half (bool): Whether the input is FP16; only TorchScript does not hold this itself.

    Attributes:
        rotated (bool): Whether the boxes are oriented.
        device (torch.device): The given device.
        classes (int): Number of classes.
        nms_inside (bool): Whether the file contains NMS.
        end2end (bool): Whether the head needs no NMS.
        quantize (Any): Precision that the file was exported with, None if it does not hold one.
    """

    def __init__(
        self, file: Path, task: str, device: torch.device, end2end: bool | None = None, half: bool = False
    ) -> None:
        self.model: Any = AutoBackend(str(file), device=device, end2end=end2end, fp16=half, verbose=False).eval()
        self.rotated, self.device = task == "obb", device
        self.classes = len(self.model.names)
        export_args = self.model.metadata.get("args", {})
        self.nms_inside = bool(export_args.get("nms"))
        self.end2end = bool(self.model.end2end) and not self.nms_inside
        self.quantize = export_args.get("quantize")

    @property
    def format(self) -> str:
        """(str): Ultralytics' name of the format."""
        return str(self.model.format)

    @property
    def runtime_precision(self) -> str:
        """(str): Number format that the runtime computes in: OpenVINO chooses bfloat16 on some processors."""
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
        """Return the output of the network: predictions before NMS, or detections if NMS is inside the file.

        Args:
            inputs (Tensor): Of `prepare`.

        Returns:
            (Tensor): Ultralytics' output; of several outputs the first.
        """
        outputs = self.model(inputs)
        first: Tensor = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        return first

    def detections(self, predicted: Tensor, nms: NMSSettings) -> list[Tensor]:
        """Return the detections of each image.

        Args:
            predicted (Tensor): Of `forward`.
            nms (NMSSettings): Thresholds.

        Returns:
            (list[Tensor]): For each image N x 6 (xyxy, score, class) or N x 7 (xywh, score, class, angle).
        """
        detections: list[Tensor] = non_max_suppression(
            predicted.float(), nms.conf, nms.iou, agnostic=nms.agnostic, max_det=nms.max_det, nc=self.classes,
            rotated=self.rotated, end2end=self.end2end or self.nms_inside, max_time_img=NMS_TIME_LIMIT,
        )  # fmt: skip
        return detections

    def candidates(self, predicted: Tensor, conf: float) -> list[Tensor]:
        """Return the predictions of each image before NMS: a row for each box and each class above a score.

        Args:
            predicted (Tensor): Of `forward`.
            conf (float): Score.

        Returns:
            (list[Tensor]): In the columns of `detections`.
        """
        if self.end2end:
            return [rows[rows[:, 4] > conf] for rows in predicted.float()]
        candidates = []
        for rows in predicted.float().transpose(-1, -2):
            scores = rows[:, 4 : 4 + self.classes]
            anchor, label = (scores > conf).nonzero(as_tuple=True)
            box, angle = rows[anchor, :4], rows[anchor, 4 + self.classes :]
            box = box if self.rotated else xywh2xyxy(box)
            candidates.append(torch.cat((box, scores[anchor, label, None], label[:, None].float(), angle), 1))
        return candidates

    def detect(
        self, images: Sequence[NDArray[np.uint8]], shape: tuple[int, int], batch: int, nms: NMSSettings
    ) -> Iterator[tuple[F64, F64 | None]]:
        """Detect objects in images.

        Args:
            images (Sequence[NDArray[np.uint8]]): Images H x W x channels; BGR where there are 3.
            shape (tuple[int, int]): Height and width of the network input, in pixels.
            batch (int): Images in a batch; the last batch may be smaller.
            nms (NMSSettings): Thresholds.

        Yields:
            detections (F64): N x 7: x, y, w, h in pixels of the network input, angle, score, class.
            candidates (F64 | None): The same before NMS, None where NMS is inside the file.
        """
        for start in range(0, len(images), batch):
            predicted = self.forward(self.prepare(images[start : start + batch], shape))
            detections = [self._to_rows(x) for x in self.detections(predicted, nms)]
            candidates: Sequence[F64 | None] = [None] * len(predicted)
            if not self.nms_inside:
                candidates = [self._to_rows(x) for x in self.candidates(predicted, nms.candidate_conf)]
            yield from zip(detections, candidates, strict=True)

    def _to_rows(self, detections: Tensor) -> F64:
        """Return Ultralytics' columns in the order of `deploy.matching`."""
        columns = detections.cpu().double()
        box = columns[:, :4].clone() if self.rotated else xyxy2xywh(columns[:, :4])
        box[:, 2:] = box[:, 2:].abs()  # a head without bins can give a negative side: the rectangle is the same
        angle = columns[:, 6:7] if self.rotated else torch.zeros(len(columns), 1, dtype=torch.float64)
        rows: F64 = torch.cat((box, angle, columns[:, 4:6]), 1).numpy()
        return rows


def timed_call(call: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """Call a function and measure its time, including the work that it queues on the device.

    Args:
        call (Callable[[], T]): The function.
        device (torch.device): Device whose queue is awaited before and after the call.

    Returns:
        result (T): Return value of the function.
        seconds (float): Duration.
    """
    _synchronize(device)
    start = time.perf_counter()
    result = call()
    _synchronize(device)
    return result, time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    """Wait until a device has computed all that is queued on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
