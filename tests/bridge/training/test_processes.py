"""Training in several processes, through the real trainer, over gloo on a CPU (see rank.py), and its checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.training.machines.store import MachineStore
from ds2d2_yolo.bridge.training.setup import run_setup, run_start
from ds2d2_yolo.bridge.training.setup.unsupported import refuse_process_count
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from tests.helpers.gloo_ranks import check_mean_gradients, check_same_state, check_same_weights
from tests.helpers.quantised import needs_modelopt

REPOSITORY = Path(__file__).resolve().parents[3]


def train(ranks: int, settings: dict[str, Any], folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Train in that many processes; return what each saw and what they printed."""
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
              "OMP_NUM_THREADS": "1"}  # fmt: skip
    common["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "tests.bridge.training.rank", str(folder / "settings.json"), str(folder)]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        running = [
            subprocess.Popen(
                command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **common, "RANK": str(i), "LOCAL_RANK": str(i)},
            )
            for i in range(ranks)
        ]  # fmt: skip
        try:
            codes = [p.wait(timeout=400) for p in running]
        finally:
            for p in running:
                p.kill()
    log_text = (folder / "log.txt").read_text(encoding="utf-8")
    assert codes == [0] * ranks, log_text[-3000:]
    return [torch.load(folder / f"rank{i}.pt", weights_only=False) for i in range(ranks)], log_text


@pytest.mark.parametrize(
    ("ranks", "balance"),
    [
        (2, "none"),
        pytest.param(4, "none", marks=pytest.mark.slow),
        pytest.param(2, "measured", marks=pytest.mark.slow),
    ],
)
def test_ranks_agree(
    ranks: int, balance: str, tiny_settings: dict[str, Any], checkpoint: Callable[..., Path],
    tiny_data: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    seed = 40 + ranks + len(balance)  # of a teacher whose amplifier no other case has stored
    settings = {
        **tiny_settings, "teacher": str(checkpoint("yolov8s-obb.yaml", seed=seed)), "model": "yolov8n-obb.yaml",
        "data": str(tiny_data("obb")), "epochs": 3, "amplifier_epochs": 1, "batch": 4, "mosaic": 1.0, "exist_ok": False,
        "rect": True, "level_balance": balance, "adapter_init": "ridge" if balance == "measured" else "random",
    }  # fmt: skip
    earlier = tmp_path / "runs" / "run" / "results.csv"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("an earlier run's")
    seen, log_text = train(ranks, settings, tmp_path)
    run = tmp_path / "runs" / "run-2"
    assert log_text.count("rect=True does not go with several processes") == 1
    memory = json.loads((run / "preflight.json").read_text(encoding="utf-8"))["memory"]
    assert memory["images"] == settings["batch"] // ranks  # on each device
    assert [p.name for p in earlier.parent.iterdir()] == ["results.csv"]
    weights = [run / "weights" / name for name in ("last.pt", "best.pt")]
    assert all(s["places"] == [str(p) for p in (run, *weights, run / "results.csv", run)] for s in seen)

    assert len({tuple(s["files"]) for s in seen}) == ranks, "every rank has images of its own"
    check_same_state(seen)
    check_mean_gradients(seen)
    assert set(seen[0]["gains"]["level_weights"]) == ({"exlo", "exhi"} if balance == "measured" else set())

    assert log_text.count("DS2D2: training the high-frequency amplifier") == 1, log_text[-3000:]
    assert {p.name for p in run.iterdir()} >= {
        "preflight.json",
        "preflight.txt",
        "amplifier.safetensors",
        "results.csv",
    }
    assert len((run / "results.csv").read_text(encoding="utf-8").splitlines()) == 1 + 3
    assert {p.name for p in (run / "weights").iterdir()} == {"last.pt", "best.pt"}


@pytest.mark.slow
def test_ranks_agree_where_the_teacher_sees_more(
    tiny_settings: dict[str, Any], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    settings = {
        **tiny_settings, "teacher": str(checkpoint("yolov8s-obb.yaml")), "model": "yolov8n-obb.yaml",
        "data": str(tiny_data("obb")), "amplifier_epochs": 1, "imgsz": 64, "teacher_imgsz": 128, "mosaic": 1.0,
    }  # fmt: skip
    seen, _ = train(2, settings, tmp_path)
    assert [len(s["adapters"]) for s in seen] == [2, 2]
    check_same_state(seen)
    check_mean_gradients(seen)


@needs_modelopt
@pytest.mark.slow
def test_ranks_agree_on_a_quantised_student(
    tiny_settings: dict[str, Any], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    settings = {
        **tiny_settings, "teacher": str(checkpoint("yolov8s-obb.yaml")), "model": "yolov8n-obb.yaml", "imgsz": 64,
        "data": str(tiny_data("obb")), "amplifier_epochs": 1, "quantize": 8,
    }  # fmt: skip
    seen, _ = train(2, settings, tmp_path)
    assert any("amax" in name for name in seen[0]["weights"])
    check_same_state(seen)
    check_mean_gradients(seen)


def test_ranks_take_unlabelled_images_of_their_own(
    tiny_settings: dict[str, Any], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    settings = {
        **tiny_settings, "teacher": str(checkpoint("yolov8s-obb.yaml")), "model": "yolov8n-obb.yaml", "imhi": 0,
        "data": str(tiny_data("obb")), "batch": 4, "mosaic": 1.0, "fraction": 0.5, "unlabelled": "rest",
        "explicit": False, "nbs": 2,  # a step for each batch: the labelled images of both ranks
    }  # fmt: skip
    seen, log_text = train(2, settings, tmp_path)
    check_same_weights(seen)
    check_mean_gradients(seen)
    names = [[Path(file).name for file in s["files"]] for s in seen]
    assert [len(files) for files in names] == [2, 2]
    labelled, unlabelled = zip(*names, strict=True)
    assert set(labelled) <= {"0.png", "1.png", "2.png", "3.png"}
    assert set(unlabelled) <= {"4.png", "5.png", "6.png", "7.png"}
    assert len(set(labelled)) == len(set(unlabelled)) == 2, "every rank has images of its own"
    assert "4 unlabelled images" in log_text


@pytest.mark.parametrize(
    ("device", "batch", "reason"),
    [
        ("0,1,0,1", 8, None),
        ("0,1", 8, r"device=0,1 names 2 of 4 processes that torchrun started: .*device=0,1,0,1"),
        ("cpu", 8, "device=cpu names 1 of 4 processes"),
        ("0,1,0,1", 3, "batch=3 is divided among 4 processes: batch=4 is the least"),
    ],
)
def test_devices_and_batch_fit_the_processes(device: str, batch: int, reason: str | None) -> None:
    if reason is None:
        refuse_process_count(device, batch, 4)
        return
    with pytest.raises(BadUseError, match=reason):
        refuse_process_count(device, batch, 4)


def test_only_rank_0_needs_a_named_amplifier(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = tiny_trainer("obb", imhi=0)
    settings = replace(trainer.run.settings, imhi=None, amplifier=str(tmp_path / "none.safetensors"))
    monkeypatch.setattr(run_setup, "RANK", 3)
    assert run_setup.prepare_run(trainer.run.args, settings).amplifier_path == tmp_path / "none.safetensors"
    monkeypatch.setattr(run_setup, "RANK", 0)
    with pytest.raises(BadUseError, match="does not exist"):
        run_setup.prepare_run(trainer.run.args, settings)


def test_other_machines_wait_for_rank_0_to_begin(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer("obb", imhi=0)
    store = dist.HashStore()
    ranks = [MachineStore(store, rank, 2, timedelta(seconds=20)) for rank in range(2)]

    def fail(keys: dict[str, Any], processes: int) -> None:
        raise DS2D2Error("the amplifier's training failed")

    monkeypatch.setattr(run_start, "several_machines", lambda: True)
    monkeypatch.setattr(run_start, "prepare_in_process", fail)
    for rank, error in ((0, "^the amplifier's training failed"), (1, r"^machine 0 \(.*\): the amplifier's training")):
        monkeypatch.setattr(run_start, "RANK", rank)
        monkeypatch.setattr(run_start, "machine_store", lambda rank=rank: ranks[rank])
        with pytest.raises(DS2D2Error, match=error):
            trainer.run_start.begin()


@pytest.mark.parametrize(("loss", "expected"), [(1.0, []), (float("nan"), ["last"])])
def test_last_pt_reaches_machines_without_it_when_the_loss_is_not_finite(
    loss: float, expected: list[str], tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer("obb", imhi=0)
    trainer.loss, trainer.fitness = torch.tensor(loss), None
    deliveries: list[str] = []
    monkeypatch.setattr(trainer.run_folder, "deliver", deliveries.append)
    assert trainer._handle_nan_recovery(0) is False  # the first epoch has nothing to return to
    assert deliveries == []
    trainer.run_folder.everywhere = False
    assert trainer._handle_nan_recovery(0) is False
    assert deliveries == expected
