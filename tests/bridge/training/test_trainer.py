"""What a distilled run does to the student, and what it leaves alone."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import YAML
from ultralytics.utils.patches import torch_load
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo import DS2D2OBBTrainer, DS2D2Trainer, distill
from ds2d2_yolo.bridge.models.adapters import ATTRIBUTE, get_adapters, make_adapters
from ds2d2_yolo.bridge.models.teacher import load_teacher, state_hash
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.config.settings import TERMS
from ds2d2_yolo.errors import BadUseError
from tests.helpers.data import write_tiny_data
from tests.helpers.settings import OFF, TINY
from tests.helpers.terms import ACTIVE
from tests.helpers.trace import Trace, same
from tests.helpers.trainers import PAIRS

Trainer = Callable[..., DS2D2Trainer]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "weights" / "last.pt")[0].state_dict()


class Stopped(Exception):
    """A test has seen what it wants of a run."""


def stop(_: Any) -> None:
    raise Stopped


STUDENTS = {"obb": PAIRS["obb"][1], "detect": PAIRS["detect"][1], "end-to-end": "yolo26n.yaml"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tiny_data: Callable[[str], Path]) -> Callable[[str], Trace]:
    """What the plain Ultralytics run of a student does, trained once."""
    done: dict[str, Trace] = {}

    def get(kind: str) -> Trace:
        if kind not in done:
            model, done[kind] = YOLO(STUDENTS[kind]), Trace()
            done[kind].follow(model)
            project = tmp_path_factory.mktemp(f"plain-{kind}")
            data = tiny_data("obb" if kind == "obb" else "detect")
            model.train(data=str(data), **{**TINY, "epochs": 2}, project=str(project), name="run")
        return done[kind]

    return get


@pytest.mark.parametrize("kind", ["obb", "detect", pytest.param("end-to-end", marks=pytest.mark.slow)])
def test_all_gains_zero_is_the_plain_run_step_by_step(kind: str, plain: Any, tiny_trainer: Trainer) -> None:
    task = "obb" if kind == "obb" else "detect"
    trainer, trace = tiny_trainer(task, model=STUDENTS[kind], epochs=2, **OFF), Trace()
    trace.follow(trainer)
    trainer.train()
    assert len(trace.losses) == 4
    assert trace.losses == plain(kind).losses
    assert same(trace.weights, plain(kind).weights)
    assert [float(trainer.tloss[f"{t}_loss"]) for t in TERMS] == [0] * len(TERMS)


@pytest.mark.parametrize(
    ("task", "term"),
    [
        ("obb", "exlo"), ("obb", "imhi"), ("detect", "imfu"),
        *(pytest.param("obb", term, marks=pytest.mark.slow) for term in ("exhi", "imfu")),
        *(pytest.param("detect", term, marks=pytest.mark.slow) for term in TERMS if term != "imfu"),
    ],
)  # fmt: skip
def test_each_term_alone_changes_the_student(task: str, term: str, plain: Any, tiny_trainer: Trainer) -> None:
    trainer, trace = tiny_trainer(task, epochs=2, **{**OFF, term: 1.0}), Trace()
    trace.follow(trainer)
    trainer.train()
    reference = plain(task).weights
    changed = {k for k, v in reference.items() if not torch.equal(trace.weights[k], v)}
    assert {"model.0.conv.weight", "model.15.cv2.conv.weight"} <= changed, "backbone and neck learn from it"
    assert set(trace.weights) - set(reference) == {f"{ATTRIBUTE}.{i}.weight" for i in range(3)}
    logged = {t: float(trainer.tloss[f"{t}_loss"]) for t in TERMS}
    assert logged.pop(term) > 0
    assert set(logged.values()) == {0.0}


def test_adapters_train_and_are_reproducible(tiny_trainer: Trainer) -> None:
    runs = []
    for name in ("a", "b"):
        trainer = tiny_trainer("obb", name=name, imhi=0)
        trainer.train()
        adapters = get_adapters(unwrap_model(trainer.model))
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
        distiller = trainer.distiller
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
    extra = set(trainer.ema.ema.state_dict()) - set(YOLO(PAIRS["obb"][1]).model.state_dict())
    assert extra == {f"{ATTRIBUTE}.{i}.weight" for i in range(3)}
    biggest = max((p for m in modules().values() for p in m.parameters()), key=torch.numel)
    for file in trainer.wdir.glob("*.pt"):
        assert file.stat().st_size < 4 * sum(p.numel() for p in trainer.ema.ema.parameters())
        tensors = torch_load(file, map_location="cpu")["model"].state_dict().values()
        assert not any(t.shape == biggest.shape for t in tensors)
    # the file itself, and what was loaded from it before folding
    assert load_teacher(trainer.run.settings.teacher, "obb").sha256 == trainer.run.teacher.sha256


@pytest.mark.parametrize(
    "keys",
    [
        {"batch": 2, "nbs": 8, "weight_map": "score"}, {"freeze": 10, "rect": True},
        {"classes": [0], "weight_map": "both", "wavelet": "db2"},
    ],
)  # fmt: skip
def test_goes_with_ultralytics_settings(keys: dict[str, Any], tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb", **keys)
    trainer.train()
    assert all(0 < float(trainer.tloss[f"{t}_loss"]) < float("inf") for t in ACTIVE)


def test_a_process_of_ddp_gets_the_whole_settings(tiny_trainer: Trainer) -> None:
    """Ultralytics rebuilds the trainer in each process from the arguments alone."""
    launcher = tiny_trainer("obb", exlo=0.25, wavelet="db2")
    launcher.state = replace(launcher.state, amplifier_path="kept.safetensors", report_files={"preflight.txt": "text"})
    launcher.state.store(launcher.args)
    child = type(launcher)(overrides=vars(launcher.args), _callbacks=launcher.callbacks)
    assert child.callbacks["on_train_epoch_start"] == launcher.callbacks["on_train_epoch_start"], "each once"
    assert child.run.settings == launcher.run.settings
    assert child.state == launcher.state.without_report()
    assert Path(str(child.run.settings.teacher)).is_absolute()


@pytest.mark.parametrize("way", ["distill", "YOLO"])
def test_the_arguments_of_an_earlier_run_lie_under_those_of_the_command(
    way: str, tiny_trainer: Trainer, tiny_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeating a run from its args.yaml is a habit of Ultralytics' users; the earlier run stays as it is."""
    earlier = tiny_trainer("obb", implicit=False, exlo=2.0, exhi=0.5, disw=0.5, exist_ok=False)
    (earlier.save_dir / "results.csv").write_text("of the earlier run")
    seen: list[DS2D2OBBTrainer] = []
    monkeypatch.setattr(DS2D2OBBTrainer, "train", lambda self: seen.append(self))
    keys = {"cfg": str(earlier.save_dir / "args.yaml"), "data": str(tiny_data("obb")), "exlo": 3.0, "exhi": 0.0}
    with suppress(FileNotFoundError):  # what Ultralytics does with a run that left nothing
        if way == "distill":
            distill(teacher=str(earlier.run.settings.teacher), student=PAIRS["obb"][1], **keys)
        else:
            teacher = str(earlier.run.settings.teacher)
            YOLO(PAIRS["obb"][1]).train(trainer=DS2D2OBBTrainer, teacher=teacher, **keys)
    settings = seen[0].run.settings
    assert (settings.exlo, settings.exhi, settings.implicit, settings.disw) == (3.0, 0.0, False, 0.5)
    assert seen[0].args.imgsz == earlier.args.imgsz
    assert not seen[0]._launched
    assert seen[0].save_dir != earlier.save_dir
    assert (earlier.save_dir / "results.csv").is_file()


@pytest.mark.parametrize(
    "more", [{}, {"exist_ok": True}, {"resume": "runs/run/weights/last.pt"}], ids=["plain", "exist_ok", "resumed"]
)
def test_the_folder_of_an_earlier_run_is_left_alone(
    more: dict[str, Any], tiny_trainer: Trainer, tmp_path: Path
) -> None:
    """Whether that run was ours or Ultralytics' alone, once resumed or written over another one itself."""
    earlier = tmp_path / "runs" / "run"
    (earlier / "weights").mkdir(parents=True)
    (earlier / "results.csv").write_text("of the earlier run")
    earlier_args = {"save_dir": str(earlier), "project": str(tmp_path / "runs"), "name": "run", "resume": False, **more}
    YAML.save(earlier / "args.yaml", {"imgsz": 96, "exist_ok": False, **earlier_args})
    keys = {"exist_ok": False, "cfg": str(earlier / "args.yaml"), **earlier_args}  # as Ultralytics puts them together
    trainer = tiny_trainer("obb", **keys)
    assert trainer.save_dir == tmp_path / "runs" / "run-2"
    assert not trainer.resume
    assert (earlier / "results.csv").is_file()
    settings_file = tmp_path / "settings.yaml"
    settings_file.write_text("exist_ok: true\n")
    assert tiny_trainer("obb", cfg=str(settings_file)).args.exist_ok, "a YAML that someone wrote means what it says"


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "MuSGD"])
def test_adapters_have_a_parameter_group_of_their_own(optimizer: str, tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb", optimizer=optimizer, imhi=0)
    trainer.add_callback("on_train_start", stop)
    with pytest.raises(Stopped):
        trainer.train()
    adapters = get_adapters(unwrap_model(trainer.model))
    assert adapters is not None
    group = trainer.optimizer.param_groups[-1]
    assert {id(p) for p in group["params"]} == {id(p) for p in adapters.parameters()}
    assert group["weight_decay"] == 0
    assert not group.get("use_muon", False)


@pytest.mark.parametrize(
    ("trained", "keys", "start"),
    [
        (True, {}, "random"), (False, {"adapter_init": "ridge"}, "ridge"),
        (False, {"adapter_init": "auto"}, "random"), (True, {"adapter_init": "auto"}, "ridge"),
        (True, {"recipe": "balanced"}, "ridge"), (False, {"recipe": "balanced"}, "random"),
        (True, {"adapter_init": "auto", "pretrained": False}, "random"),
    ],
)  # fmt: skip
def test_start_of_the_adapters(
    trained: bool, keys: dict[str, Any], start: str, tiny_trainer: Trainer, checkpoint: Callable[..., Path]
) -> None:
    student = str(checkpoint(PAIRS["obb"][1])) if trained else PAIRS["obb"][1]
    assert tiny_trainer("obb", model=student, **keys).run.settings.adapter_init == start


def test_finished_files_are_plain(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb", epochs=2, save_period=1)
    trainer.train()
    files = sorted(trainer.wdir.glob("*.pt"))
    assert {f.name for f in files} == {"best.pt", "epoch0.pt", "epoch1.pt", "last.pt"}
    student_keys = set(YOLO(PAIRS["obb"][1]).model.state_dict())
    for file in files:
        finished_checkpoint = torch_load(file, map_location="cpu")
        assert finished_checkpoint["ema"] is None
        assert finished_checkpoint["optimizer"] is None
        assert set(finished_checkpoint["model"].state_dict()) == student_keys
        assert ARGS_KEY not in finished_checkpoint["train_args"]
        assert ARGS_KEY not in dict(finished_checkpoint["model"].args)
        assert not any("ds2d2" in name for name in vars(finished_checkpoint["model"]))


def test_columns_of_the_terms(tiny_trainer: Trainer) -> None:
    trainer = tiny_trainer("obb", val=True)
    trainer.train()
    header, row = (trainer.save_dir / "results.csv").read_text().splitlines()
    columns = dict(zip(header.split(","), map(float, row.split(",")), strict=True))
    names = [c for c in header.split(",") if c.startswith("train/")]
    assert names[-len(TERMS) :] == [f"train/{t}_loss" for t in TERMS]
    assert columns["train/exlo_loss"] > 0
    assert columns["train/exhi_loss"] > 0
    assert [columns[f"val/{t}_loss"] for t in TERMS] == [0] * len(TERMS)


def test_python_entrances_agree(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tiny_settings: dict[str, Any]
) -> None:
    teacher, student = checkpoint(PAIRS["obb"][0]), PAIRS["obb"][1]
    keys = {**tiny_settings, "imhi": 0.5, "data": str(tiny_data("obb"))}
    distill(teacher=teacher, student=student, **{**keys, "name": "a"})
    YOLO(student).train(trainer=DS2D2OBBTrainer, teacher=teacher, **{**keys, "name": "b"})
    project = Path(str(tiny_settings["project"]))
    assert same(weights_of(project / "a"), weights_of(project / "b"))


def test_end_to_end_student_and_teacher(tiny_trainer: Trainer, checkpoint: Callable[..., Path]) -> None:
    trainer = tiny_trainer("detect", model="yolo26n.yaml", teacher=str(checkpoint("yolo26s.yaml")), epochs=2)
    trainer.train()
    losses = {t: float(trainer.tloss[f"{t}_loss"]) for t in ACTIVE}
    assert all(0 < v < float("inf") for v in losses.values())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"teacher": "missing.pt"}, "missing.pt"),
        ({"teacher": "yolov8s-obb.yaml"}, "untrained"),
        ({"teacher": None}, "teacher= is missing"),
        ({"distill_model": "yolo26s.pt"}, "distill_model="),
        ({"time": 0.1}, "add amplifier_epochs="),
        ({"quantize": 16}, "quantize=16 is for export: a student trains in float, or with quantize=8"),
    ],
)
def test_refuses_before_a_run_folder_is_made(
    keys: dict[str, Any], message: str, tiny_trainer: Trainer, tiny_settings: dict[str, Any]
) -> None:
    with pytest.raises(BadUseError, match=message):
        tiny_trainer("obb", **keys)
    assert not Path(str(tiny_settings["project"])).exists()


def test_kfiou_is_refused_for_upright_boxes(tiny_trainer: Trainer) -> None:
    with pytest.raises(BadUseError, match="box_distance=kfiou compares oriented boxes: leave it out for a detect"):
        tiny_trainer("detect", box_distance="kfiou")


def test_a_student_that_is_frozen_altogether_is_refused(tiny_trainer: Trainer, tiny_settings: dict[str, Any]) -> None:
    with pytest.raises(BadUseError, match="freeze=23 leaves nothing of the student to train"):
        tiny_trainer("obb", freeze=23).train()
    assert not list(Path(str(tiny_settings["project"])).glob("*"))


def test_a_run_outlives_a_measurement_that_memory_does_not_suffice_for(
    tiny_trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer("obb", epochs=3, imhi=0)
    grad = torch.autograd.grad  # a training step calls backward() instead

    def fails_later(*args: Any, **keys: Any) -> tuple[torch.Tensor, ...]:
        if trainer.epoch:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return grad(*args, **keys)

    monkeypatch.setattr(torch.autograd, "grad", fails_later)
    trainer.train()
    rows = list(csv.DictReader(trainer.csv.open(encoding="utf-8")))
    assert [row["share/imfu"] == "nan" for row in rows] == [False, True, True]
    assert all(float(row["gain/imfu"]) > 0 for row in rows)


def test_refuses_a_detect_teacher_for_an_obb_student(tiny_trainer: Trainer, checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(BadUseError, match="a model for detect, the student one for obb: use a teacher for obb"):
        tiny_trainer("obb", teacher=str(checkpoint("yolov8s.yaml")))


def test_refuses_the_trainer_of_the_other_task(checkpoint: Callable[..., Path], tiny_data: Any) -> None:
    keys = {"model": "yolov8n-obb.yaml", "task": "obb", "teacher": str(checkpoint("yolov8s-obb.yaml"))}
    with pytest.raises(BadUseError, match="use DS2D2OBBTrainer"):
        DS2D2Trainer(overrides={**keys, "data": str(tiny_data("obb"))})


def test_refuses_data_without_labels(tiny_trainer: Trainer, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "bare", "obb")
    for file in (tmp_path / "bare" / "labels").rglob("*.txt"):
        file.unlink()
    with pytest.raises(BadUseError, match="no labels for the 8 training images"):
        tiny_trainer("obb", data=str(data))


def test_refuses_upright_labels_for_an_obb_student(tiny_trainer: Trainer, tiny_data: Callable[[str], Path]) -> None:
    with pytest.raises(BadUseError, match="labels have 5 columns"):
        tiny_trainer("obb", data=str(tiny_data("detect")))


@pytest.mark.parametrize(
    ("names", "weight_map", "warning", "active", "columns"),
    [
        (("green", "red"), "disw", "in another order", ACTIVE, None),
        (("Red", "blue"), "disw", "1 of the data's 2 classes is shared: red", ACTIVE, [0]),
        pytest.param(
            ("Red", "blue"), "score", "1 of the data's 2 classes is shared: red", ACTIVE, [0], marks=pytest.mark.slow
        ),
        (("ship", "plane"), "score", "the explicit stream alone is distilled", ("exlo", "exhi"), None),
    ],
)
def test_classes_are_matched_by_name(
    names: tuple[str, str], weight_map: str, warning: str, active: tuple[str, ...], columns: list[int] | None,
    tiny_trainer: Trainer, checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    teacher = str(checkpoint("yolov8s-obb.yaml", names=names))
    with caplog.at_level("WARNING"):
        trainer = tiny_trainer("obb", teacher=teacher, weight_map=weight_map)
        trainer.train()
    assert warning in caplog.text
    assert trainer.run.settings.active == active
    distiller = trainer.distiller
    assert distiller is not None
    assert distiller.teacher_columns == columns or not trainer.run.class_map.pairs
    logged = {t: float(trainer.tloss[f"{t}_loss"]) for t in TERMS}
    assert all((logged[t] > 0) == (t in active) for t in TERMS)


def test_refuses_a_teacher_that_leaves_nothing_to_distil(
    tiny_trainer: Trainer, checkpoint: Callable[..., Path], tiny_settings: dict[str, Any]
) -> None:
    teacher = str(checkpoint("yolov8s-obb.yaml", names=("ship", "plane")))
    with pytest.raises(BadUseError, match="nothing is left to distil"):
        tiny_trainer("obb", teacher=teacher, explicit=False)
    assert not list(Path(str(tiny_settings["project"])).glob("*"))


@pytest.mark.parametrize("keys", [{"levels": [8, 12]}, {"classes": [5], "explicit": False}])
def test_what_is_wrong_leaves_no_folder(
    keys: dict[str, Any], tiny_trainer: Trainer, tiny_settings: dict[str, Any]
) -> None:
    with pytest.raises(BadUseError):
        tiny_trainer("obb", **keys).train()
    assert not list(Path(str(tiny_settings["project"])).glob("*"))


def test_an_amplifier_of_other_classes_is_refused(tiny_trainer: Trainer, tmp_path: Path) -> None:
    first = tiny_trainer("obb", classes=[0], amplifier_epochs=1)
    first.train()
    assert first.distiller is not None
    assert first.distiller.teacher_columns == [0]
    amplifier_copy = tmp_path / "copy.safetensors"
    amplifier_copy.write_bytes((first.save_dir / "amplifier.safetensors").read_bytes())
    with pytest.raises(BadUseError, match="it has learnt the classes red, this run distils red, green"):
        tiny_trainer("obb", amplifier=str(amplifier_copy), name="second")


def test_teacher_in_bfloat16(tiny_trainer: Trainer) -> None:
    losses = []
    for bf16 in (False, True):
        trainer = tiny_trainer("obb", teacher_bf16=bf16, gains=1, epochs=1, imhi=0, name=f"bf16-{bf16}")
        trainer.train()
        with (Path(trainer.save_dir) / "results.csv").open(encoding="utf-8") as f:
            row = next(csv.DictReader(f))
        losses.append({term: float(row[f"train/{term}_loss"]) for term in ("exlo", "exhi", "imfu")})
    float32_losses, bfloat16_losses = losses
    for term, loss in float32_losses.items():
        # the smallest loss has two digits in the file
        assert bfloat16_losses[term] == pytest.approx(loss, rel=0.3), term
        assert bfloat16_losses[term] != loss, term
