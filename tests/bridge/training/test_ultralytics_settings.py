"""Ultralytics' training settings, each in a small distillation in which it is really in force."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from torch import Tensor
from ultralytics.engine import trainer as upstream
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import DS2D2Trainer, distill
from ds2d2_yolo.bridge.models.adapters import get_adapters, make_adapters
from ds2d2_yolo.config.settings import TERMS
from ds2d2_yolo.errors import BadUseError
from tests.helpers.data import write_tiny_data
from tests.helpers.quantised import needs_modelopt
from tests.helpers.terms import ACTIVE
from tests.helpers.trainers import PAIRS

Run = Callable[..., DS2D2Trainer]
Make = Callable[..., DS2D2Trainer]


@pytest.fixture
def make(tiny_trainer: Make, checkpoint: Callable[..., Path]) -> Make:
    """A trainer with a small teacher, its amplifier trained once and kept."""

    def get(task: str = "obb", **keys: Any) -> DS2D2Trainer:
        teacher = checkpoint(PAIRS[task][1], seed=7)
        return tiny_trainer(task, **{"teacher": str(teacher), "amplifier_epochs": 1, **keys})

    return get


def rows_of(trainer: DS2D2Trainer) -> list[dict[str, float]]:
    with (trainer.save_dir / "results.csv").open() as f:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]


def learnt(trainer: DS2D2Trainer, terms: tuple[str, ...] = ACTIVE) -> list[dict[str, float]]:
    """Assert that a finished run was distilled in every epoch; return its rows of results.csv."""
    rows = rows_of(trainer)
    for row in rows:
        for term in TERMS:
            assert (0 < row[f"train/{term}_loss"] < math.inf) == (term in terms), (term, row)
            assert (0 < row[f"gain/{term}"] < math.inf) == (term in terms), (term, row)
        assert row["left_out/images"] == row["left_out/batches"] == 0
    adapters = get_adapters(unwrap_model(trainer.model))
    assert adapters is not None
    start = make_adapters([a.in_channels for a in adapters], [a.out_channels for a in adapters], trainer.args.seed)
    for now, then in zip(adapters, start, strict=True):
        assert now.weight.isfinite().all()
        assert not torch.equal(now.weight, then.weight)
    return rows


@pytest.fixture
def run(make: Make) -> Run:
    """Train with some settings and assert that it was a distillation."""

    def get(task: str = "obb", **keys: Any) -> DS2D2Trainer:
        trainer = make(task, **keys)
        trainer.train()
        learnt(trainer)
        return trainer

    return get


def test_amp_on_a_cpu_is_off(run: Run) -> None:
    assert not run(amp=True).amp


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"amp": "bf16"}, "amp=bf16 needs a CUDA device"),  # Ultralytics raises at the first batch, after the amplifier
        ({"batch": -1, "device": "0,1"}, "batch=-1: AutoBatch looks at one GPU"),
        ({"batch": 0.5, "device": [0, 1]}, "batch=0.5: AutoBatch looks at one GPU"),
        ({"quantize": "w8a16"}, "quantize=w8a16 is for export"),
        pytest.param({"quantize": "int8", "compile": True}, "does not go with compile=True", marks=needs_modelopt),
    ],
)
def test_refuses_before_anything_starts(
    keys: dict[str, Any], message: str, make: Make, tiny_settings: dict[str, Any]
) -> None:
    with pytest.raises(BadUseError, match=message):
        make(**keys)
    assert not Path(str(tiny_settings["project"])).exists()


@pytest.mark.slow
def test_compiled_graph(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Student and head in one graph of dynamo and AOT autograd; no C++ is compiled, unlike by `compile=True`."""
    monkeypatch.setattr(upstream, "attempt_compile", lambda model, **_: torch.compile(model, backend="aot_eager"))
    trainer = run(compile=True, imhi=0.5)
    assert hasattr(trainer.model, "_orig_mod")
    (compiled,) = rows_of(trainer)
    monkeypatch.undo()
    (eager,) = rows_of(run(name="eager", imhi=0.5))
    for name in (f"{kind}/{t}{end}" for t in TERMS for kind, end in (("train", "_loss"), ("gain", ""))):
        assert compiled[name] == pytest.approx(eager[name], rel=0.02), name


@pytest.mark.slow
def test_compiled(run: Run) -> None:
    """By inductor, where the machine has a compiler; gains are measured through it."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("needs a C++ compiler")
    trainer = run(compile=True, epochs=2, imhi=0.5)
    assert hasattr(trainer.model, "_orig_mod"), "really compiled"
    plain = run(name="plain", epochs=2, imhi=0.5)
    for compiled, eager in zip(rows_of(trainer), rows_of(plain), strict=True):
        for term in TERMS:
            assert compiled[f"train/{term}_loss"] == pytest.approx(eager[f"train/{term}_loss"], rel=0.05)


@pytest.mark.slow
def test_channels_last_on_a_cpu_is_left_out(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run(channels_last=True)
    assert "'channels_last=True' is only supported on CUDA" in caplog.text


@pytest.mark.slow
def test_multi_scale(make: Make) -> None:
    trainer, sizes = make(multi_scale=0.5, epochs=4, batch=2), set()
    original = trainer.preprocess_batch

    def look(batch: dict[str, Any]) -> dict[str, Any]:
        batch = original(batch)
        sizes.add(tuple(batch["img"].shape[2:]))
        return batch

    trainer.preprocess_batch = look
    trainer.train()
    learnt(trainer)
    assert len(sizes) >= 2
    assert all(side % 32 == 0 and 32 <= side <= 160 for shape in sizes for side in shape)


@pytest.mark.slow
def test_rect_with_wide_images(make: Make, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "wide", "obb")
    for file in (tmp_path / "wide" / "images").rglob("*.png"):
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (96, 48)))
    trainer, shapes = make(rect=True, data=str(data)), set()
    trainer.add_callback("on_train_start", lambda t: shapes.update(map(tuple, t.train_loader.dataset.batch_shapes)))
    trainer.train()
    learnt(trainer)
    assert shapes
    assert all(height < width for height, width in shapes)


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_cache(cache: str, make: Make, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", "obb")
    trainer = make(cache=cache, data=str(data))
    trainer.train()
    learnt(trainer)
    dataset = trainer.train_loader.dataset
    if cache == "ram":
        assert all(im is not None for im in dataset.ims)
    else:
        assert len(list((tmp_path / "data" / "images" / "train").glob("*.npy"))) == 8


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [10, [0, 1, 2], ["22.cv2"]])
def test_frozen_layers_stay(freeze: Any, make: Make) -> None:
    trainer, before = make(freeze=freeze, epochs=2), {}
    trainer.add_callback("on_train_start", lambda t: before.update({n: p.clone() for n, p in named(t).items()}))
    trainer.train()
    learnt(trainer)
    names = [f"model.{x}." for x in (range(freeze) if isinstance(freeze, int) else freeze)]
    held = {n for n in before if any(x in n for x in names)}
    moved = {n for n, p in named(trainer).items() if not torch.equal(p, before[n])}
    assert held
    assert not held & moved
    assert {"model.21.cv2.conv.weight", "ds2d2_adapters.0.weight"} <= moved


@pytest.mark.slow
def test_terms_stop_at_a_frozen_neck(make: Make) -> None:
    """They train the adapters then; the head learns from the labels."""
    trainer, before = make(freeze=22, epochs=2), {}
    trainer.add_callback("on_train_start", lambda t: before.update({n: p.clone() for n, p in named(t).items()}))
    trainer.train()
    moved = {
        n.split(".")[0] + "." + n.split(".")[1] for n, p in named(trainer).items() if not torch.equal(p, before[n])
    }
    assert moved == {"model.22", "ds2d2_adapters.0", "ds2d2_adapters.1", "ds2d2_adapters.2"}


def named(trainer: Any) -> dict[str, Tensor]:
    return {n: p.detach() for n, p in unwrap_model(trainer.model).named_parameters() if ".dfl" not in n}


@pytest.mark.slow
def test_single_class(make: Make, checkpoint: Callable[..., Path]) -> None:
    """Ultralytics calls the only class 'item': a teacher of that name shares it, another one is left its features."""
    teacher = checkpoint("yolov8n-obb.yaml", seed=7, names=("item",))
    trainer = make(single_cls=True, teacher=str(teacher))
    trainer.train()
    learnt(trainer)
    assert trainer.run.class_map.shared == ("item",)
    other = make(single_cls=True, name="other")
    other.train()
    learnt(other, ("exlo", "exhi"))


@pytest.mark.slow
def test_class_weights_reach_the_task_loss(run: Run) -> None:
    weighted = unwrap_model(run(cls_pw=1.0).model)
    criterion = weighted.criterion
    assert criterion.dense.class_weights is not None
    assert not torch.equal(criterion.dense.class_weights.flatten(), torch.ones(2))


@pytest.mark.slow
@pytest.mark.parametrize(("fraction", "images"), [(0.5, 4), (6, 6)])
def test_fraction(fraction: float, images: int, run: Run) -> None:
    assert len(run(fraction=fraction).train_loader.dataset) == images


def test_time_ends_the_run(run: Run) -> None:
    trainer = run(time=0.0005, epochs=1000)
    assert 1 <= len(rows_of(trainer)) < 100


@pytest.mark.slow
def test_save_period_and_plots(run: Run) -> None:
    trainer = run(save_period=1, plots=True, epochs=2, close_mosaic=0)
    assert {"epoch0.pt", "epoch1.pt", "last.pt", "best.pt"} == {p.name for p in trainer.wdir.iterdir()}
    assert {"results.png", "labels.jpg", "train_batch0.jpg"} <= {p.name for p in trainer.save_dir.iterdir()}


def test_augmentations_and_the_closing_of_mosaic(make: Make) -> None:
    trainer = make(mosaic=1.0, mixup=0.5, cutmix=0.5, copy_paste=0.5, close_mosaic=1, epochs=2, degrees=10, flipud=0.5)
    drawn: dict[int, set[tuple[str, float]]] = {}
    trainer.add_callback(
        "on_train_batch_start", lambda t: drawn.setdefault(t.epoch, set()).update(mixes(t.train_loader.dataset))
    )
    trainer.train()
    learnt(trainer)
    assert drawn[0] >= {("Mosaic", 1.0), ("MixUp", 0.5), ("CutMix", 0.5), ("CopyPaste", 0.5)}
    assert not {p for _, p in drawn[1]} - {0.0}


def mixes(dataset: Any) -> set[tuple[str, float]]:
    """The transforms of a data set that mix images, with their probabilities."""
    mixing, pending = set(), [dataset.transforms]
    while pending:
        transform = pending.pop()
        if type(transform).__name__ in {"Mosaic", "MixUp", "CutMix", "CopyPaste"}:
            mixing.add((type(transform).__name__, float(transform.p)))
        pre = getattr(transform, "pre_transform", None)
        pending += [*getattr(transform, "transforms", []), *([pre] if pre is not None else [])]
    return mixing


@pytest.mark.slow
@pytest.mark.parametrize("batch", [-1, 0.7])
def test_autobatch_on_a_cpu_takes_sixteen(batch: float, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run(batch=batch).batch_size == 16
    assert "intended for GPU devices, using default batch-size 16" in caplog.text


def test_gradients_are_accumulated(run: Run) -> None:
    trainer = run(batch=2, nbs=8)
    assert trainer.accumulate == 4
    assert len(trainer.train_loader) == 4
    assert len(trainer.adapter_optimizer.step_norms) == 1


def test_what_is_saved_is_the_average_of_the_distilled_student(make: Make) -> None:
    trainer, name = make(epochs=2, lr0=0.01), "model.15.cv2.conv.weight"
    average: list[Tensor] = []

    def start(t: Any) -> None:
        t.ema.decay = lambda _: 0.75  # far from the weights of the last step, which Ultralytics' is not so early
        average.append(named(t)[name].clone())

    def follow(t: Any) -> None:
        average[0] = 0.75 * average[0] + 0.25 * named(t)[name]

    trainer.add_callback("on_train_start", start)
    trainer.add_callback("on_train_batch_end", follow)
    trainer.train()
    learnt(trainer)
    saved = dict(load_checkpoint(trainer.last)[0].named_parameters())[name].float()
    torch.testing.assert_close(saved, average[0], atol=1e-4, rtol=1e-3)
    assert (saved - named(trainer)[name]).abs().max() > 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["Adam", "Adamax", "NAdam", "RAdam", "RMSProp", "auto"])
def test_optimizers(optimizer: str, make: Make) -> None:
    trainer = make(optimizer=optimizer, imhi=0, nbs=4)
    trainer.train()
    learnt(trainer, ("exlo", "exhi", "imfu"))
    expected_name = "AdamW" if optimizer == "auto" else optimizer
    assert type(trainer.optimizer).__name__.lower() == expected_name.lower()
    assert trainer.optimizer.param_groups[-1]["param_group"] == "adapter"


@pytest.mark.slow
def test_cosine_learning_rate(run: Run) -> None:
    trainer = run(cos_lr=True, epochs=3, lrf=0.1)
    rates = [row["lr/pg3"] for row in rows_of(trainer)]
    assert rates == pytest.approx([0.001 * (0.1 + 0.9 * (1 + math.cos(math.pi * e / 3)) / 2) for e in range(3)])


@pytest.mark.slow
def test_stops_early(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(patience=1, epochs=9, val=True)
    monkeypatch.setattr(trainer, "validate", lambda: (dict(trainer.metrics), 1 / (trainer.epoch + 1)))
    trainer.train()
    assert len(learnt(trainer)) == 2


@pytest.mark.slow
def test_resumes_with_what_may_change(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(Exception):
        pass

    def cut(t: Any) -> None:
        raise Cut

    first = make(epochs=2, save_period=-1)
    first.add_callback("on_model_save", cut)
    with pytest.raises(Cut):
        first.train()
    changed = {"batch": 2, "imgsz": 64, "freeze": 5, "patience": 7, "close_mosaic": 2, "plots": True}
    trainers: list[DS2D2Trainer] = []
    original = type(first).save_metrics

    def keep(self: DS2D2Trainer, metrics: dict[str, Any]) -> None:
        trainers.append(self)
        original(self, metrics)

    monkeypatch.setattr(DS2D2Trainer, "save_metrics", keep)
    distill(
        teacher=first.run.settings.teacher, student=PAIRS["obb"][1], data=first.args.data, epochs=2, device="cpu",
        project=str(first.save_dir.parent), name=first.save_dir.name, exist_ok=True, resume=True, **changed,
    )  # fmt: skip
    trainer = trainers[-1]
    assert len(learnt(trainer)) == 2
    assert {k: getattr(trainer.args, k) for k in changed} == changed
    assert trainer.batch_size == 2
    assert not trainer.model.model[4].cv1.conv.weight.requires_grad


@pytest.mark.slow
def test_workers(make: Make) -> None:
    """Ultralytics takes none on a CPU; with some, nothing of a run is in their way."""
    trainer = make(workers=4, epochs=2, mosaic=1.0)
    assert trainer.args.workers == 0
    trainer.args.workers = 2
    trainer.train()
    learnt(trainer)
    assert trainer.train_loader.num_workers == 2


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{"val": True, "nms": False}, {"deterministic": False}, {"save": False}])
def test_settings_beside_training(keys: dict[str, Any], run: Run) -> None:
    assert len(rows_of(run("detect", **keys))) == 1
