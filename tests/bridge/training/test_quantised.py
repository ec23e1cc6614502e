"""Students that train with INT8 fake quantisation.

They start from a checkpoint that detects: the ranges of random weights are next to 0, and their gradients are not
always finite.
"""

from __future__ import annotations

import copy
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.utils.patches import torch_load

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.models.adapters import ATTRIBUTE, get_adapters
from ds2d2_yolo.bridge.models.loading import load_yolo
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.bridge.upstream import modelopt
from ds2d2_yolo.bridge.upstream.modelopt import require_modelopt
from ds2d2_yolo.errors import BadUseError
from tests.helpers.quantised import needs_modelopt, quantise, quantisers
from tests.helpers.runs import report_of
from tests.helpers.settings import OFF, TINY
from tests.helpers.trace import Trace, same
from tests.helpers.trainers import PAIRS

pytestmark = needs_modelopt
TASKS = ["obb", pytest.param("detect", marks=pytest.mark.slow)]
Trainer = Callable[..., DS2D2Trainer]


@pytest.mark.parametrize("task", TASKS)
def test_all_gains_zero_is_ultralytics_own_quantised_run(
    task: str, tiny_trainer: Trainer, tiny_data: Callable[[str], Path], detecting: Callable[..., Path], tmp_path: Path
) -> None:
    require_modelopt("this test")  # its import draws a random number, which a first run would do after its seed
    student, traces = str(detecting(PAIRS[task][1], tmp_path)), (Trace(), Trace())
    plain = YOLO(student)
    traces[0].follow(plain)
    plain.train(data=str(tiny_data(task)), **{**TINY, "epochs": 2, "quantize": 8}, project=str(tmp_path), name="plain")
    trainer = tiny_trainer(task, model=student, epochs=2, quantize=8, **OFF)  # it seeds the random numbers
    traces[1].follow(trainer)
    trainer.train()
    assert len(traces[0].losses) == 4
    assert traces[0].losses == traces[1].losses
    assert any("amax" in name for name in traces[0].weights)
    assert same(traces[0].weights, traces[1].weights)


@pytest.mark.parametrize("task", TASKS)
def test_the_student_is_quantised_and_nothing_else(
    task: str, tiny_trainer: Trainer, detecting: Callable[..., Path], tmp_path: Path
) -> None:
    student = detecting(PAIRS[task][1], tmp_path)
    trainer, seen = tiny_trainer(task, model=str(student), epochs=2, quantize=8), {}

    def look(t: Any) -> None:
        d = t.distiller
        seen["student"] = quantisers(t.model)
        seen["others"] = [q for m in (d.teacher.model, d.amplifier.head, d.adapters) for q in quantisers(m)]
        held = get_adapters(t.model)
        seen["one"] = all(a is b for a, b in zip(held.parameters(), d.adapters.parameters(), strict=True))
        seen["start"] = [p.detach().clone() for p in held.parameters()]

    trainer.add_callback("on_train_start", look)
    trainer.train()
    assert len(seen["student"]) > 100
    assert not any(ATTRIBUTE in name for name in seen["student"])
    assert seen["others"] == []
    assert seen["one"], "the optimizer moves the weights that the distiller uses"
    now = list(trainer.distiller.adapters.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(seen["start"], now, strict=True))
    text = (trainer.save_dir / "preflight.txt").read_text(encoding="utf-8")
    assert "trains with INT8 fake quantisation" in " ".join(text.split())


@pytest.mark.slow
def test_any_ultralytics_reads_the_checkpoint_of_each_epoch(
    tiny_trainer: Trainer, detecting: Callable[..., Path], tmp_path: Path
) -> None:
    student = detecting(PAIRS["obb"][1], tmp_path)
    trainer, seen = tiny_trainer("obb", model=str(student), epochs=2, quantize=8), {}
    image = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))

    def look(t: Any) -> None:
        average = copy.deepcopy(t.ema.ema)
        ranges = {k: v for k, v in average.state_dict().items() if "quantizer" in k}
        saved = average.half().float().eval()  # checkpoints hold half precision, but for the ranges
        saved.load_state_dict({k: v.clone() for k, v in ranges.items()}, strict=False)
        loaded = YOLO(str(t.last)).model.eval()
        assert get_adapters(loaded) is not None
        with torch.no_grad():
            seen[t.epoch] = saved(image)[0], loaded(image)[0]
        with zipfile.ZipFile(t.last) as archive:
            (pickled,) = (archive.read(n) for n in archive.namelist() if n.endswith("data.pkl"))
        assert b"ds2d2_yolo" not in pickled
        assert "ds2d2" not in str(torch_load(t.last, map_location="cpu")["modelopt"])

    trainer.add_callback("on_model_save", look)
    trainer.train()
    assert sorted(seen) == [0, 1]
    assert all(torch.equal(a, b) for a, b in seen.values())
    finished = torch_load(trainer.last, map_location="cpu")
    assert get_adapters(finished["model"]) is None
    model = YOLO(str(trainer.last)).model
    assert quantisers(model)
    assert "modelopt" in finished


@pytest.mark.slow
def test_returns_to_the_last_checkpoint_after_a_loss_that_is_not_finite(
    tiny_trainer: Trainer, detecting: Callable[..., Path], tmp_path: Path
) -> None:
    student = detecting(PAIRS["obb"][1], tmp_path)
    trainer, epochs = tiny_trainer("obb", model=str(student), epochs=3, quantize=8, imhi=0), []

    def spoil(t: Any) -> None:
        epochs.append(t.epoch)
        if epochs == [0, 1]:
            t.loss = torch.tensor(float("nan"))

    trainer.add_callback("on_train_epoch_end", spoil)
    trainer.train()
    assert epochs == [0, 1, 1, 2]
    assert quantisers(trainer.model)


def test_is_calibrated_on_labelled_images_of_the_students_size(
    tiny_trainer: Trainer, detecting: Callable[..., Path], tmp_path: Path
) -> None:
    student = detecting(PAIRS["obb"][1], tmp_path)
    trainer = tiny_trainer(
        "obb", model=str(student), quantize=8, imhi=0, unlabelled="rest", fraction=0.5, imgsz=64, teacher_imgsz=128,
        mosaic=1.0,
    )  # fmt: skip
    seen: list[tuple[int, ...]] = []
    original = trainer.preprocess_batch

    def record(batch: Any) -> Any:
        done = original(batch)
        seen.append(tuple(done["img"].shape))
        return done

    trainer.preprocess_batch = record  # type: ignore[method-assign]
    trainer.train()
    assert seen[0][2:] == (64, 64)
    assert len(seen) > 1
    assert (trainer.save_dir / "results.csv").is_file()


def test_the_expected_memory_counts_the_fake_quantisers(tiny_trainer: Trainer) -> None:
    memory = {q: report_of(tiny_trainer("obb", imhi=0, quantize=q)).memory for q in (None, 8)}
    copies = memory[8].copies - memory[None].copies
    assert copies > 0.9 * memory[8].gradients, "autograd saves the rounded weights"
    assert memory[8].activations > memory[None].activations


def test_warns_of_ranges_of_random_weights(tiny_trainer: Trainer, checkpoint: Callable[..., Path]) -> None:
    trained = str(checkpoint(PAIRS["obb"][1]))
    reports = [
        report_of(tiny_trainer("obb", imhi=0, **k)) for k in ({"quantize": 8}, {}, {"quantize": 8, "model": trained})
    ]
    assert [any("ranges of activations" in w for w in r.warnings) for r in reports] == [True, False, False]


def test_a_quantised_teacher_is_refused(
    checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    file = quantise(Path(shutil.copy(checkpoint("yolov8n.yaml"), tmp_path / "teacher.pt")), tiny_data("detect"))
    with pytest.raises(BadUseError, match="was trained with quantisation: use the float checkpoint it came from"):
        load_teacher(str(file))


def test_a_checkpoint_is_read_without_warnings(
    checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    file = quantise(Path(shutil.copy(checkpoint("yolov8n.yaml"), tmp_path / "student.pt")), tiny_data("detect"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_yolo(str(file), f"model={file}")


def test_names_the_extra_where_modelopt_is_missing(
    tiny_trainer: Trainer, checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    file = quantise(Path(shutil.copy(checkpoint("yolov8n.yaml"), tmp_path / "student.pt")), tiny_data("detect"))
    monkeypatch.setattr(modelopt, "MODELOPT_REQUIREMENTS", ["nvidia-modelopt>=999"])
    with pytest.raises(BadUseError, match=r"^quantize=8 needs NVIDIA ModelOpt: pip install 'ds2d2-yolo\[quantize\]'$"):
        tiny_trainer("obb", quantize=8)
    with pytest.raises(BadUseError, match=r"student.pt was trained with quantize=8 and needs NVIDIA ModelOpt: pip"):
        load_yolo(str(file), f"model={file}")
    load_yolo(str(checkpoint("yolov8n.yaml")), "model=float.pt")
