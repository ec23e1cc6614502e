"""The teacher: loaded, checked against the task, folded and frozen."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils.checks import check_model_file_from_stem
from ultralytics.utils.torch_utils import is_qat

from ds2d2_yolo.bridge.models.adapters import detach_adapters
from ds2d2_yolo.bridge.models.heads import dense_head, is_rotated, pair_levels, refuse_yaml, strides_of, take_levels
from ds2d2_yolo.bridge.models.loading import load_yolo
from ds2d2_yolo.errors import BadUseError

TASKS = ("detect", "obb")


def state_hash(module: nn.Module) -> str:
    """Hash the parameters and buffers of a module, with their names, shapes and dtypes.

    Args:
        module (nn.Module): Any module.

    Returns:
        (str): SHA-256 in hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(array.shape)}{array.dtype}".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b"")
    return digest.hexdigest()


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher, before it is bound to a student.

    Attributes:
        path (str): Its file, absolute.
        model (Any): Ultralytics model in eval mode, unfused, without gradients.
        sha256 (str): Hash of its weights.
        names (tuple[str, ...]): Its classes, in the order of its outputs.
        rotated (bool): Whether it predicts oriented boxes.
        strides (tuple[float, ...]): Strides of its levels in pixels.
    """

    path: str
    model: Any
    sha256: str
    names: tuple[str, ...]
    rotated: bool
    strides: tuple[float, ...]


def load_teacher(name: str | None, task: str | None = None) -> Teacher:
    """Load a teacher, and refuse one that cannot teach a student of `task`.

    Args:
        name (str | None): Path of a checkpoint, or the name of a release such as 'yolov8x-obb', which Ultralytics
            downloads.
        task (str | None): The student's task, 'detect' or 'obb'; None takes either.

    Returns:
        (Teacher): In eval mode, without gradients.

    Raises:
        BadUseError: If it is missing, unreadable, untrained (.yaml), of another task or of a kind without dense head.
    """
    if task is not None and task not in TASKS:
        raise BadUseError(f"the student's task is '{task}': DS2D2 distils detect and obb models")
    if not name:
        raise BadUseError("teacher= is missing: name a trained checkpoint, such as teacher=yolov8x-obb.pt")
    path = str(check_model_file_from_stem(name))
    if Path(path).suffix.lower() not in (".pt", ".yaml", ".yml"):
        problem = "is no checkpoint (.pt)" if Path(path).exists() or Path(path).suffix else "does not exist"
        raise BadUseError(f"teacher={name} {problem}: name what a training left, such as runs/train/weights/best.pt")
    if path.endswith((".yaml", ".yml")):
        refuse_yaml(path, f"teacher={name}")
        raise BadUseError(f"teacher={name} is untrained: name a trained checkpoint (.pt)")
    loaded = load_yolo(path, f"teacher={path}", kind="checkpoint")
    model: Any = loaded.model
    if is_qat(model):
        raise BadUseError(f"teacher={name} was trained with quantisation: use the float checkpoint it came from")
    head = dense_head(model, f"teacher={name}")
    model_task = str(getattr(model, "task", "unknown"))
    if task is not None and model_task != task:
        tasks = f"teacher={name} is a model for {model_task}, the student one for {task}"
        raise BadUseError(f"{tasks}: use a teacher for {task}")
    if head.cv2 is None:
        raise BadUseError(f"teacher={name} was fused for inference: use the checkpoint that training left")
    detach_adapters(model)
    model.eval().requires_grad_(False)
    names = tuple(str(model.names[i]) for i in sorted(model.names))
    file = Path(str(getattr(model, "pt_path", path)))  # a release's name becomes the downloaded file
    return Teacher(str(file.absolute()), model, state_hash(model), names, is_rotated(head), strides_of(head))


def _to_float32(outputs: Any) -> Any:
    """Convert nested tensors to contiguous float32: losses are not computed in half precision."""
    if isinstance(outputs, Tensor):
        return outputs.float().contiguous() if outputs.is_floating_point() else outputs
    if isinstance(outputs, dict):
        return {key: _to_float32(value) for key, value in outputs.items()}
    return [_to_float32(value) for value in outputs] if isinstance(outputs, (list, tuple)) else outputs


class _FeatureOutput(nn.Module):
    """Takes the place of the head and returns its input features."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.f, self.i = head.f, head.i

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return the features."""
        return features


class FrozenTeacher:
    """A teacher on the levels that it shares with a student: Conv and BatchNorm folded, frozen, in eval mode.

    It is no module, so that optimizer, EMA, `train()` and checkpoint do not include it.

    Args:
        teacher (Teacher): Loaded teacher; its model is changed in place.
        student_strides (tuple[float, ...]): Strides of the student's levels.
        levels (list[int] | None): Strides to distil, see `heads.pair_levels`.
        bf16 (bool): Whether the forward pass runs in bfloat16 with channels last; its outputs are float32.
        ratio (int): Side of the teacher's images over that of the student's.

    Attributes:
        ratio (int): As given.
        pairs (list[tuple[int, int]]): Student index and teacher index of each distilled level.
        head (Detect): View of the head on these levels, which is the full-frequency amplifier. Its strides and boxes
            are in pixels of the teacher's images.
    """

    def __init__(
        self,
        teacher: Teacher,
        student_strides: tuple[float, ...],
        levels: list[int] | None = None,
        bf16: bool = False,
        ratio: int = 1,
    ) -> None:
        self.ratio = ratio
        self.pairs = pair_levels(student_strides, teacher.strides, levels, ratio)
        self.model = teacher.model
        teacher_levels = [t for _, t in self.pairs]
        self.model.model[-1] = take_levels(dense_head(self.model, "the teacher"), teacher_levels)
        self.model.fuse(verbose=False)
        self.model.requires_grad_(False)
        self.bf16 = bf16
        if bf16:
            self.model.to(memory_format=torch.channels_last)
        self.head = self.model.model[-1]
        # the same layers up to the head; copy.copy shares the dictionary of children, so the copy gets another one
        self._trunk = copy.copy(self.model)
        self._trunk._modules = {"model": nn.Sequential(*self.model.model[:-1], _FeatureOutput(self.head))}

    def to(self, device: torch.device) -> FrozenTeacher:
        """Move the teacher to a device; the strides stay on the CPU, where reading them does not wait for a GPU.

        Args:
            device (torch.device): The device.

        Returns:
            (FrozenTeacher): Itself.
        """
        self.model.to(device)
        self.head.stride = self.head.stride.cpu()
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Any]:
        """Return the raw predictions on the distilled levels; their 'feats' are the neck outputs.

        Args:
            images (Tensor): B x C x H x W in [0, 1], the input of the student; larger by `ratio` in each direction.

        Returns:
            (dict[str, Any]): See `heads.raw_predictions`.
        """
        predictions: dict[str, Any] = self._run(self.model, images)
        return predictions

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """Return the neck outputs of the distilled levels without running the head.

        Args:
            images (Tensor): As in the call.

        Returns:
            (list[Tensor]): B x C x H x W each, equal to 'feats' of the call.
        """
        features: list[Tensor] = self._run(self._trunk, images)
        return features

    def _run(self, module: Any, images: Tensor) -> Any:
        """Return the outputs of a module for images, in float32 or through bfloat16."""
        if not self.bf16:
            return module(images)
        with torch.autocast(images.device.type, torch.bfloat16):
            return _to_float32(module(images.to(memory_format=torch.channels_last)))
