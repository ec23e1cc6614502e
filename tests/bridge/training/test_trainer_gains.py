"""Automatic gains inside a run: measured, logged, kept over a restart, and gone when distillation ends."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.distillation.gradients.norms import measure_gradients
from ds2d2_yolo.bridge.models.adapters import get_adapters
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.config.settings import TERMS
from tests.helpers.terms import ACTIVE

Trainer = Callable[..., DS2D2Trainer]


def rows_of(trainer: DS2D2Trainer) -> list[dict[str, float]]:
    with (Path(trainer.save_dir) / "results.csv").open() as f:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]


def recorded_norms(trainer: DS2D2Trainer) -> list[dict[str, float]]:
    """Return a list that fills with the gradient norms of each measured batch."""
    norms: list[dict[str, float]] = []

    def start(t: Any) -> None:
        calibrate = t.gains.calibrate
        t.gains.calibrate = lambda batch, *args: (norms.append(dict(batch)), calibrate(batch, *args))[1]

    trainer.add_callback("on_train_start", start)
    return norms


@pytest.mark.parametrize("task", ["obb", pytest.param("detect", marks=pytest.mark.slow)])
def test_terms_send_their_shares(task: str, tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer(task, epochs=3, warmup_epochs=1)
    trainer.train()
    rows = rows_of(trainer)
    assert trainer.gains.frozen
    assert rows[0]["gain/exlo"] > 0, "the warm-up has gains already"
    for term, share in trainer.run.settings.shares.items():
        assert rows[1][f"share/{term}"] == pytest.approx(share, rel=0.5), "settled in the second epoch"
        assert rows[2][f"gain/{term}"] == rows[1][f"gain/{term}"], "and kept from then on"
        assert rows[2][f"ratio/{term}"] == pytest.approx(
            rows[2][f"train/{term}_loss"]
            / sum(v for k, v in rows[2].items() if k.startswith("train/") and k[6:10] not in TERMS),
            rel=1e-3,
        )
    for term in trainer.run.settings.active:
        squares = [(rows[1][f"share/{term}@{s}"] * rows[1][f"grad/task@{s}"]) ** 2 for s in (8, 16, 32)]
        total = rows[1][f"share/{term}"] * rows[1]["grad/task"]
        assert math.sqrt(sum(squares)) == pytest.approx(total, rel=0.3), "but for medians over the batches"
    assert all(math.isfinite(v) for row in rows for v in row.values())


def test_shares_are_settings(tiny_trainer: Trainer) -> None:
    gains = []
    for share in (0.1, 0.4):  # each is seeded where it is made, and does not move: both measure the same weights
        trainer = tiny_trainer("obb", imhi=0, imfu_share=share, name=str(share), lr0=1e-8)
        trainer.train()
        gains.append(trainer.gains.automatic["imfu"])
    assert gains[1] / gains[0] == pytest.approx(4, rel=1e-3)


def test_one_number_for_all(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb", gains=0.5, exhi=0)
    trainer.train()
    row = rows_of(trainer)[0]
    assert [row[f"gain/{t}"] for t in ACTIVE] == [0.5, 0, 0.5, 0.5]


def test_distillation_ends(tiny_trainer: Trainer) -> None:
    """The teacher is not even run, the adapters stay where they are, and the columns say so."""
    trainer = tiny_trainer("obb", epochs=3, gain_epochs=1, imhi=0)
    calls: list[int] = []

    def start(t: Any) -> None:
        original = t.distiller.teacher_outputs
        t.distiller.teacher_outputs = lambda *inputs: (calls.append(t.epoch), original(*inputs))[1]

    def end(t: Any) -> None:
        adapters = get_adapters(t.model)
        assert adapters is not None
        assert all(p.grad is None for p in adapters.parameters())

    trainer.add_callback("on_train_start", start)
    trainer.add_callback("on_train_epoch_end", end)
    trainer.train()
    assert set(calls) == {0}
    rows = rows_of(trainer)
    assert rows[0]["train/exlo_loss"] > 0
    assert [rows[e][f"train/{t}_loss"] for e in (1, 2) for t in TERMS] == [0] * 2 * len(TERMS)
    assert [rows[e][f"gain/{t}"] for e in (1, 2) for t in TERMS] == [0] * 2 * len(TERMS)


def test_measuring_leaves_the_run_alone(tiny_trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With given gains the measurement is for the log: a run without it ends with the same weights."""
    ends = []
    nothing = dict.fromkeys(("task", *TERMS), math.nan)
    for name in ("watched", "blind"):
        if name == "blind":
            monkeypatch.setattr("ds2d2_yolo.bridge.distillation.criterion.measure_gradients", lambda *_, **__: nothing)
        trainer = tiny_trainer("detect", gains=1, name=name, model="yolo26n.yaml")
        trainer.add_callback(
            "on_train_end", lambda t: ends.append({k: v.clone() for k, v in t.model.state_dict().items()})
        )
        trainer.train()
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


@pytest.mark.slow
def test_compiled_and_plain_runs_measure_the_same(tiny_trainer: Trainer) -> None:
    """The first batch's gradients; later ones drift apart, as the weights do."""
    first = []
    for compiled in (False, "aot_eager"):
        trainer = tiny_trainer("obb", compile=compiled, name=str(compiled))
        norms = recorded_norms(trainer)
        trainer.train()
        first.append(norms[0])
    assert first[1] == pytest.approx(first[0], rel=1e-3)


def test_a_resumed_run_keeps_its_gains(tiny_trainer: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    class Cut(Exception):
        """Stands for a kill right after an epoch was saved."""

    def cut(t: Any) -> None:
        if t.epoch == 1:
            raise Cut

    first = tiny_trainer("obb", epochs=3, imhi=0)
    first.add_callback("on_model_save", cut)
    with pytest.raises(Cut):
        first.train()
    chosen = dict(first.gains.automatic)
    again = tiny_trainer("obb", model=str(first.last), resume=str(first.last))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        again.train()
    lines = [r.getMessage() for r in caplog.records if "acts on stride" in r.getMessage()]
    assert [line.split()[1] for line in lines] == list(again.run.settings.active)
    assert again.gains.frozen
    assert again.gains.automatic == chosen
    rows = rows_of(again)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert all(row[f"share/exlo@{s}"] > 0 and row["share/imhi@8"] == 0 for row in rows for s in (8, 16, 32))
    assert rows[2]["gain/exlo"] == pytest.approx(chosen["exlo"], rel=1e-4)
    assert ARGS_KEY not in torch.load(again.last, weights_only=False)["train_args"]


BALANCED = {"feature_norm": "standard", "warmup_epochs": 3, "imhi": 0}


@pytest.mark.slow
def test_a_resumed_run_measures_its_gains_as_an_uninterrupted_one(
    tiny_trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    """Levels balanced, features standardised, gains measured in the warm-up and after it: cut off after epoch 2."""

    class Cut(Exception):
        """Stands for a kill right after an epoch was saved."""

    def cut(t: Any) -> None:
        if t.epoch == 1:
            raise Cut

    uninterrupted = tiny_trainer("obb", epochs=4, name="uninterrupted", level_balance="measured", **BALANCED)
    with caplog.at_level(logging.INFO):
        uninterrupted.train()
    lines = [
        r.getMessage() for r in caplog.records if "measured weights of exlo on strides 8, 16, 32" in r.getMessage()
    ]
    assert len(lines) == 4
    first = tiny_trainer("obb", epochs=4, name="cut", level_balance="measured", **BALANCED)
    first.add_callback("on_model_save", cut)
    with pytest.raises(Cut):
        first.train()
    again = tiny_trainer("obb", model=str(first.last), resume=str(first.last))
    again.train()
    rows = rows_of(uninterrupted)
    assert len({row["gain/imfu"] for row in rows}) == 4, "measured anew in every epoch"
    for row in rows:
        for term, share in uninterrupted.run.settings.shares.items():
            assert row[f"share/{term}"] == pytest.approx(share, rel=1e-3)
            assert 0 < row[f"train/{term}_loss"] < math.inf
        # Equal but for medians over the batches.
        assert [row[f"share/exlo@{s}"] for s in (8, 16, 32)] == pytest.approx([row["share/exlo"]] * 3, rel=0.2)
        assert sum(row[f"weight/exlo@{s}"] for s in (8, 16, 32)) == pytest.approx(3, rel=1e-3)
    assert [{k: v for k, v in row.items() if k != "time"} for row in rows_of(again)] == [
        {k: v for k, v in row.items() if k != "time"} for row in rows
    ]
    assert again.gains.state() == uninterrupted.gains.state()
    assert set(again.gains.level_weights) == {"exlo", "exhi"}


def test_another_batch_size_measures_again(tiny_trainer: Trainer) -> None:
    class Cut(Exception):
        """Stands for a kill right after an epoch was saved."""

    def cut(t: Any) -> None:
        raise Cut

    first = tiny_trainer("obb", epochs=2, imhi=0)
    first.add_callback("on_model_save", cut)
    with pytest.raises(Cut):
        first.train()
    counts = []
    again = tiny_trainer("obb", model=str(first.last), resume=str(first.last), batch=2)
    norms = recorded_norms(again)
    again.add_callback("on_train_batch_end", lambda t: counts.append(len(norms)))
    again.train()
    assert again.gains.automatic != first.gains.automatic
    assert counts == [1, 2, 3, 4], "all batches of the epoch, not the few that are watched"


def test_out_of_memory_measures_again(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb", imhi=0)
    before: list[dict[str, float]] = []

    def once(t: Any) -> None:
        if t.gains.automatic and not before:
            before.append(dict(t.gains.automatic))
            t.model.criterion.base = Failing(t.model.criterion.base)

    trainer.add_callback("on_train_batch_start", once)
    trainer.train()
    assert before
    assert trainer.batch_size == 2, "Ultralytics halved it"
    assert trainer.gains.frozen
    assert trainer.gains.automatic != before[0]


class Failing:
    """A criterion that runs out of memory once."""

    def __init__(self, base: Any) -> None:
        self.base, self.left = base, 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    def __call__(self, *args: Any) -> Any:
        if self.left:
            self.left = 0
            raise RuntimeError("CUDA out of memory")
        return self.base(*args)


def test_a_dominating_term_is_named_once(tiny_trainer: Trainer, caplog: pytest.LogCaptureFixture) -> None:
    trainer = tiny_trainer("obb", epochs=3, exlo=1e5, imhi=0)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    warnings = [r.getMessage() for r in caplog.records if "exlo dominates" in r.getMessage()]
    assert len(warnings) == 1
    assert "epoch 1" in warnings[0]
    assert any("clipping at 10 cut the task's gradient" in r.getMessage() for r in caplog.records)


def test_gradient_norms_see_what_the_optimizer_gets(tiny_trainer: Trainer) -> None:
    """The criterion hands `measure_gradients` the head, features and targets of the run, not copies of them."""
    trainer = tiny_trainer("obb", imhi=0)
    seen: list[Any] = []

    def spy(*args: Any, **keys: Any) -> dict[str, float]:
        seen.append(args)
        return measure_gradients(*args, **keys)

    with pytest.MonkeyPatch.context() as m:
        m.setattr("ds2d2_yolo.bridge.distillation.criterion.measure_gradients", spy)
        trainer.train()
    _, head, distiller, student, _, _, _ = seen[0]
    features, levels = student.features, distiller.levels
    assert head is trainer.model.model[-1]
    assert levels == [0, 1, 2]
    assert all(f.requires_grad for f in features)
