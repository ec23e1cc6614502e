"""A run in bfloat16 on a CPU: the student's step under autocast, as `amp=bf16` runs it on CUDA.

Ultralytics' autocast acts on CUDA only, so the test opens torch's autocast for the CPU around the model's own step. The
training of an amplifier for `imhi` takes the same step. Loss scaling, float16 and kernels of a GPU are not covered.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import BaseModel

from ds2d2_yolo import DS2D2Trainer
from tests.helpers.terms import ACTIVE


def use_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the step of every model under autocast to bfloat16: its forward pass and its criterion."""
    step = BaseModel.loss

    def step_in_bfloat16(self: BaseModel, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return step(self, *args, **kwargs)

    monkeypatch.setattr(BaseModel, "loss", step_in_bfloat16)


@pytest.mark.parametrize(
    ("task", "settings"), [("obb", {"imhi": 0.0}), pytest.param("detect", {}, marks=pytest.mark.slow)]
)
def test_trains_in_bfloat16(
    task: str, settings: dict[str, Any], tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_bfloat16(monkeypatch)
    trainer = tiny_trainer(task, **settings)
    neck: set[torch.dtype] = set()
    losses: set[torch.dtype] = set()

    def listen(t: Any) -> None:
        for model in (t.model, t.distiller.teacher.model):
            model.model[15].register_forward_hook(lambda _, __, y: neck.add(y.dtype))

    trainer.add_callback("on_train_start", listen)
    trainer.add_callback("on_train_batch_end", lambda t: losses.update(x.dtype for x in t.loss_items.values()))
    trainer.train()
    assert neck == {torch.bfloat16}
    assert losses == {torch.float32}
    with (trainer.save_dir / "results.csv").open() as f:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]
    for row in rows:
        for term in set(ACTIVE) - set(settings):
            assert 0 < row[f"train/{term}_loss"] < math.inf, term
            assert 0 < row[f"gain/{term}"] < math.inf, term
            assert 0 < row[f"share/{term}"] < math.inf, term
        assert row["left_out/images"] == row["left_out/batches"] == 0
    assert all(v.isfinite().all() for v in trainer.model.state_dict().values())
