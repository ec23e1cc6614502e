"""A step whose gradient is not finite reaches no weight; where nothing else comes, the run ends with one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ultralytics.utils.patches import torch_load

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.errors import DS2D2Error


def spoil(trainer: DS2D2Trainer, bad: Callable[[int], bool], value: float) -> list[int]:
    """Make the task loss of some batches not finite, through the student's own criterion; return the batches."""
    seen: list[int] = []

    def install(t: Any) -> None:
        base = t.model.criterion.base

        def loss(preds: Any, batch: dict[str, Any]) -> Any:
            total, items = base(preds, batch)
            seen.append(len(seen))
            return (total * value if bad(seen[-1]) else total), items

        loss.assigner, loss.parse_output = base.assigner, base.parse_output  # type: ignore[attr-defined]
        t.model.criterion.base = t.model.criterion.dense = loss

    trainer.add_callback("on_train_start", install)
    return seen


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
def test_a_loss_that_is_not_finite_in_one_batch_reaches_no_weight(
    value: float, tiny_trainer: Callable[..., DS2D2Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tiny_trainer("obb", epochs=2, imhi=0, exact_resume=False)
    spoil(trainer, lambda i: i == 0, value)  # of the first epoch, which Ultralytics cannot repeat
    trainer.train()
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters()), "what is saved, Ultralytics makes finite"
    assert "epoch 1: a gradient is not finite: such a step is left out" in caplog.text
    for file in (trainer.last, trainer.best):
        state = torch_load(file, map_location="cpu")["model"].state_dict()
        assert all(torch.isfinite(t).all() for t in state.values())
    assert (trainer.save_dir / "results.csv").read_text(encoding="utf-8").count("\n") == 3


def test_one_that_never_is_ends_the_run_and_leaves_what_was_saved(tiny_trainer: Callable[..., DS2D2Trainer]) -> None:
    trainer = tiny_trainer("obb", epochs=4, imhi=0)
    spoil(trainer, lambda i: i >= 2, float("nan"))  # from the second epoch on
    with pytest.raises(DS2D2Error, match="a gradient is not finite, 3 steps in a row"):
        trainer.train()
    saved = torch_load(trainer.last, map_location="cpu")
    assert saved["epoch"] == 0
    assert all(torch.isfinite(t).all() for t in saved["ema"].state_dict().values())
