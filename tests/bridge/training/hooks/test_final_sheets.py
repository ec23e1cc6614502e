"""The sheets at the end of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ultralytics.utils import LOGGER

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.training.hooks import final_sheets


def test_a_run_with_plots_ends_with_sheets_of_its_last_checkpoint(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    explain_pair = final_sheets.explain_pair
    monkeypatch.setattr(
        final_sheets, "explain_pair", lambda options, *a: (shown.append(options.student), explain_pair(options, *a))[1]
    )
    trainer = tiny_trainer(plots=True, imhi=0.0)
    trainer.train()
    assert shown == [str(trainer.wdir / "last.pt")]
    folder = trainer.save_dir / "explain"
    assert (folder / "index.html").is_file()
    assert len(list(folder.glob("sheet-*.png"))) == 4


@pytest.mark.slow
def test_pictures_that_fail_are_a_warning(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []

    def fail(*_: object) -> None:
        raise RuntimeError("no room\nat all")

    monkeypatch.setattr(final_sheets, "write_explanation", fail)
    monkeypatch.setattr(LOGGER, "warning", lambda text, *_: warnings.append(str(text)))
    trainer = tiny_trainer(plots=True, imhi=0.0)
    trainer.train()
    assert [w for w in warnings if "sheets" in w] == [
        "DS2D2: the run has no sheets: no room; to repeat it: ds2d2-yolo explain"
    ]
    assert "model" in torch.load(trainer.wdir / "last.pt", weights_only=False)


@pytest.mark.parametrize(
    "keys", [{"plots": False, "imhi": 0.0}, pytest.param({"plots": True, "gains": 0.0}, marks=pytest.mark.slow)]
)
def test_no_sheets_without_plots_or_distillation(
    keys: dict[str, object], tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_sheets, "explain_pair", lambda *_: pytest.fail("called"))
    trainer = tiny_trainer(**keys)
    trainer.train()
    assert not Path(trainer.save_dir, "explain").exists()


@pytest.mark.slow
def test_no_sheets_where_the_teacher_sees_more(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They show both models at one size."""
    notes: list[str] = []
    monkeypatch.setattr(LOGGER, "info", lambda text="", *_: notes.append(str(text)))
    monkeypatch.setattr(final_sheets, "explain_pair", lambda *_: pytest.fail("called"))
    trainer = tiny_trainer(plots=True, imhi=0.0, imgsz=64, teacher_imgsz=128)
    trainer.train()
    assert any("the run has no sheets: explain shows both models at one size" in note for note in notes)
