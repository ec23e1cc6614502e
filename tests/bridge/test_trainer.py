"""What a distilled run does to the student, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.patches import torch_load
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import DS2D2Trainer, distill
from ds2d2_yolo.bridge.adapters import ARGS_KEY, ATTRIBUTE, adapters_of, make_adapters
from ds2d2_yolo.bridge.teacher import load_teacher, state_hash
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.settings import TERMS

from .conftest import OFF, PAIRS

Trainer = Callable[..., DS2D2Trainer]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "weights" / "last.pt")[0].state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: Callable[[str], Path]
) -> Callable[[str], dict[str, torch.Tensor]]:
    """Weights of the plain Ultralytics run of a task, trained once, and its logged losses."""
    from tests.conftest import TINY

    done: dict[str, dict[str, torch.Tensor]] = {}

    def get(task: str) -> dict[str, torch.Tensor]:
        if task not in done:
            project = tmp_path_factory.mktemp(f"plain-{task}")
            YOLO(PAIRS[task][1]).train(data=str(tiny_data(task)), **TINY, project=str(project), name="run")
            done[task] = weights_of(project / "run")
        return done[task]

    return get


@pytest.mark.parametrize("task", ["obb", "detect"])
def test_all_gains_zero_is_the_plain_run(task: str, plain: Any, tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer(task, **OFF)
    trainer.train()
    assert same(weights_of(trainer.save_dir), plain(task))
    assert [float(trainer.tloss[f"{t}_loss"]) for t in TERMS] == [0, 0, 0, 0]


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("task", ["obb", "detect"])
def test_each_term_alone_changes_the_student(task: str, term: str, plain: Any, tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer(task, **{**OFF, term: 1.0})
    trainer.train()
    ours, reference = weights_of(trainer.save_dir), plain(task)
    assert ours.keys() == reference.keys()
    assert not same(ours, reference)
    logged = {t: float(trainer.tloss[f"{t}_loss"]) for t in TERMS}
    assert logged.pop(term) > 0
    assert set(logged.values()) == {0.0}


def test_adapters_train_and_are_reproducible(tiny_trainer: Trainer) -> None:
    runs = []
    for name in ("a", "b"):
        trainer = tiny_trainer("obb", name=name, imhi=0)
        trainer.train()
        adapters = adapters_of(unwrap_model(trainer.model))
        assert adapters is not None
        runs.append(adapters)
    start = make_adapters([a.in_channels for a in runs[0]], [a.out_channels for a in runs[0]], trainer.args.seed)
    for first, second, untrained in zip(*runs, start, strict=True):
        assert torch.equal(first.weight, second.weight)
        assert not torch.equal(first.weight, untrained.weight)


def test_teacher_and_amplifier_are_never_trained(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb", epochs=2)
    frozen: dict[str, str] = {}

    def modules() -> dict[str, torch.nn.Module]:
        distiller = trainer._distiller
        assert distiller is not None
        assert distiller.amplifier is not None
        return {"teacher": distiller.teacher.model, "amplifier": distiller.amplifier.head}

    def start(_: Any) -> None:
        frozen.update({name: state_hash(m) for name, m in modules().items()})

    trainer.add_callback("on_train_start", start)
    trainer.train()
    assert frozen == {name: state_hash(m) for name, m in modules().items()}
    ids = {id(p) for m in modules().values() for p in m.parameters()}
    assert not ids & {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not ids & {id(p) for p in trainer.model.parameters()}
    shapes = {k for m in modules().values() for k in m.state_dict()}
    extra = set(trainer.ema.ema.state_dict()) - set(YOLO(PAIRS["obb"][1]).model.state_dict())
    assert extra == {f"{ATTRIBUTE}.{i}.weight" for i in range(3)}
    assert shapes  # the teacher has tensors, or the lines above compare nothing
    file_hash = load_teacher(trainer.settings.teacher, "obb").sha256
    assert file_hash == trainer.teacher.sha256


def test_adapters_have_a_parameter_group_of_their_own(tiny_trainer: Trainer) -> None:
    for optimizer in ("AdamW", "SGD", "MuSGD"):
        trainer = tiny_trainer("obb", optimizer=optimizer, imhi=0, name=optimizer)
        trainer.train()
        adapters = adapters_of(unwrap_model(trainer.model))
        assert adapters is not None
        group = trainer.optimizer.param_groups[-1]
        assert {id(p) for p in group["params"]} == {id(p) for p in adapters.parameters()}
        assert group["weight_decay"] == 0
        assert not group.get("use_muon", False)


def test_finished_files_are_plain(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb", epochs=2, save_period=1)
    trainer.train()
    files = sorted(trainer.wdir.glob("*.pt"))
    assert {f.name for f in files} == {"best.pt", "epoch0.pt", "epoch1.pt", "last.pt"}
    wanted = set(YOLO(PAIRS["obb"][1]).model.state_dict())
    for file in files:
        found = torch_load(file, map_location="cpu")
        assert found["ema"] is None
        assert found["optimizer"] is None
        assert set(found["model"].state_dict()) == wanted
        assert ARGS_KEY not in found["train_args"]
        assert ARGS_KEY not in dict(found["model"].args)
        assert not any("ds2d2" in name for name in vars(found["model"]))


def test_columns_of_the_terms(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb", val=True)
    trainer.train()
    header, row = (trainer.save_dir / "results.csv").read_text().splitlines()
    columns = dict(zip(header.split(","), map(float, row.split(",")), strict=True))
    names = [c for c in header.split(",") if c.startswith("train/")]
    assert names[-4:] == [f"train/{t}_loss" for t in TERMS]
    assert columns["train/exlo_loss"] > 0
    assert columns["train/exhi_loss"] > 0
    assert [columns[f"val/{t}_loss"] for t in TERMS] == [0, 0, 0, 0]


def test_python_entrances_agree(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tiny_settings: dict[str, Any]
) -> None:
    teacher, student = checkpoint(PAIRS["obb"][0]), PAIRS["obb"][1]
    keys = {**tiny_settings, "imhi": 0.5, "data": str(tiny_data("obb"))}
    distill(teacher=teacher, student=student, **{**keys, "name": "a"})
    from ds2d2_yolo import DS2D2OBBTrainer

    YOLO(student).train(trainer=DS2D2OBBTrainer, teacher=teacher, **{**keys, "name": "b"})
    project = Path(str(tiny_settings["project"]))
    assert same(weights_of(project / "a"), weights_of(project / "b"))


def test_end_to_end_student_and_teacher(tiny_trainer: Trainer, checkpoint: Callable[..., Path]) -> None:
    trainer = tiny_trainer("detect", model="yolo26n.yaml", teacher=str(checkpoint("yolo26s.yaml")), epochs=2)
    trainer.train()
    losses = {t: float(trainer.tloss[f"{t}_loss"]) for t in TERMS}
    assert all(0 < v < float("inf") for v in losses.values())


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"teacher": "missing.pt"}, "missing.pt"),
        ({"teacher": "yolov8s-obb.yaml"}, "untrained"),
        ({"teacher": None}, "teacher= is missing"),
        ({"distill_model": "yolo26s.pt"}, "distill_model="),
        ({"extent": "reference"}, "extent=touched"),
    ],
)
def test_refuses_before_a_run_folder_is_made(
    keys: dict[str, Any], said: str, tiny_trainer: Trainer, tiny_settings: dict[str, Any]
) -> None:
    with pytest.raises(BadUseError, match=said):
        tiny_trainer("obb", **keys)
    assert not Path(str(tiny_settings["project"])).exists()


def test_refuses_a_detect_teacher_for_an_obb_student(tiny_trainer: Trainer, checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(BadUseError, match="a model for detect, the student one for obb: use a teacher for obb"):
        tiny_trainer("obb", teacher=str(checkpoint("yolov8s.yaml")))


def test_refuses_data_without_labels(tiny_trainer: Trainer, tmp_path: Path) -> None:
    from tests.conftest import write_tiny_data

    data = write_tiny_data(tmp_path / "bare", "obb")
    for file in (tmp_path / "bare" / "labels").rglob("*.txt"):
        file.unlink()
    with pytest.raises(BadUseError, match="no labels for the 8 training images"):
        tiny_trainer("obb", data=str(data))


def test_refuses_upright_labels_for_an_obb_student(tiny_trainer: Trainer, tiny_data: Callable[[str], Path]) -> None:
    with pytest.raises(BadUseError, match="labels have 5 columns"):
        tiny_trainer("obb", data=str(tiny_data("detect")))


def test_refuses_other_classes_for_the_amplifier(tiny_trainer: Trainer, checkpoint: Callable[..., Path]) -> None:
    teacher = str(checkpoint("yolov8s-obb.yaml", names=("green", "red")))
    with pytest.raises(BadUseError, match="set imhi=0"):
        tiny_trainer("obb", teacher=teacher)
    tiny_trainer("obb", teacher=teacher, imhi=0)
