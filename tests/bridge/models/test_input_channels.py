"""Multispectral data: teacher and student take their channels, whatever copies, folds or pickles the teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics.nn.tasks import DetectionModel, OBBModel, load_checkpoint, torch_safe_load
from ultralytics.utils.torch_utils import get_flops, unwrap_model

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.models.input_channels import PickChannels, fit_channels, input_channels
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher, Teacher, load_teacher, state_hash
from ds2d2_yolo.bridge.training.amplifier_trainer import AmplifierOBBTrainer
from ds2d2_yolo.bridge.training.obtain_amplifier import obtain_amplifier
from ds2d2_yolo.errors import BadUseError
from tests.helpers.data import write_bands
from tests.helpers.terms import ACTIVE

Trainer = Callable[..., DS2D2Trainer]
PICKED = [2, 0, 3]


@pytest.fixture(scope="session")
def bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a data set of four channels."""
    return write_bands(tmp_path_factory.mktemp("bands") / "data", 4)


@pytest.fixture(scope="session")
def wide_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained teacher of four channels."""
    model = OBBModel("yolov8n-obb.yaml", nc=2, ch=4, verbose=False)
    model.names, model.task = {0: "red", 1: "green"}, "obb"
    file = tmp_path_factory.mktemp("wide") / "four.pt"
    torch.save({"model": model, "train_args": {"task": "obb"}}, file)
    return file


@pytest.fixture
def teacher(checkpoint: Callable[..., Path]) -> Teacher:
    """A teacher of three channels."""
    return load_teacher(str(checkpoint("yolov8s-obb.yaml")), "obb")


def scores(model: Any, images: Tensor) -> Tensor:
    """What a model in evaluation mode answers."""
    with torch.no_grad():
        answer: Tensor = model(images)[0]
    return answer


def test_the_chosen_channels_survive_whatever_is_done_to_the_teacher(teacher: Teacher, tmp_path: Path) -> None:
    images = torch.rand(1, 4, 64, 64)
    expected = scores(teacher.model, images[:, PICKED])
    assert fit_channels(teacher, 4, PICKED) == (2, 0, 3)
    assert torch.equal(scores(teacher.model, images), expected)
    assert torch.equal(scores(copy.deepcopy(teacher.model), images), expected)
    torch.save({"model": teacher.model}, tmp_path / "saved.pt")
    for named_types_only in (False, True):
        checkpoint, _ = torch_safe_load(tmp_path / "saved.pt", safe_only=named_types_only)
        assert torch.equal(scores(checkpoint["model"], images), expected)
    assert state_hash(teacher.model) == teacher.sha256
    folded = copy.deepcopy(teacher.model).fuse(verbose=False)
    torch.testing.assert_close(scores(folded, images), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(scores(copy.deepcopy(folded), images), expected, rtol=1e-3, atol=1e-3)
    answer = FrozenTeacher(teacher, (8.0, 16.0, 32.0))(images)
    torch.testing.assert_close(answer["scores"].sigmoid(), expected[:, 4:6], rtol=1e-3, atol=1e-4)


def test_a_first_layer_that_is_no_convolution() -> None:
    """As in YOLOv9e, where two layers read the images through it."""
    readers: list[Any] = [[-1, 1, "Conv", [8, 3, 2]], [0, 1, "Conv", [8, 3, 2]]]
    backbone = [[-1, 1, "nn.Identity", []], *readers, [[1, 2], 1, "Concat", [1]], [-1, 1, "Conv", [16, 3, 4]]]
    layers = {"nc": 2, "backbone": backbone, "head": [[[4], 1, "Detect", ["nc"]]]}
    model = DetectionModel(layers, verbose=False).eval()
    images = torch.rand(1, 4, 64, 64)
    expected = scores(model, images[:, PICKED])
    fit_channels(Teacher("", model, "", ("red", "green"), False, (8.0,)), 4, PICKED)
    assert torch.equal(scores(model, images), expected)


def test_ultralytics_still_measures_the_teacher(teacher: Teacher) -> None:
    before = get_flops(teacher.model, 64)
    fit_channels(teacher, 4, PICKED)
    assert get_flops(teacher.model, 64) == before > 0


@pytest.mark.parametrize(("channels", "chosen"), [(1, [0, 0, 0]), (3, [2, 1, 0])])
def test_channels_repeat_and_change_places(channels: int, chosen: list[int], teacher: Teacher) -> None:
    images = torch.rand(1, channels, 64, 64)
    expected = scores(teacher.model, images[:, chosen])
    assert fit_channels(teacher, channels, chosen) == tuple(chosen)
    assert torch.equal(scores(teacher.model, images), expected)


@pytest.mark.parametrize("chosen", [None, [0, 1, 2]])
def test_nothing_is_hooked_where_the_teacher_takes_all(chosen: list[int] | None, teacher: Teacher) -> None:
    assert fit_channels(teacher, 3, chosen) == (0, 1, 2)
    assert not teacher.model.model[0]._forward_pre_hooks


@pytest.mark.parametrize(
    ("channels", "chosen", "message"),
    [
        (4, None, r"takes 3 channels and the data have 4: .*, such as teacher_channels=\[0, 1, 2\]"),
        (1, None, r"takes 3 channels and the data have 1: .*, such as teacher_channels=\[0, 0, 0\]"),
        (4, [0, 1], "names 2 channels and the teacher takes 3: name 3 of the data's 4"),
        (3, [0, 1, 2, 0], "names 4 channels and the teacher takes 3"),
        (4, [0, 1, 4], "the data have 4 channels, 0 to 3"),
        (4, [-1, 0, 1], "the data have 4 channels, 0 to 3"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(
    channels: int, chosen: list[int] | None, message: str, teacher: Teacher
) -> None:
    with pytest.raises(BadUseError, match=message):
        fit_channels(teacher, channels, chosen)


def test_a_run_says_so_before_it_makes_a_folder(
    tiny_trainer: Trainer, bands: Path, tiny_settings: dict[str, Any]
) -> None:
    with pytest.raises(BadUseError, match="takes 3 channels and the data have 4"):
        tiny_trainer("obb", data=str(bands))
    assert not list(Path(str(tiny_settings["project"])).glob("*"))


def test_a_teacher_of_three_channels_teaches_a_student_of_four(tiny_trainer: Trainer, bands: Path) -> None:
    """The whole run, the amplifier's training included: its copies, its checkpoints, its validation."""
    trainer = tiny_trainer("obb", data=str(bands), teacher_channels=PICKED, val=True)
    seen: list[Tensor] = []
    trainer.add_callback("on_train_start", lambda t: _record(t.distiller.teacher, seen))
    trainer.train()
    assert input_channels(unwrap_model(trainer.model)) == 4
    assert [x.shape[1] for x in seen] == [3] * len(seen)
    assert seen
    assert all(0 < float(trainer.tloss[f"{t}_loss"]) < float("inf") for t in ACTIVE)
    assert input_channels(load_checkpoint(trainer.best)[0]) == 4
    assert b"PickChannels" not in trainer.best.read_bytes()


def _record(teacher: FrozenTeacher, seen: list[Tensor]) -> None:
    """Keep what the teacher's first convolution gets."""
    teacher.model.model[0].conv.register_forward_pre_hook(lambda _, args: seen.append(args[0]))


def test_the_amplifier_learns_from_the_chosen_channels(
    tiny_trainer: Trainer, bands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer("obb", data=str(bands), teacher_channels=PICKED, wavelet="db3")  # no other test keeps one
    seen: list[Any] = []
    original = AmplifierOBBTrainer.save_model

    def keep(self: AmplifierOBBTrainer) -> bool:
        seen.append(self.ema.ema.model[0])
        return bool(original(self))

    monkeypatch.setattr(AmplifierOBBTrainer, "save_model", keep)
    obtain_amplifier(trainer.run.amplifier_card, trainer.run.teacher, trainer.run.args)
    for layer in seen:
        (hook,) = layer._forward_pre_hooks.values()
        assert isinstance(hook, PickChannels)
        assert (hook.channels, hook.of) == (tuple(PICKED), 4)
    assert seen


def test_teacher_and_student_of_four_channels(tiny_trainer: Trainer, bands: Path, wide_checkpoint: Path) -> None:
    trainer = tiny_trainer("obb", data=str(bands), teacher=str(wide_checkpoint))
    trainer.train()
    assert input_channels(unwrap_model(trainer.model)) == input_channels(trainer.run.teacher.model) == 4
    assert all(0 < float(trainer.tloss[f"{t}_loss"]) < float("inf") for t in ACTIVE)
