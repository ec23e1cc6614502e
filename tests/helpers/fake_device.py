"""A distilled step on a device that this machine lacks, and a mode that finds what makes the host wait for it.

Under `FakeTensorMode` tensors have shape, type and device, but no values, so operations on `cuda` run without one. An
operation that mixes devices raises there. `WaitDetector` adds what a real device would only show as lost time.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import ultralytics
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.nn.tasks import OBBModel

import ds2d2_yolo
from ds2d2_yolo.bridge.distillation.criterion import DistillationCriterion
from ds2d2_yolo.bridge.distillation.gains import CALIBRATION_BATCHES
from ds2d2_yolo.bridge.distillation.gradients.levels import TASK, level_key
from ds2d2_yolo.bridge.models.adapters import attach_adapters, detach_adapters
from tests.helpers.distillation import batch_of, build

aten = torch.ops.aten
ULTRALYTICS, PACKAGE, TESTS = (
    Path(ultralytics.__file__).parent, Path(ds2d2_yolo.__file__).parent, Path(__file__).parents[1]
)  # fmt: skip
VALUE_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)
SHOWN_FRAMES = 6
# What upstream's waits are answered with, as there are no values: a number for each type, and so many chosen rows.
SCALARS, ROWS = {torch.bool: False, torch.float32: 8.0, torch.int64: 3, torch.int32: 3}, 7


class DeviceWaitError(AssertionError):
    """The package makes the host wait for the device."""


class WaitDetector(TorchDispatchMode):
    """Raises `DeviceWaitError`, with the place, where the package makes the host wait for a device other than the CPU.

    Found are reads of values (`.item()`, `.tolist()`, `bool()`, `float()`, `if`), results whose shape depends on values
    (`nonzero`, `unique`, a mask as an index, `repeat_interleave` without a size), copies to the CPU, and copies to a
    CUDA device that are not asynchronous (`torch.tensor(..., device=)`, a list as an index). Under anomaly detection, a
    wait in a backward pass is named by its forward operation. Waits inside a kernel, such as those of a solver, and of
    the memory allocator are not visible.

    Args:
        upstream (Mapping[str, str]): Places of Ultralytics' criterion that may wait, `file.py:function`, with reasons.
        package (Mapping[str, str]): Places of the package inside which anything may wait, with reasons.
    """

    def __init__(self, upstream: Mapping[str, str] | None = None, package: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.upstream, self.package = upstream or {}, package or {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, unless it waits where it must not; answer for the values that it reads."""
        kwargs = kwargs or {}
        if (kind := kind_of_wait(func, args, kwargs)) is None:
            return func(*args, **kwargs)
        self.refuse_unlisted(kind)
        return answer(func, args, kwargs)

    def refuse_unlisted(self, kind: str) -> None:
        """Raise unless the place of the current operation is listed."""
        upstream, callers = [], []
        for file, function, line in frames():
            if file.is_relative_to(ULTRALYTICS) and not callers:
                upstream.append(f"{file.name}:{function}")
            elif file.is_relative_to(PACKAGE) or (file.is_relative_to(TESTS) and file != Path(__file__)):
                callers.append((f"{file.name}:{function}", f"{file.parent.name}/{file.name}:{line} in {function}"))
        if any(name in self.package for name, _ in callers):
            return
        # the package may call what the criterion calls, with arguments of its own: the criterion must be the caller
        if upstream and upstream[0] in self.upstream and any(name.startswith("loss.py:") for name in upstream):
            return
        places = [*upstream, *(place for _, place in callers)]
        raise DeviceWaitError(f"{kind} waits for the device: {' < '.join(places[:SHOWN_FRAMES])}")


def frames() -> Iterator[tuple[Path, str, int]]:
    """File, function and line of each frame of the stack, the innermost first.

    In a backward pass under anomaly detection, the frames of the running node's forward operation come first.
    """
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_engine_run_backward":
            yield from forward_frames()
        yield Path(frame.f_code.co_filename), frame.f_code.co_name, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]


def forward_frames() -> Iterator[tuple[Path, str, int]]:
    """The frames in which the node of the backward pass that is running was made."""
    node = torch._C._current_autograd_node()
    lines = "" if node is None else "".join(node.metadata.get("traceback_", ()))
    for file, line, function in reversed(re.findall(r'File "(.+)", line (\d+), in (.+)', lines)):
        yield Path(file), function, int(line)


def kind_of_wait(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """The name of an operation that makes the host wait, None for one that does not."""
    if not args or not isinstance(args[0], Tensor):
        return None
    device = args[0].device
    if func is aten._to_copy.default:
        return kind_of_copy(device, kwargs.get("device") or device, kwargs.get("non_blocking", False))
    if func is aten.copy_.default:
        return kind_of_copy(args[1].device, device, kwargs.get("non_blocking", len(args) > 2 and args[2]))
    if device.type == "cpu":
        return None
    if func in INDEXING:
        return f"a mask as an index ({func})" if any(is_mask(i) for i in args[1]) else None
    if func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is not None:
        return None
    return str(func) if VALUE_TAGS & set(func.tags) else None


def kind_of_copy(source: torch.device, target: torch.device, asynchronous: bool) -> str | None:
    """The name of a copy between devices that makes the host wait."""
    if source.type != "cpu" and target.type == "cpu":
        return "a copy to the CPU"
    return "a copy to the device" if source.type == "cpu" and target.type == "cuda" and not asynchronous else None


def is_mask(index: Tensor | None) -> bool:
    """Whether an index chooses by its values."""
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def answer(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The result of an operation that reads values: right in type and shape, for made-up values."""
    x = args[0]
    if func is aten._local_scalar_dense.default:
        return SCALARS[x.dtype]
    if func is aten.nonzero.default:
        return x.new_empty((ROWS, x.ndim), dtype=torch.long)
    if func is aten._unique2.default:  # values, the index of each element's value, counts; a value for each image
        return x.new_empty(2), torch.empty_like(x), x.new_empty(2)
    if func in INDEXING:
        chosen = []
        for index in args[1]:
            chosen += [index.new_empty(ROWS, dtype=torch.long)] * index.ndim if is_mask(index) else [index]
        return func(x, chosen, *args[2:], **kwargs)
    if x.is_meta:  # which torch copies nowhere
        return torch.ones(x.shape, dtype=kwargs.get("dtype") or x.dtype)
    return func(*args, **kwargs)


def build_step(
    student: str,
    teacher: Path,
    columns: list[int] | None = None,
    measured: bool = False,
    **settings: Any,
) -> tuple[nn.Module, DistillationCriterion]:
    """A student on the CPU with the criterion of a distillation in its first epoch.

    Args:
        student (str): Model YAML.
        teacher (Path): Checkpoint.
        columns (list[int] | None): Columns of the teacher with the classes that the student shares.
        measured (bool): Whether the gradients of the next batch are measured.
        **settings (Any): Of the distillation; gains are 1.

    Returns:
        model (nn.Module): In training mode.
        criterion (DistillationCriterion): Of the model, to be placed.
    """
    model, criterion = build(student, teacher, **settings)
    distiller = criterion.distiller
    assert distiller is not None
    if columns is not None:
        distiller.teacher_columns = columns
    distiller.start_epoch(0)
    names = (TASK, *distiller.settings.active)
    keys = [level_key(name, stride) for name in names for stride in (None, *distiller.strides)]
    for _ in range(0 if measured else CALIBRATION_BATCHES):
        criterion.gains.calibrate(dict.fromkeys(keys, 1.0), 1.0, distiller.strides)
    assert criterion.gains.calibrating == measured
    return model, criterion


def place_step(device: str, model: Any, criterion: DistillationCriterion) -> dict[str, Tensor]:
    """Move student, distiller and a batch to a device as a trainer does, so that `model(batch)` is the step.

    Args:
        device (str): 'cuda' under `FakeTensorMode`, or 'meta'.
        model (Any): From `build_step`.
        criterion (DistillationCriterion): From `build_step`.

    Returns:
        (dict[str, Tensor]): Batch of two images with objects.
    """
    distiller = criterion.distiller
    assert distiller is not None
    detach_adapters(model)  # they move with the distiller: a tensor of FakeTensorMode moves once
    model.to(device)
    with WaitDetector(package={"distiller.py:to": "once in a run"}):
        distiller.to(torch.device(device))
    attach_adapters(model, distiller.adapters)
    for head in (distiller.teacher.head, *(view.head for view in distiller.heads.values())):
        if isinstance(head.stride, Tensor):
            assert head.stride.device.type == "cpu", "reading a stride waits for the device"
            head.stride = distiller.strides  # type: ignore[assignment]  # FakeTensorMode takes the values away
    with WaitDetector({"loss.py:__init__": "reads the strides, once in a run"}):
        criterion.base = model.init_criterion()
    model.criterion = criterion
    return {k: v.to(device, non_blocking=True) for k, v in batch_of(isinstance(model, OBBModel)).items()}
