"""Read a student's neck through its teacher's head: is it the neck that lags behind the teacher, or the head?

Takes the last.pt of a distillation that is not finished, which still holds the adapters, and writes a plain Ultralytics
model: the student up to its neck, then the teacher's head with the adapters in its first convolutions, which is G(A S)
of the implicit stream. Any tool that validates models tells what it reaches, next to the student's own head.

    python tools/through_teacher.py runs/obb/train/weights/last.pt teacher.pt through.pt
    ds2d2-yolo val model=through.pt data=my-data.yaml

Heads whose branches open with dense convolutions only (YOLOv5u, v6, v8, v9); a finished run holds no adapters.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.nn.modules.conv import Conv
from ultralytics.nn.tasks import torch_safe_load

from ds2d2_yolo.bridge.models.adapters import detach_adapters, get_adapters
from ds2d2_yolo.bridge.models.heads import dense_head, is_rotated, pair_levels, strides_of
from ds2d2_yolo.bridge.models.teacher import load_teacher


def narrow(block: Any, adapter: torch.Tensor) -> None:
    """Have the block that opens a branch take the student's feature: the kernel becomes the product of W and A."""
    if type(block) is not Conv or block.conv.groups != 1:
        raise SystemExit("the teacher's head opens with depthwise convolutions, in which no adapter can be folded")
    weight = torch.einsum("otij,ts->osij", block.conv.weight.double(), adapter.double().flatten(1))
    block.conv.in_channels, block.conv.weight = adapter.shape[1], nn.Parameter(weight.float())


def through_teacher(last: Path, teacher: Path) -> dict[str, Any]:
    """Return a checkpoint of the student whose head is the teacher's.

    Args:
        last (Path): last.pt of an unfinished distillation.
        teacher (Path): Its teacher.

    Returns:
        (dict[str, Any]): For `torch.save`.
    """
    checkpoint, _ = torch_safe_load(last)
    student: Any = (checkpoint.get("ema") or checkpoint["model"]).float()
    adapters, head = get_adapters(student), dense_head(student, "the student")
    if adapters is None:
        raise SystemExit(f"{last} holds no adapters: it must be the last.pt of a distillation that is not finished")
    loaded = load_teacher(str(teacher), "obb" if is_rotated(head) else "detect")
    teacher_head = copy.deepcopy(dense_head(loaded.model, "the teacher"))
    pairs = pair_levels(strides_of(head), strides_of(teacher_head))
    if not len(pairs) == head.nl == teacher_head.nl == len(adapters):
        raise SystemExit("student and teacher must have the same levels, and all of them be distilled")
    for branches in teacher_head.one2many.values():
        for branch, adapter in zip(branches, adapters, strict=True):
            narrow(branch[0], adapter.weight.detach())
    teacher_head.f, teacher_head.i = head.f, head.i
    detach_adapters(student)
    student.model[-1], student.names = teacher_head, loaded.model.names  # it answers with the teacher's classes
    return {**checkpoint, "ema": None, "model": student.half(), "optimizer": None}


def main(argv: list[str] | None = None) -> None:
    """Write the model.

    Args:
        argv (list[str] | None): Of the command line, None is this process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("last", type=Path, help="last.pt of a distillation that is not finished")
    parser.add_argument("teacher", type=Path, help="its teacher")
    parser.add_argument("out", type=Path, help="file to write")
    arguments = parser.parse_args(argv)
    torch.save(through_teacher(arguments.last, arguments.teacher), arguments.out)


if __name__ == "__main__":
    main()
