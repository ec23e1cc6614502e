"""What only a CUDA device shows: loss scaling, channels_last, compilation for it, what AutoBatch expects."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.utils.torch_utils import profile_ops, unwrap_model

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.training.hooks.autobatch import WithTeacher
from tests.helpers.terms import ACTIVE

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

Make = Callable[..., DS2D2Trainer]


@pytest.fixture
def make(tiny_trainer: Make, checkpoint: Callable[..., Path]) -> Make:
    """A trainer on the first device."""
    teacher = str(checkpoint("yolov8n-obb.yaml", seed=7))
    return lambda **keys: tiny_trainer("obb", **{"device": "0", "teacher": teacher, "amplifier_epochs": 1, **keys})


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"amp": True}, torch.float16),
        ({"amp": "bf16"}, torch.bfloat16),
        ({"amp": False}, torch.float32),
        ({"channels_last": True}, torch.float16),
        ({"channels_last": False}, torch.float16),
        ({"compile": True, "imhi": 0.5}, torch.float16),
    ],
)
def test_distils(keys: dict[str, Any], kind: torch.dtype, make: Make) -> None:
    trainer, seen = make(epochs=2, **keys), set()

    def listen(t: Any) -> None:
        t.distiller.teacher.model.model[15].register_forward_hook(lambda _, __, y: seen.add(y.dtype))

    trainer.add_callback("on_train_start", listen)
    trainer.train()
    if trainer.amp or kind == torch.float32:  # Ultralytics turns float16 off where its own check fails
        assert seen == {kind}
    with (trainer.save_dir / "results.csv").open() as f:
        for row in csv.DictReader(f):
            assert all(0 < float(row[f"train/{t}_loss"]) < math.inf for t in ACTIVE)
            assert all(0 < float(row[f"gain/{t}"]) < math.inf for t in ACTIVE)
            assert float(row["left_out/images"]) == float(row["left_out/batches"]) == 0
    assert all(v.isfinite().all() for v in unwrap_model(trainer.model).state_dict().values())


def test_autobatch_expects_what_a_step_takes(make: Make) -> None:
    trainer, memory = make(batch=8, imgsz=320, amp=False, channels_last=False), []

    def profile(t: Any) -> None:
        assert t.distiller is not None
        model = WithTeacher(unwrap_model(t.model), t.distiller, 16)
        images = [torch.empty(8, 3, 320, 320)]
        memory.append(profile_ops(images, model, n=1, device=t.device, max_num_obj=16)[0][2] * 2**30)
        torch.cuda.reset_peak_memory_stats(t.device)

    trainer.add_callback("on_train_start", profile)
    trainer.add_callback("on_train_epoch_end", lambda t: memory.append(torch.cuda.max_memory_reserved(t.device)))
    trainer.train()
    expected, reserved = memory[:2]
    assert 0.85 * reserved < expected < 1.6 * reserved
