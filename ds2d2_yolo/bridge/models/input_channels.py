"""Input channels: selects the channels of the data that a teacher takes, in the teacher's order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.errors import BadUseError


class PickChannels:
    """Forward pre-hook that passes some of the images' channels to a first layer; a class, to be pickled.

    Images with another number of channels than the data pass unchanged: Ultralytics (8.4.190) measures FLOPs and batch
    sizes on images made for the first convolution.

    Args:
        channels (tuple[int, ...]): Indices of the channels to take, in order.
        of (int): Number of channels of the data.
    """

    def __init__(self, channels: tuple[int, ...], of: int) -> None:
        self.channels = channels
        self.of = of

    def __call__(self, _: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        """Return the arguments of the forward pass with the chosen channels, None to leave them unchanged."""
        images = args[0]
        if images.shape[1] != self.of:
            return None
        return (torch.stack([images[:, c] for c in self.channels], 1),)  # an index list would wait for the GPU


# the amplifier's checkpoints pickle the hook, and must load where only named types may (ULTRALYTICS_SAFE_LOAD)
torch.serialization.add_safe_globals([PickChannels])


def input_channels(model: Any) -> int:
    """Return the number of input channels of the first convolution.

    Args:
        model (Any): Ultralytics model.

    Returns:
        (int): Number of channels.
    """
    return next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels


def fit_channels(teacher: Teacher, data_channels: int, chosen: list[int] | None) -> tuple[int, ...]:
    """Make a teacher take the images of the data set.

    The selection is a hook on the first layer, the only one that sees the images: Ultralytics' loss calls `forward` of
    a model directly, which bypasses hooks on the model. The hook survives copies, pickles and folding, and changes no
    weight, so the teacher's hash stays the same.

    Args:
        teacher (Teacher): Loaded teacher; its model gets the hook, so this is called once.
        data_channels (int): `channels` of the data YAML, 3 if it names none.
        chosen (list[int] | None): Indices of the data's channels that the teacher takes, in the teacher's order, from
            0, as a model gets them: in the order of the file, but red, green, blue where there are 3, and blue, green,
            red first in a TIFF or PNG of these and a fourth, as OpenCV reads it, which also multiplies the colours by a
            fourth that is marked as alpha. Repeats are allowed. None takes all channels in order.

    Returns:
        (tuple[int, ...]): Indices of the channels that the teacher takes.

    Raises:
        BadUseError: If the numbers differ and nothing is chosen, or the choice does not fit teacher or data.
    """
    taken_channels = input_channels(teacher.model)
    picked = tuple(range(data_channels)) if chosen is None else tuple(chosen)
    if chosen is None and taken_channels != data_channels:
        example = [c % data_channels for c in range(taken_channels)]
        numbers = f"the teacher takes {taken_channels} channels and the data have {data_channels}"
        raise BadUseError(
            f"{numbers}: name the data's channels that it takes, in its order, such as teacher_channels={example}"
        )
    if len(picked) != taken_channels:
        numbers = f"teacher_channels={chosen} names {len(picked)} channels and the teacher takes {taken_channels}"
        raise BadUseError(f"{numbers}: name {taken_channels} of the data's {data_channels}, repeats are allowed")
    if not all(0 <= c < data_channels for c in picked):
        raise BadUseError(
            f"teacher_channels={chosen}: the data have {data_channels} channels, 0 to {data_channels - 1}"
        )
    if picked != tuple(range(data_channels)):
        teacher.model.model[0].register_forward_pre_hook(PickChannels(picked, data_channels))
    return picked
