"""A run that was cut off ends with the weights of one that was not, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.patches import torch_load
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import DS2D2OBBTrainer, DS2D2Trainer
from ds2d2_yolo.bridge.training.hooks.exact_resume import ResumeState, resume_file
from tests.helpers.quantised import needs_modelopt

pytestmark = pytest.mark.usefixtures("unhurried")
EPOCHS = 5
BASE = {"epochs": EPOCHS, "val": True, "warmup_epochs": 1.5, "mosaic": 1.0, "close_mosaic": 2, "imhi": 0.0}

CASES = {
    "obb": ("obb", {}),
    # steps fall across the ends of epochs
    "workers": ("obb", {"workers": 2, "nbs": 20, "batch": 3}),
    "accumulation": ("obb", {"nbs": 20, "batch": 3, "mosaic": 0.5}),
    "sgd": ("detect", {"optimizer": "SGD", "multi_scale": 0.3, "mixup": 0.3, "workers": 2}),
    "musgd": ("detect", {"optimizer": "MuSGD", "val": False, "batch": 3, "cache": "ram"}),
    "end to end": ("end2end", {"scale": 0.9, "degrees": 45.0, "close_mosaic": 0}),
    "unlabelled": (
        "obb",
        {"unlabelled": "rest", "fraction": 0.6, "mixup": 0.5, "workers": 2, "nbs": 6, "adapter_init": "ridge"},
    ),
    "rect": ("detect", {"rect": True, "workers": 2}),
    "quantised": ("obb", {"quantize": 8}),
}


class Cut(Exception):
    """Stands for a kill right after an epoch was saved."""


def weights(file: Path) -> dict[str, Any]:
    return dict(torch_load(file, map_location="cpu")["model"].state_dict())


def differing(a: Path, b: Path) -> list[str]:
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    return [k for k in one if not torch.equal(one[k], other[k])]


@pytest.fixture(scope="module")
def uninterrupted_runs() -> dict[str, Path]:
    """The folders of uninterrupted runs, by case."""
    return {}


@pytest.fixture
def run(
    tiny_trainer: Callable[..., DS2D2Trainer], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path]
) -> Callable[..., DS2D2Trainer]:
    """Train a case into a folder, cut off after the given epochs (from 0), each time going on."""

    def train(
        case: str, folder: Path, cuts: tuple[int, ...] = (), stop_after_cut: bool = False, **more: Any
    ) -> DS2D2Trainer:
        task, keys = CASES[case]
        models = {}
        if task == "end2end":
            models = {"teacher": str(checkpoint("yolov10s.yaml")), "model": "yolo26n.yaml"}
        task = task if task == "obb" else "detect"
        place = {"project": str(folder.parent), "name": folder.name}
        trainer = tiny_trainer(task, **{**BASE, **models, **keys, **place, **more})
        workers = trainer.args.workers = keys.get("workers", 0)  # Ultralytics takes none on a CPU
        for cut in (*cuts, None):
            if cut is not None:

                def stop(t: Any, at: int = cut) -> None:
                    if t.epoch == at:
                        raise Cut

                trainer.add_callback("on_model_save", stop)
                with pytest.raises(Cut):
                    trainer.train()
                trainer.train_loader.close()
                if stop_after_cut:
                    return trainer
                kind = DS2D2OBBTrainer if task == "obb" else DS2D2Trainer
                last = str(folder / "weights" / "last.pt")
                torch.rand(3)  # another process would stand elsewhere
                trainer = kind(overrides={"model": last, "resume": last, "data": str(tiny_data(task))})
                trainer.args.workers = workers
            else:
                trainer.train()
        return trainer

    return train


MARKS = {"quantised": [needs_modelopt]}
FAST = [("unlabelled", (0, 2))]  # it has workers, and steps across the ends of epochs
EVERY = [(case, cuts) for case in CASES for cuts in [(0,), (1,), (2,), (3,), (0, 2, 3)]]
RUNS = [pytest.param(*x, marks=MARKS.get(x[0], [])) for x in FAST]
RUNS += [pytest.param(*x, marks=[pytest.mark.slow, *MARKS.get(x[0], [])]) for x in EVERY]


@pytest.mark.parametrize(("case", "cuts"), RUNS)
def test_ends_with_the_same_weights(
    case: str, cuts: tuple[int, ...], uninterrupted_runs: dict[str, Path], run: Callable[..., DS2D2Trainer],
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    if case not in uninterrupted_runs:
        uninterrupted_runs[case] = tmp_path_factory.mktemp("uninterrupted") / "run"
        run(case, uninterrupted_runs[case])
    run(case, tmp_path / "run", cuts)
    for name in ("last.pt", "best.pt"):
        assert differing(uninterrupted_runs[case] / "weights" / name, tmp_path / "run" / "weights" / name) == []
    assert not list((tmp_path / "run" / "weights").glob("*resume-*")), "nothing of ours stays"
    rows = [
        (f / "results.csv").read_text(encoding="utf-8").splitlines()
        for f in (uninterrupted_runs[case], tmp_path / "run")
    ]
    without_time = [[[c for i, c in enumerate(row.split(",")) if i != 1] for row in table] for table in rows]
    assert without_time[0] == without_time[1]


@pytest.mark.slow
def test_without_the_resume_file_it_is_another_run(
    uninterrupted_runs: dict[str, Path],
    run: Callable[..., DS2D2Trainer],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if "workers" not in uninterrupted_runs:
        uninterrupted_runs["workers"] = tmp_path_factory.mktemp("uninterrupted") / "run"
        run("workers", uninterrupted_runs["workers"])
    run("workers", tmp_path / "run", (1,), exact_resume=False)
    assert differing(uninterrupted_runs["workers"] / "weights" / "last.pt", tmp_path / "run" / "weights" / "last.pt")


@pytest.mark.parametrize(
    "damage", ["half", *(pytest.param(x, marks=pytest.mark.slow) for x in ("missing", "other batch"))]
)
def test_goes_on_where_the_resume_file_does_not_fit(
    damage: str, run: Callable[..., DS2D2Trainer], tmp_path: Path, tiny_data: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    trainer = run("accumulation", tmp_path / "run", (1,), stop_after_cut=True, epochs=3, close_mosaic=1)
    file = resume_file(trainer.wdir, 1)
    assert [file] == list(trainer.wdir.glob("resume-*")), "one side file, the last epoch's"
    if damage == "missing":
        file.unlink()
    elif damage == "half":
        file.write_bytes(file.read_bytes()[:5000])
    batch = {"batch": 2} if damage == "other batch" else {}
    last = str(trainer.last)
    DS2D2OBBTrainer(overrides={"model": last, "resume": last, "data": str(tiny_data("obb")), **batch}).train()
    warnings = {"other batch": "batch, imgsz, workers or images are not the run's own"}
    assert warnings.get(damage, "no side file of this epoch") in caplog.text
    assert (tmp_path / "run" / "results.csv").read_text(encoding="utf-8").count("\n") == 1 + 3


@pytest.mark.slow
def test_a_layer_that_is_frozen_on_resume_stays(
    run: Callable[..., DS2D2Trainer], tmp_path: Path, tiny_data: Callable[[str], Path]
) -> None:
    """The gradients that were left for the next step are the old layers'."""
    trainer = run("accumulation", tmp_path / "run", (1,), stop_after_cut=True)
    side = ResumeState.read(resume_file(trainer.wdir, 1))
    assert side is not None
    assert side.part("gradient")["model.0.conv.weight"].any()
    before, last = side.part("model"), str(trainer.last)
    resumed = DS2D2OBBTrainer(overrides={"model": last, "resume": last, "data": str(tiny_data("obb")), "freeze": [0]})
    resumed.train()
    after = {k: v for k, v in unwrap_model(resumed.model).state_dict().items() if k in before}
    moved = {k for k in after if not torch.equal(after[k], before[k]) and k.endswith(("conv.weight", "bn.weight"))}
    assert "model.1.conv.weight" in moved
    assert not {k for k in moved if k.startswith("model.0.")}


def test_a_row_that_is_run_again_replaces_the_old_one(run: Callable[..., DS2D2Trainer], tmp_path: Path) -> None:
    trainer = run("obb", tmp_path / "run", (1,), stop_after_cut=True)
    csv = tmp_path / "run" / "results.csv"
    header, first, second = csv.read_text(encoding="utf-8").splitlines(keepends=True)
    csv.write_text(header + first + second + second.replace("2,", "3,", 1) + "4,0.1", encoding="utf-8")
    trainer.train_time_start, trainer.epoch = 0.0, 1
    row = dict.fromkeys(header.strip().split(",")[2:], 7.0)
    trainer.checkpoints.save_metrics(lambda: DetectionTrainer.save_metrics(trainer, row))
    assert [row.split(",")[0] for row in csv.read_text(encoding="utf-8").splitlines()] == ["epoch", "1", "2"]
    assert csv.read_text(encoding="utf-8").endswith(",7\n")
