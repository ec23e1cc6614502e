"""Input channels: a teacher that takes some of the data's channels gets those, in its own order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.errors import BadUseError


class PickChannels:
    """Forward pre-hook that hands a first layer some of the images' channels; a class, so that it can be copied.

    Images of another number of channels than the data's pass as they are: Ultralytics measures FLOPs and batch sizes on
    images made for the first convolution (8.4.190).

    Args:
        channels (tuple[int, ...]): The channels to take, in order.
        of (int): Number of the data's channels.
    """

    def __init__(self, channels: tuple[int, ...], of: int) -> None:
        self.channels = channels
        self.of = of

    def __call__(self, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        """Return the arguments of the layer's forward pass with the channels chosen, None to leave them."""
        images = args[0]
        if images.shape[1] != self.of:
            return None
        return (torch.stack([images[:, c] for c in self.channels], 1),)  # an index list would wait for the GPU


# the amplifier's checkpoints pickle the hook, and must load where only named types may (ULTRALYTICS_SAFE_LOAD)
torch.serialization.add_safe_globals([PickChannels])


def input_channels(model: Any) -> int:
    """Return how many channels the first convolution of an Ultralytics model takes."""
    return next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels


def fit_channels(teacher: Teacher, data_channels: int, chosen: list[int] | None) -> tuple[int, ...]:
    """Let a teacher take the data's images.

    The choice is a hook on the first layer, the only one that sees the images: the loss path of Ultralytics calls a
    model's `forward` directly, past hooks on the whole model. It travels with copies, pickles and folding, and changes
    no weight, so the teacher's hash stays.

    Args:
        teacher (Teacher): Loaded teacher; its model gets the hook, so call it once.
        data_channels (int): `channels` of the data YAML, 3 where it names none.
        chosen (list[int] | None): The data's channels that the teacher takes, in its order, counted from 0 as a model
            gets them: as they lie in the file, but red, green, blue where there are 3, and blue, green, red first in a
            TIFF or PNG of these and a fourth, as OpenCV reads it; it also multiplies the colours by a fourth that is
            marked as alpha. A channel may stand repeatedly. None takes all as they are.

    Returns:
        (tuple[int, ...]): The channels that the teacher takes.

    Raises:
        BadUseError: If the numbers differ and nothing is chosen, or the choice does not fit teacher or data.
    """
    wanted = input_channels(teacher.model)
    picked = tuple(range(data_channels)) if chosen is None else tuple(chosen)
    if chosen is None and wanted != data_channels:
        example = [c % data_channels for c in range(wanted)]
        said = f"the teacher takes {wanted} channels and the data have {data_channels}"
        raise BadUseError(
            f"{said}: name the data's channels that it takes, in its order, such as teacher_channels={example}"
        )
    if len(picked) != wanted:
        said = f"teacher_channels={chosen} names {len(picked)} channels and the teacher takes {wanted}"
        raise BadUseError(f"{said}: name {wanted} of the data's {data_channels}, repeats are allowed")
    if not all(0 <= c < data_channels for c in picked):
        raise BadUseError(
            f"teacher_channels={chosen}: the data have {data_channels} channels, 0 to {data_channels - 1}"
        )
    if picked != tuple(range(data_channels)):
        teacher.model.model[0].register_forward_pre_hook(PickChannels(picked, data_channels))
    return picked
