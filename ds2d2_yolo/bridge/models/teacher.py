"""The teacher: loaded, checked against what it is to teach, folded and frozen for good."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.checks import check_model_file_from_stem

from ds2d2_yolo.bridge.models.adapters import detach_adapters
from ds2d2_yolo.bridge.models.heads import dense_head, is_rotated, pair_levels, refuse_yaml, strides_of, take_levels
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.errors import BadUseError

TASKS = ("detect", "obb")


def state_hash(module: nn.Module) -> str:
    """Return the SHA-256 of a module's parameters and buffers, names and shapes included."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(array.shape)}{array.dtype}".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b"")
    return digest.hexdigest()


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher, not yet bound to a student.

    Attributes:
        path (str): File it came from.
        model (Any): Ultralytics model in eval mode, unfused, without gradients.
        sha256 (str): Hash of its weights.
        names (tuple[str, ...]): Its classes, in order.
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
    """Load a teacher as Ultralytics resolves its name, and refuse one that cannot teach a student of `task`.

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
        what = "is no checkpoint (.pt)" if Path(path).exists() or Path(path).suffix else "does not exist"
        raise BadUseError(f"teacher={name} {what}: name what a training left, such as runs/train/weights/best.pt")
    if path.endswith((".yaml", ".yml")):
        refuse_yaml(path, f"teacher={name}")
        raise BadUseError(f"teacher={name} is untrained: name a trained checkpoint (.pt)")
    model, checkpoint = _load(path)
    if checkpoint.get("modelopt"):
        raise BadUseError(f"teacher={name} was trained with quantisation: use the float checkpoint it came from")
    head = dense_head(model, f"teacher={name}")
    found = str(getattr(model, "task", "unknown"))
    if task is not None and found != task:
        said = f"teacher={name} is a model for {found}, the student one for {task}"
        raise BadUseError(f"{said}: use a teacher for {task}")
    if head.cv2 is None:
        raise BadUseError(f"teacher={name} was fused for inference: use the checkpoint that training left")
    detach_adapters(model)
    model.eval().requires_grad_(False)
    names = tuple(str(model.names[i]) for i in sorted(model.names))
    found_at = Path(str(getattr(model, "pt_path", path)))  # a release's name becomes the file that was downloaded
    return Teacher(str(found_at.absolute()), model, state_hash(model), names, is_rotated(head), strides_of(head))


def _load(path: str) -> tuple[Any, dict[str, Any]]:
    """Load a checkpoint; whatever is wrong with the file becomes one line."""
    try:
        model, checkpoint = load_checkpoint(path)
    except FileNotFoundError as e:
        raise BadUseError(f"teacher={path} does not exist, and Ultralytics has no release of that name") from e
    except Exception as e:  # unpickling an arbitrary file can raise anything
        raise BadUseError(f"teacher={path} cannot be read as an Ultralytics checkpoint: {first_line(e)}") from e
    return model, checkpoint


def _single(found: Any) -> Any:
    """Return tensors, however nested, as contiguous float32 ones: what follows does not compute in halves."""
    if isinstance(found, Tensor):
        return found.float().contiguous() if found.is_floating_point() else found
    if isinstance(found, dict):
        return {key: _single(value) for key, value in found.items()}
    return [_single(value) for value in found] if isinstance(found, (list, tuple)) else found


class _Taps(nn.Module):
    """Stands where a model's head stood and hands back the features that it would have taken."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.f, self.i = head.f, head.i

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return the features."""
        return features


class FrozenTeacher:
    """A teacher bound to the levels that it shares with a student: Conv and BatchNorm folded, frozen in eval mode.

    Not a module, so that nothing that walks a model (optimizer, EMA, `train()`, checkpoint) can find it.

    Args:
        teacher (Teacher): Loaded teacher; its model is taken over and changed.
        student_strides (tuple[float, ...]): Strides of the student's levels.
        levels (list[int] | None): Strides to distil, see `heads.pair_levels`.
        bf16 (bool): Whether the forward pass runs in bfloat16 with channels last; what comes out is float32.

    Attributes:
        pairs (list[tuple[int, int]]): Student index and teacher index of each distilled level.
        head (Detect): View of the head on these levels, the full-frequency amplifier.
    """

    def __init__(
        self,
        teacher: Teacher,
        student_strides: tuple[float, ...],
        levels: list[int] | None = None,
        bf16: bool = False,
    ) -> None:
        self.pairs = pair_levels(student_strides, teacher.strides, levels)
        self.model = teacher.model
        kept = [t for _, t in self.pairs]
        self.model.model[-1] = take_levels(dense_head(self.model, "the teacher"), kept)
        self.model.fuse(verbose=False)
        self.model.requires_grad_(False)
        self.bf16 = bf16
        if bf16:
            self.model.to(memory_format=torch.channels_last)
        self.head = self.model.model[-1]
        # the same layers up to the head; copy.copy shares the dictionary of children, so it gets one of its own
        self._trunk = copy.copy(self.model)
        self._trunk._modules = {"model": nn.Sequential(*self.model.model[:-1], _Taps(self.head))}

    def to(self, device: torch.device) -> FrozenTeacher:
        """Move the teacher to a device and return it; the strides stay, reading them must not wait for a GPU."""
        self.model.to(device)
        self.head.stride = self.head.stride.cpu()
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> dict[str, Any]:
        """Return the raw predictions on the distilled levels; their 'feats' are the neck outputs.

        Args:
            images (Tensor): B x C x H x W in [0, 1], as the student gets them.

        Returns:
            (dict[str, Any]): See `heads.raw_predictions`.
        """
        predictions: dict[str, Any] = self._run(self.model, images)
        return predictions

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """Return the neck outputs of the distilled levels alone; the head does not run.

        Args:
            images (Tensor): As in the call.

        Returns:
            (list[Tensor]): B x C x H x W each, what the call's 'feats' are.
        """
        features: list[Tensor] = self._run(self._trunk, images)
        return features

    def _run(self, module: Any, images: Tensor) -> Any:
        """Return what a module says to images, in the precision that was asked for."""
        if not self.bf16:
            return module(images)
        with torch.autocast(images.device.type, torch.bfloat16):
            return _single(module(images.to(memory_format=torch.channels_last)))
