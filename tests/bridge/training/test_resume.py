"""A run that is cut off goes on, adapters included; its files are plain Ultralytics checkpoints at every moment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils.patches import torch_load

from ds2d2_yolo import DS2D2OBBTrainer, DS2D2Trainer, distill
from ds2d2_yolo.bridge.models.adapters import ATTRIBUTE, get_adapters
from ds2d2_yolo.bridge.training import find_run as resuming
from ds2d2_yolo.bridge.training import trainer as training
from ds2d2_yolo.bridge.training.find_run import find_unfinished
from ds2d2_yolo.bridge.training.setup import run_setup, run_start
from ds2d2_yolo.bridge.training.setup.run_state import RunState
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.errors import BadUseError
from tests.helpers.settings import TINY
from tests.helpers.trainers import PAIRS

REPOSITORY = Path(__file__).resolve().parents[3]


class Cut(Exception):
    """Stands for a kill right after an epoch was saved."""


def cut_after(trainer: DS2D2Trainer, epoch: int) -> None:
    def stop(t: Any) -> None:
        if t.epoch == epoch:
            raise Cut

    trainer.add_callback("on_model_save", stop)


@pytest.fixture(scope="module")
def cut_off(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[DS2D2Trainer, Path]:
    """A run of 4 epochs, cut off after its second, and a copy of its project folder."""
    folder = tmp_path_factory.mktemp("cut")
    teacher, student = PAIRS["obb"]
    trainer = DS2D2OBBTrainer(
        overrides={
            **TINY, "teacher": str(checkpoint(teacher)), "model": student, "data": str(tiny_data("obb")), "epochs": 4,
            "val": True, "project": str(folder / "runs"), "name": "run", "exist_ok": True,
        }
    )  # fmt: skip
    cut_after(trainer, 1)
    with pytest.raises(Cut):
        trainer.train()
    return trainer, Path(shutil.copytree(folder / "runs", folder / "copy"))


@pytest.fixture
def unfinished(cut_off: tuple[DS2D2Trainer, Path]) -> DS2D2Trainer:
    """That run, its files as they were."""
    trainer, project_copy = cut_off
    shutil.rmtree(trainer.save_dir.parent)
    shutil.copytree(project_copy, trainer.save_dir.parent)
    return trainer


def command(trainer: DS2D2Trainer, **more: Any) -> dict[str, Any]:
    """The settings of the command that began a run, as `distill` takes them."""
    a = trainer.args
    return {
        "teacher": trainer.run.settings.teacher, "student": PAIRS["obb"][1], "data": a.data, "imgsz": 96, "epochs": 4,
        "batch": 4, "device": "cpu", "project": str(trainer.save_dir.parent), "name": trainer.save_dir.name,
        "exist_ok": True, **more,
    }  # fmt: skip


def test_goes_on_with_its_adapters(unfinished: DS2D2Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished_checkpoint = torch_load(unfinished.last, map_location="cpu")
    saved_adapters = get_adapters(unfinished_checkpoint["ema"])
    assert saved_adapters is not None
    resumed_run: dict[str, Any] = {}
    original = DS2D2Trainer.set_model_attributes

    def look(self: DS2D2Trainer) -> None:
        original(self)
        adapters = get_adapters(self.model)
        assert adapters is not None
        resumed_run["adapters"] = [a.weight.detach().clone() for a in adapters]
        resumed_run["trainer"] = self

    monkeypatch.setattr(DS2D2Trainer, "set_model_attributes", look)
    distill(**command(unfinished, resume=True))
    trainer = resumed_run["trainer"]
    for resumed_weight, saved_adapter in zip(resumed_run["adapters"], saved_adapters, strict=True):
        assert torch.equal(resumed_weight, saved_adapter.weight.float())
    assert trainer.start_epoch == 2
    assert trainer.optimizer.param_groups[-1]["param_group"] == "adapter"
    rows = (unfinished.save_dir / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]
    assert get_adapters(torch_load(unfinished.last, map_location="cpu")["model"]) is None


def test_unfinished_file_is_a_plain_model_with_one_extra_attribute(unfinished: DS2D2Trainer) -> None:
    unfinished_checkpoint = torch_load(unfinished.last, map_location="cpu")
    modules = {type(m).__module__.partition(".")[0] for m in unfinished_checkpoint["ema"].modules()}
    assert modules == {"torch", "ultralytics"}
    extra = {k for k in unfinished_checkpoint["ema"].state_dict() if not k.startswith("model.")}
    assert extra == {f"{ATTRIBUTE}.{i}.weight" for i in range(3)}
    expected_keys = {"format", "settings", "teacher_sha256", "amplifier_path", "gains", "batch_size", "report_files"}
    assert set(unfinished_checkpoint["train_args"][ARGS_KEY]) == expected_keys
    assert RunState.of(unfinished_checkpoint["train_args"][ARGS_KEY]) == unfinished.state


PLAIN = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ds2d2_yolo":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from ultralytics import YOLO
import numpy as np
model = YOLO(sys.argv[1])
model.predict(np.zeros((96, 96, 3), np.uint8), imgsz=96, verbose=False)
print("mAP50", model.val(data=sys.argv[2], imgsz=96, plots=False, verbose=False, device="cpu").box.map50)
print("export", model.export(format="torchscript", imgsz=96))
"""


@pytest.mark.parametrize("safe", [pytest.param("0", marks=pytest.mark.slow), "1"])
def test_unfinished_file_needs_ultralytics_alone(unfinished: DS2D2Trainer, safe: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(unfinished.last), str(unfinished.args.data)],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "ULTRALYTICS_SAFE_LOAD": safe}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mAP50" in done.stdout
    assert unfinished.last.with_suffix(".torchscript").is_file()


def test_another_run_of_a_longer_number_is_not_meant(unfinished: DS2D2Trainer) -> None:
    """Ultralytics numbers copies of 'run' as run-2: 'run10' is a run of its own, if a newer one."""
    other = unfinished.save_dir.with_name(f"{unfinished.save_dir.name}0")
    copy = unfinished.save_dir.with_name(f"{unfinished.save_dir.name}-10")
    keys = {k: v for k, v in command(unfinished).items() if k in ("project", "name")}
    shutil.copytree(unfinished.save_dir, other)
    os.utime(other / "weights" / "last.pt")
    assert find_unfinished(True, keys, ("obb",)).last == unfinished.last
    shutil.copytree(unfinished.save_dir, copy)
    later = time.time() + 10
    os.utime(copy / "weights" / "last.pt", (later, later))
    assert find_unfinished(True, keys, ("obb",)).last == copy / "weights" / "last.pt"


def test_a_resumed_run_may_get_a_time(unfinished: DS2D2Trainer) -> None:
    """It has its amplifier, so nothing has to be known of the epochs of one."""
    distill(**command(unfinished, resume=True, time=0.002))
    rows = (unfinished.save_dir / "results.csv").read_text().splitlines()
    assert len(rows) > 3
    assert not get_adapters(torch_load(unfinished.last, map_location="cpu")["model"])


def test_another_teacher_is_refused(unfinished: DS2D2Trainer, checkpoint: Callable[..., Path]) -> None:
    other = checkpoint(PAIRS["obb"][0], seed=7)
    with pytest.raises(BadUseError, match="not the one that this run began with"):
        distill(**command(unfinished, resume=True, teacher=other))


def test_data_that_have_moved_are_named_anew(unfinished: DS2D2Trainer, tmp_path: Path) -> None:
    old = Path(unfinished.args.data)
    new = tmp_path / "moved" / old.name
    shutil.copytree(old.parent, new.parent)
    new.write_text(old.read_text(encoding="utf-8").replace(old.parent.as_posix(), new.parent.as_posix()), "utf-8")
    distill(**command(unfinished, data=str(new), resume=True))
    assert torch_load(unfinished.last, map_location="cpu")["train_args"]["data"] == str(new)
    rows = (unfinished.save_dir / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]


def test_a_run_that_was_moved_goes_on_where_it_lies(unfinished: DS2D2Trainer, tmp_path: Path) -> None:
    moved, old = tmp_path / "moved", unfinished.save_dir
    side = [p.name for p in (old / "weights").glob("resume-*")]
    assert side
    shutil.move(old, moved)
    distill(**command(unfinished, resume=str(moved)))
    assert not old.exists()
    rows = (moved / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]
    assert not [p for p in side if (moved / "weights" / p).exists()], "read, and removed at the end"
    assert torch_load(moved / "weights" / "last.pt", map_location="cpu")["epoch"] == -1


def test_one_process_of_several_cleans_up(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer("obb", epochs=1)
    cut_after(trainer, 0)
    with pytest.raises(Cut):
        trainer.train()
    unfinished_bytes = trainer.last.read_bytes()
    for rank in (1, 0):
        monkeypatch.setattr(resuming, "RANK", rank)
        with pytest.raises(BadUseError, match="is finished"):
            find_unfinished(str(trainer.last), {}, ("obb",))
        assert (trainer.last.read_bytes() == unfinished_bytes) is (rank == 1)


def test_before_the_first_save(tiny_trainer: Callable[..., DS2D2Trainer]) -> None:
    trainer = tiny_trainer("obb")  # its folder exists, nothing is saved yet
    with pytest.raises(BadUseError, match="start the same command again without 'resume'"):
        distill(**command(trainer, resume=True))
    with pytest.raises(BadUseError, match="start the same command again without 'resume'"):
        distill(**command(trainer, resume=str(trainer.last)))


def test_after_the_last_epoch(tiny_trainer: Callable[..., DS2D2Trainer]) -> None:
    trainer = tiny_trainer("obb", imhi=0)
    trainer.train()
    with pytest.raises(BadUseError, match="finished, nothing to resume"):
        distill(**command(trainer, resume=True))


def test_cut_between_last_epoch_and_clean_up(tiny_trainer: Callable[..., DS2D2Trainer]) -> None:
    trainer = tiny_trainer("obb", epochs=2, imhi=0)
    cut_after(trainer, 1)
    with pytest.raises(Cut):
        trainer.train()
    assert get_adapters(torch_load(trainer.last, map_location="cpu")["ema"]) is not None
    for resume in (str(trainer.save_dir), True, str(trainer.last)):  # the first one finishes the files
        with pytest.raises(BadUseError, match="finished, nothing to resume"):
            distill(**command(trainer, resume=resume))
    for file in (trainer.last, trainer.best):
        finished_checkpoint = torch_load(file, map_location="cpu")
        assert get_adapters(finished_checkpoint["model"]) is None
        assert ARGS_KEY not in finished_checkpoint["train_args"]
        assert [finished_checkpoint[k] for k in ("epoch", "optimizer", "ema")] == [-1, None, None]


def test_a_run_of_ultralytics_alone_is_refused(tmp_path: Path, unfinished: DS2D2Trainer) -> None:
    unfinished_checkpoint = torch_load(unfinished.last, map_location="cpu")
    unfinished_checkpoint["train_args"].pop(ARGS_KEY)
    torch.save(unfinished_checkpoint, tmp_path / "last.pt")
    with pytest.raises(BadUseError, match="run of Ultralytics alone"):
        find_unfinished(str(tmp_path / "last.pt"), {}, ("obb",))


def test_a_run_is_found_without_naming_the_student(unfinished: DS2D2Trainer) -> None:
    keys = {"project": str(unfinished.save_dir.parent), "name": unfinished.save_dir.name}
    assert find_unfinished(True, keys, ("detect", "obb")).task == "obb"


@pytest.mark.slow
def test_a_moved_amplifier_is_not_missed(
    tiny_trainer: Callable[..., DS2D2Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has a copy of its own, and a teacher in another place is remembered."""
    first = tiny_trainer("obb", name="first")
    first.train()
    named = tmp_path / "named.safetensors"
    shutil.copyfile(first.save_dir / "amplifier.safetensors", named)
    trainer = tiny_trainer("obb", epochs=2, amplifier=str(named))
    cut_after(trainer, 0)
    with pytest.raises(Cut):
        trainer.train()
    named.unlink()
    moved = tmp_path / "moved.pt"
    shutil.copyfile(str(trainer.run.settings.teacher), moved)
    seen: list[DS2D2Trainer] = []
    original = DS2D2Trainer.set_model_attributes
    monkeypatch.setattr(DS2D2Trainer, "set_model_attributes", lambda self: (seen.append(self), original(self))[1])
    distill(**command(trainer, resume=True, teacher=moved, amplifier=str(named)))
    assert seen[0].run.settings.teacher == str(moved)
    # a process of DDP is handed what the launching one knows
    handed = {**vars(seen[0].args), "resume": str(trainer.last)}
    assert handed[ARGS_KEY]["settings"]["teacher"] == str(moved)


def test_under_torchrun_the_stored_amplifier_takes_the_place_of_a_lost_copy(
    unfinished: DS2D2Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (unfinished.save_dir / "amplifier.safetensors").unlink()
    for module in (run_setup, run_start, training):
        monkeypatch.setattr(module, "RANK", 0)
    monkeypatch.setattr(BaseTrainer, "train", lambda self: None)
    trainer = DS2D2OBBTrainer(overrides={"resume": str(unfinished.last), "data": unfinished.args.data})
    trainer.train()
    assert trainer.state.amplifier_path == unfinished.state.amplifier_path
    assert Path(str(trainer.state.amplifier_path)).is_file()


@pytest.mark.slow
def test_resumes_an_end_to_end_student(
    tiny_trainer: Callable[..., DS2D2Trainer], checkpoint: Callable[..., Path]
) -> None:
    trainer = tiny_trainer("detect", model="yolo26n.yaml", teacher=str(checkpoint("yolo26s.yaml")), epochs=3, imhi=0)
    cut_after(trainer, 0)
    with pytest.raises(Cut):
        trainer.train()
    resumed = DS2D2Trainer(overrides={"model": str(trainer.last), "resume": str(trainer.last), "task": "detect"})
    one2many_weight: list[float] = []
    resumed.add_callback("on_train_epoch_start", lambda t: one2many_weight.append(t.model.criterion.base.o2m))
    resumed.train()
    # one2many fades from 0.8 to 0.1 over the epochs, resumed or not
    assert one2many_weight == pytest.approx([0.8 - 0.7 * e / 2 for e in (1, 2)])


def test_killed_process_resumes(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """The command itself, SIGKILLed once an epoch is saved, and again with 'resume'."""
    line = [
        sys.executable, "-m", "ds2d2_yolo", "train", f"teacher={checkpoint(PAIRS['obb'][0])}",
        f"student={PAIRS['obb'][1]}", f"data={tiny_data('obb')}", "imgsz=96", "epochs=8", "batch=4", "device=cpu",
        "plots=False", f"project={tmp_path}", "name=killed", "amplifier_epochs=1",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    rows = tmp_path / "killed" / "results.csv"
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, env=env)
        deadline = time.time() + 600
        last = tmp_path / "killed" / "weights" / "last.pt"
        while not (last.is_file() and len(rows.read_text().splitlines()) >= 3):
            assert process.poll() is None, (tmp_path / "log.txt").read_text()[-2000:]
            assert time.time() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        process.wait()
    done = subprocess.run([*line, "resume"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert [r.split(",")[0] for r in rows.read_text().splitlines()[-2:]] == ["7", "8"]
    assert not list((tmp_path / "killed").glob("weights/.*"))
