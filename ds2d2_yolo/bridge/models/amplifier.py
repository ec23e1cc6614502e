"""The high-frequency amplifier: a copy of the teacher's head that answers to high-frequency features, and its file."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.models.heads import dense_head, raw_predictions, take_levels
from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.core.wavelet import high_frequency
from ds2d2_yolo.errors import BadUseError

FORMAT = "ds2d2-amplifier-2"
KINDS: dict[Any, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float)}  # by the type of a card's value


class HighFrequencyInput:
    """Forward pre-hook that hands a head the high-frequency part of its features; a class, so that it can be copied.

    Args:
        wavelet (str): Discrete wavelet of PyWavelets.
    """

    def __init__(self, wavelet: str) -> None:
        self.wavelet = wavelet

    def __call__(self, _: nn.Module, args: tuple[list[Tensor], ...]) -> tuple[list[Tensor]]:
        """Return the arguments of the head's forward pass with each feature replaced."""
        return (high_features(args[0], self.wavelet),)


def high_features(features: list[Tensor], wavelet: str) -> list[Tensor]:
    """Return hf(x) of each level: the high bands' sum, upsampled; computed in float32, in the dtype it came in."""
    with torch.autocast(features[0].device.type, enabled=False):
        return [high_frequency(x.float(), wavelet).to(x.dtype) for x in features]


# its checkpoints pickle the hook, and must load where only named types may (ULTRALYTICS_SAFE_LOAD)
torch.serialization.add_safe_globals([HighFrequencyInput])


class Amplifier:
    """A trained high-frequency amplifier bound to a teacher's levels, folded and frozen.

    Args:
        teacher (Teacher): The unfused teacher that it was trained from.
        state (dict[str, Tensor]): Weights of its head.
        levels (list[int]): The teacher's levels that are distilled.
        wavelet (str): Wavelet of its features.

    Attributes:
        head (Detect): Takes what `inputs` returns.

    Raises:
        BadUseError: If the weights are not those of such a head.
    """

    def __init__(self, teacher: Teacher, state: dict[str, Tensor], levels: list[int], wavelet: str) -> None:
        model: Any = copy.copy(teacher.model)
        head = one_to_many(copy.deepcopy(dense_head(teacher.model, "the teacher")))
        try:
            head.load_state_dict(state)
        except RuntimeError as e:
            said = (str(e).splitlines() or [""])[-1].strip()
            raise BadUseError(f"the amplifier's weights are not those of the teacher's head: {said}") from e
        # fuse() is a method of models: lend it a model whose body is this head alone
        model._modules = {"model": nn.ModuleList([take_levels(head, levels).eval()])}
        model.fuse(verbose=False)
        self.head = model.model[-1]
        self.head.requires_grad_(False)
        self.wavelet = wavelet

    def to(self, device: torch.device) -> Amplifier:
        """Move the amplifier to a device and return it."""
        self.head.to(device)
        return self

    def inputs(self, features: list[Tensor]) -> list[Tensor]:
        """Return what the head takes for given neck features of the teacher's width."""
        return high_features(features, self.wavelet)

    def __call__(self, features: list[Tensor]) -> dict[str, Any]:
        """Return the raw predictions for neck features."""
        return raw_predictions(self.head, self.inputs(features))


def one_to_many(head: Any) -> Any:
    """Remove a head's one-to-one branch in place and return the head; one without such a branch stays as it is."""
    if head._modules.get("one2one_cv2") is not None:
        head.end2end = False
        head.fuse()
    return head
