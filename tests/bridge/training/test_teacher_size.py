"""A run whose teacher sees larger images: loaders, validation, resume, report and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import avg_pool2d
from ultralytics.data import build_yolo_dataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import DS2D2OBBTrainer, DS2D2Trainer
from ds2d2_yolo.bridge.distillation.teacher_size import TEACHER_IMAGE, teacher_images
from ds2d2_yolo.bridge.models.amplifier_store import load_amplifier, save_amplifier
from ds2d2_yolo.bridge.preflight import collect
from ds2d2_yolo.bridge.preflight.memory_estimate import step_bytes
from ds2d2_yolo.bridge.training.obtain_amplifier import card_for
from ds2d2_yolo.bridge.training.setup.run_setup import load_checked_amplifier
from ds2d2_yolo.errors import BadUseError
from tests.helpers.runs import report_of, student_of
from tests.helpers.settings import OFF, TINY
from tests.helpers.trainers import PAIRS

Trainer = Callable[..., DS2D2Trainer]
LARGER = {"imgsz": 64, "teacher_imgsz": 128, "imhi": 0.0}


class LargerImages(DetectionTrainer):
    """Ultralytics' trainer on images of 128 px, each the mean of four pixels before the student sees it."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        if mode != "train":
            return super().build_dataset(img_path, mode, batch)
        self.args.imgsz = 128
        dataset = build_yolo_dataset(self.args, img_path, batch, self.data, mode=mode, stride=64)
        self.args.imgsz = 64
        return dataset

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        done = super().preprocess_batch(batch)
        return {**done, "img": avg_pool2d(done["img"], 2)} if self.model.training else dict(done)


def test_all_gains_zero_is_the_plain_run_on_the_same_images(
    tiny_trainer: Trainer, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    """The baseline of an honest comparison: the same pipeline without a term."""
    keys = {"epochs": 2, "mosaic": 1.0, "close_mosaic": 1}
    place = {"project": str(tmp_path), "name": "plain", "imgsz": 64, "data": str(tiny_data("detect"))}
    makers: list[Callable[[], Any]] = [
        lambda: LargerImages(overrides={**TINY, **keys, **place, "model": PAIRS["detect"][1]}),
        lambda: tiny_trainer("detect", **{**LARGER, **OFF, **keys}),
    ]
    losses: tuple[list[float], list[float]] = ([], [])
    for make, seen in zip(makers, losses, strict=True):
        run = make()  # which sets the seed
        run.add_callback("on_train_batch_end", lambda t, seen=seen: seen.append(float(t.loss.detach())))
        run.train()
    assert len(losses[1]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("rect", [False, True])
def test_student_and_validation_keep_their_size(rect: bool, tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("detect", **LARGER, val=True, rect=rect)
    seen: list[dict[str, Any]] = []
    original = trainer.preprocess_batch

    def record(batch: dict[str, Any]) -> dict[str, Any]:
        done = original(batch)
        seen.append(done)
        return done

    trainer.preprocess_batch = record  # type: ignore[method-assign]
    trainer.train()
    assert len(seen) == 2
    for batch in seen:
        assert batch["img"].shape[2:] == (64, 64)
        assert batch[TEACHER_IMAGE].shape[2:] == (128, 128)
        torch.testing.assert_close(batch["img"], avg_pool2d(batch[TEACHER_IMAGE], 2))
    assert trainer.args.imgsz == trainer.validator.args.imgsz == trainer.test_loader.dataset.imgsz == 64
    assert trainer.train_loader.dataset.imgsz == 128
    images = trainer.validator.preprocess(next(iter(trainer.test_loader)))
    assert teacher_images(images) is images["img"]
    assert max(images["img"].shape[2:]) <= 96, "64 px and the padding of half a stride"
    assert all(float(trainer.tloss[f"{term}_loss"]) > 0 for term in ("exlo", "exhi", "imfu"))


class Cut(Exception):
    """Stands for a kill right after an epoch was saved."""


def test_resumed_run_ends_as_an_uninterrupted_one(
    tiny_trainer: Trainer, tiny_data: Callable[[str], Path], unhurried: None
) -> None:
    keys = {**LARGER, "epochs": 3, "mosaic": 1.0, "close_mosaic": 1, "exhi": 0.0}
    uninterrupted = tiny_trainer("obb", **keys, name="uninterrupted")
    uninterrupted.train()
    cut = tiny_trainer("obb", **keys, name="cut")

    def stop(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise Cut

    cut.add_callback("on_model_save", stop)
    with pytest.raises(Cut):
        cut.train()
    last = str(cut.last)
    request = {"model": last, "resume": last, "data": str(tiny_data("obb"))}
    with pytest.raises(BadUseError, match="keeps both sizes when it is resumed: leave imgsz= out"):
        DS2D2OBBTrainer(overrides={**request, "imgsz": 32})
    resumed = DS2D2OBBTrainer(overrides=request)
    assert (resumed.run.settings.teacher_imgsz, resumed.run.size_ratio) == (128, 2)
    resumed.train()
    expected_weights, resumed_weights = (unwrap_model(t.model).state_dict() for t in (uninterrupted, resumed))
    assert expected_weights.keys() == resumed_weights.keys()
    assert all(torch.equal(resumed_weights[k], v) for k, v in expected_weights.items())


def test_report_names_both_sizes(tiny_trainer: Trainer) -> None:
    report = report_of(tiny_trainer("obb", **LARGER))
    assert (report.run.imgsz, report.run.teacher_imgsz) == (64, 128)
    levels = [(x.stride, x.student.shape[1:], x.teacher.shape[1:]) for x in report.levels]
    assert levels == [(8.0, (8, 8), (8, 8)), (16.0, (4, 4), (4, 4))]
    assert report.levels_off == (
        "stride 32: no level of the teacher has its grid",
        "the teacher's stride 8: no level of the student has its grid",
    )
    report_at_128 = report_of(tiny_trainer("obb", imgsz=128, imhi=0.0))
    assert report.teacher.gflops == report_at_128.teacher.gflops
    assert report.student.gflops == report_of(tiny_trainer("obb", imgsz=64, imhi=0.0)).student.gflops


def test_teacher_is_measured_at_its_size(tiny_trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    measured_sizes: list[int] = []
    monkeypatch.setattr(
        collect, "teacher_map", lambda t, d, args, *_: (measured_sizes.append(args.imgsz), (0.5, 0.3))[1]
    )
    trainer = tiny_trainer("obb", **LARGER)
    report_of(trainer)
    assert measured_sizes == [128]
    assert trainer.args.imgsz == 64


def test_memory_holds_the_teachers_image(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("detect", **{**LARGER, **OFF})
    student = collect._trainable_copy(student_of(trainer), trainer.args)
    plain, larger = (step_bytes(student, None, 3, 64, False, ratio).activations for ratio in (1, 2))
    assert larger - plain == pytest.approx(3 * 128 * 128 * 4, rel=0.01), "the assigner's part depends on the image"


def test_sizes_follow_a_teacher_that_is_coarser(tiny_trainer: Trainer, checkpoint: Callable[..., Path]) -> None:
    """A level of stride 64 has the grid of the student's stride 32, so that nothing has to be rounded."""
    keys = {**LARGER, "imgsz": 96, "teacher_imgsz": 192, "teacher": str(checkpoint("yolov8n-p6.yaml"))}
    trainer = tiny_trainer("detect", **keys)
    trainer.train()
    assert trainer.distiller is not None
    assert trainer.distiller.strides == (8.0, 16.0, 32.0)
    assert trainer.args.imgsz == 96


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"teacher_imgsz": 100}, "teacher_imgsz=100 has to be imgsz=64 times 2, 4 or 8: give 128, or 256"),
        ({"teacher_imgsz": 32}, "teacher_imgsz=32 is smaller than imgsz=64: give 128, or 256"),
        ({"multi_scale": 0.5}, "multi_scale=0.5 does not go with teacher_imgsz=: leave one of them out"),
        ({"imgsz": 50, "teacher_imgsz": 100}, "imgsz=50 is no multiple .* give imgsz=64 teacher_imgsz=128"),
        (
            {"teacher_imgsz": 512},
            "student strides 8, 16, 32 and teacher strides 8, 16, 32 at 8 times .* share no level",
        ),
        ({"levels": [32]}, r"levels=\[32\]: student and teacher share the strides 8, 16"),
    ],
)
def test_refused_before_anything_is_trained(keys: dict[str, Any], message: str, tiny_trainer: Trainer) -> None:
    with pytest.raises(BadUseError, match=message) as e:
        tiny_trainer("obb", **{**LARGER, **keys}).train()
    assert "\n" not in str(e.value)


def test_amplifier_of_another_size_is_another_one(tiny_trainer: Trainer) -> None:
    run = tiny_trainer("obb", **{**LARGER, "imhi": 1.0}).run
    card = run.amplifier_card
    assert card is not None
    assert card.imgsz == 128
    origin = run.teacher, run.data
    assert card.key == card_for(*origin, run.teacher_args, "haar", 1, run.channels).key
    assert card.key != card_for(*origin, run.args, "haar", 1, run.channels).key


def test_amplifier_of_another_size_is_named(
    tiny_trainer: Trainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tiny_trainer("obb", **{**LARGER, "imhi": 1.0}).run
    assert run.amplifier_card is not None
    file = tmp_path / "amplifier.safetensors"
    for imgsz, warned in ((128, False), (64, True)):
        caplog.clear()
        save_amplifier(file, {"x": torch.zeros(1)}, replace(run.amplifier_card, imgsz=imgsz))
        with caplog.at_level(logging.WARNING):
            load_checked_amplifier(run, file, check_data=True)
        assert ("was trained at 64 px, and the teacher sees 128 px here" in caplog.text) == warned
    assert load_amplifier(file)[1].imgsz == 64
