"""AutoBatch with a teacher: what is profiled is what a training step keeps, and the student stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from ultralytics.engine import trainer as upstream
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.preflight.memory_estimate import sample_batch, saved_for_backward, step_bytes
from ds2d2_yolo.bridge.training.hooks.autobatch import WithTeacher
from tests.helpers.memory import Live
from tests.helpers.settings import OFF


@pytest.fixture
def profiled(tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Set a run up as if on a GPU: AutoBatch is asked, by a profiler that counts what autograd keeps."""

    def setup(task: str, budget: float, **keys: Any) -> tuple[DS2D2Trainer, dict[str, Any]]:
        seen: dict[str, Any] = {}

        def check(model: Any, imgsz: int, amp: bool, batch: float, max_num_obj: int, dataset_size: int) -> int:
            model = deepcopy(model).train()
            peaks = []
            for images in (2, 4, 8):
                with Live() as live:
                    x = torch.rand(images, 3, imgsz, imgsz, requires_grad=True)
                    y = model(x)
                    sum(t.sum() for t in tree_leaves(y) if isinstance(t, Tensor)).backward()
                    del x, y
                peaks.append(live.peak)
            slope, start = np.polyfit([2, 4, 8], peaks, 1)
            seen.update(model=model, slope=slope, start=start, objects=max_num_obj, imgsz=imgsz)
            return int((budget - start) / slope)

        monkeypatch.setattr(upstream, "check_train_batch_size", check)
        made = tiny_trainer(task, batch=-1, **keys)
        made._setup_train()
        return made, seen

    return setup


@pytest.mark.parametrize("task", ["obb", "detect"])
def test_counts_what_a_step_keeps(task: str, profiled: Callable[..., Any]) -> None:
    trainer, seen = profiled(task, 2e8, imhi=0)
    assert isinstance(seen["model"], WithTeacher)
    student = deepcopy(unwrap_model(trainer.model))
    distiller = copy(trainer.distiller)
    distiller.adapters = student.ds2d2_adapters
    batch = sample_batch(dense_head(student, "the student"), 3, seen["imgsz"])
    expected = step_bytes(student, distiller, 3, seen["imgsz"], amp=False)
    plain = saved_for_backward(student, None, batch)
    assert 0.85 < seen["slope"] / (expected.activations + expected.measuring) < 1.25
    assert seen["slope"] > 1.2 * plain.images
    assert seen["objects"] == 4 * 4  # four objects an image, four images in a mosaic
    assert trainer.batch_size == trainer.args.batch == int((2e8 - seen["start"]) / seen["slope"])


def test_counts_the_terms_of_a_teacher_that_sees_more(profiled: Callable[..., Any]) -> None:
    """The profiler gives images of the student's size; a larger copy goes to the teacher."""
    trainer, seen = profiled("detect", 2e8, imhi=0, imgsz=64, teacher_imgsz=128)
    assert seen["imgsz"] == 64
    assert trainer.distiller.teacher.ratio == 2
    outputs, terms = seen["model"](torch.rand(1, 3, 64, 64))
    assert outputs["feats"][0].shape[2:] == (8, 8)
    assert set(terms) == {"exlo", "exhi", "imfu"}


def test_takes_fewer_images_than_the_student_alone(profiled: Callable[..., Any]) -> None:
    undistilled, _ = profiled("obb", 1.5e8, name="undistilled", **OFF)
    distilled, _ = profiled("obb", 1.5e8, name="distilled", imhi=0)
    assert 1 <= distilled.batch_size < undistilled.batch_size


def test_leaves_the_student_as_it_was(profiled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, seen = profiled("obb", 2e8, imhi=0)
    assert not isinstance(unwrap_model(trainer.model), WithTeacher)
    assert all(p.grad is None for p in trainer.model.parameters())
    assert all(p.grad is not None for p in seen["model"].student.ds2d2_adapters.parameters())
    assert seen["model"]._distiller is trainer.distiller
    assert all(int(b) == 0 for n, b in trainer.model.named_buffers() if "num_batches" in n)


def test_on_a_cpu_it_is_ultralytics_own(tiny_trainer: Callable[..., DS2D2Trainer]) -> None:
    trainer = tiny_trainer("obb", batch=-1, imhi=0)
    trainer._setup_train()
    assert trainer.batch_size == 16
