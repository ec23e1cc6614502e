"""The high-frequency amplifier: a copy of the teacher's head, trained on the high-frequency part of its features."""

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
    """Forward pre-hook that replaces the features of a head by their high-frequency part.

    A class, since closures cannot be pickled.

    Args:
        wavelet (str): Discrete wavelet of PyWavelets.
    """

    def __init__(self, wavelet: str) -> None:
        self.wavelet = wavelet

    def __call__(self, _: nn.Module, args: tuple[list[Tensor], ...]) -> tuple[list[Tensor]]:
        """Return the arguments of the forward pass with each feature replaced."""
        return (high_features(args[0], self.wavelet),)


def high_features(features: list[Tensor], wavelet: str) -> list[Tensor]:
    """Return the high-frequency part hf(x) of each feature: the upsampled sum of the high bands.

    Args:
        features (list[Tensor]): B x C x H x W of each level.
        wavelet (str): Discrete wavelet of PyWavelets.

    Returns:
        (list[Tensor]): Of the same shapes and dtypes; computed in float32.
    """
    with torch.autocast(features[0].device.type, enabled=False):
        return [high_frequency(x.float(), wavelet).to(x.dtype) for x in features]


# its checkpoints pickle the hook, and must load where only named types may (ULTRALYTICS_SAFE_LOAD)
torch.serialization.add_safe_globals([HighFrequencyInput])


class Amplifier:
    """A trained high-frequency amplifier on the distilled levels of a teacher, folded and frozen.

    Args:
        teacher (Teacher): The unfused teacher whose head it is a copy of.
        state (dict[str, Tensor]): Weights of its head.
        levels (list[int]): Indices of the distilled levels of the teacher.
        wavelet (str): Wavelet of the high-frequency features.

    Attributes:
        head (Detect): Takes the features that `inputs` returns.

    Raises:
        BadUseError: If the weights are not those of such a head.
    """

    def __init__(self, teacher: Teacher, state: dict[str, Tensor], levels: list[int], wavelet: str) -> None:
        model: Any = copy.copy(teacher.model)
        head = one_to_many(copy.deepcopy(dense_head(teacher.model, "the teacher")))
        try:
            head.load_state_dict(state)
        except RuntimeError as e:
            reason = (str(e).splitlines() or [""])[-1].strip()
            raise BadUseError(f"the amplifier's weights are not those of the teacher's head: {reason}") from e
        # fuse() is a method of models: call it on a copy of the model with this head as its only layer
        model._modules = {"model": nn.ModuleList([take_levels(head, levels).eval()])}
        model.fuse(verbose=False)
        self.head = model.model[-1]
        self.head.requires_grad_(False)
        self.wavelet = wavelet

    def to(self, device: torch.device) -> Amplifier:
        """Move the amplifier to a device.

        Args:
            device (torch.device): The device.

        Returns:
            (Amplifier): Itself.
        """
        self.head.to(device)
        return self

    def inputs(self, features: list[Tensor]) -> list[Tensor]:
        """Return the inputs of the head for neck features.

        Args:
            features (list[Tensor]): B x C x H x W of each level, with the teacher's channels.

        Returns:
            (list[Tensor]): See `high_features`.
        """
        return high_features(features, self.wavelet)

    def __call__(self, features: list[Tensor]) -> dict[str, Any]:
        """Return the raw predictions for neck features.

        Args:
            features (list[Tensor]): See `inputs`.

        Returns:
            (dict[str, Any]): See `heads.raw_predictions`.
        """
        return raw_predictions(self.head, self.inputs(features))


def one_to_many(head: Any) -> Any:
    """Remove the one-to-one branch of a head in place.

    Args:
        head (Any): Dense Ultralytics head, with or without such a branch.

    Returns:
        (Any): The head.
    """
    if head._modules.get("one2one_cv2") is not None:
        head.end2end = False
        head.fuse()
    return head
