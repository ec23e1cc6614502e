"""The demonstration: what it leaves, how it goes on after a stop, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.utils import DEFAULT_CFG_KEYS, torch_utils
from ultralytics.utils.patches import torch_load

from ds2d2_yolo.bridge.inference import export as exporter
from ds2d2_yolo.bridge.models.adapters import get_adapters
from ds2d2_yolo.bridge.training import plain_run
from ds2d2_yolo.bridge.training.trainer import DS2D2OBBTrainer
from ds2d2_yolo.bridge.upstream import devices
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.cli import main
from ds2d2_yolo.config.resources import resolve_data, resolve_model
from ds2d2_yolo.demo import exported, picture, run, training
from ds2d2_yolo.demo.plan import PLANS, SMALL, DemoPlan, DemoSettings, fingerprint
from ds2d2_yolo.demo.run import Demo
from ds2d2_yolo.demo.scores import ModelScores, scores_table
from ds2d2_yolo.demo.state import STATE_FILE, DemoState
from ds2d2_yolo.deploy.parity import TOLERANCES
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.progress import Task
from tests.helpers.data import write_bands

pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("onnxruntime")

EPOCHS = 2
LABELS = {"teacher": "teacher", "plain": "plain student", "distilled": "distilled student"}


@pytest.fixture(scope="module")
def plan(
    tiny_data: Callable[[str], Path], detecting: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> DemoPlan:
    """The small size, made tiny: a teacher of another architecture, so that nothing can be mixed up unseen.

    The student starts from a checkpoint that detects something, which no training of one step reaches.
    """
    student = detecting("yolov8n-obb.yaml", tmp_path_factory.mktemp("student"))
    return replace(
        SMALL,
        data=str(tiny_data("obb")),
        teacher="yolo11n-obb.yaml",
        student=str(student.rename(student.with_name("student.pt"))),
        teacher_epochs=1,
        student_epochs=1,
        amplifier_epochs=1,
        imgsz=96,
        batch=4,
        images=4,
        workers=0,
        shipped=False,
        recipe=None,
    )


def a_task() -> Task:
    """A task that nobody watches."""
    return Task("step", None, io.StringIO())


def settings_in(folder: Path, **keys: Any) -> DemoSettings:
    """The settings of a demonstration in a test's folder."""
    return DemoSettings.of({"project": str(folder), "device": "cpu", **keys}, "demo")


@pytest.fixture(scope="module")
def finished(plan: DemoPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project folder of a demonstration that has run."""
    project = tmp_path_factory.mktemp("demo")
    with redirect_stdout(io.StringIO()) as screen:
        Demo(plan, settings_in(project)).run()
    (project / "screen.txt").write_text(screen.getvalue(), encoding="utf-8")
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished demonstration that a test may spoil."""
    shutil.copytree(finished, tmp_path / "demo")
    return tmp_path / "demo"


# The whole story -------------------------------------------------------------------------------------------------


def test_leaves_what_it_names(finished: Path) -> None:
    folder = finished / "small"
    for name in (
        "demo.md",
        "demo.json",
        "demo.jpg",
        run.LOG_FILE,
        STATE_FILE,
        "distilled/weights/best.onnx",
        "distilled/amplifier.safetensors",
        "explain/index.html",
    ):
        assert (folder / name).is_file(), name
    for which in LABELS:
        assert (folder / which / "weights" / "best.pt").is_file()


def test_table_has_each_model_with_its_own_size(finished: Path) -> None:
    folder = finished / "small"
    text = (folder / "demo.md").read_text(encoding="utf-8")
    models = json.loads((folder / "demo.json").read_text(encoding="utf-8"))["models"]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 5
    for which, label in LABELS.items():
        best = folder / which / "weights" / "best.pt"
        parameters = sum(p.numel() for p in YOLO(str(best)).model.parameters())
        assert models[which]["parameters"] == parameters
        row = next(r for r in rows if r.startswith(f"| {label} "))
        assert f"{parameters / 1e6:.2f} M" in row
        assert f"{best.stat().st_size / 1e6:.1f} MB" in row
    assert models["plain"]["parameters"] == models["distilled"]["parameters"] != models["teacher"]["parameters"]
    assert SMALL.verdict in text


def test_both_students_have_the_same_schedule(finished: Path) -> None:
    plain, distilled = (
        yaml.safe_load((finished / "small" / which / "args.yaml").read_text(encoding="utf-8"))
        for which in ("plain", "distilled")
    )
    assert plain["fraction"] == 0.5
    differing = {k for k in {*plain, *distilled} if plain.get(k) != distilled.get(k)}
    assert differing <= {"name", "save_dir", ARGS_KEY}


def test_onnx_was_compared(finished: Path) -> None:
    onnx = json.loads((finished / "small" / "demo.json").read_text(encoding="utf-8"))["onnx"]
    assert (onnx["images"], onnx["confidence"]) == (8, SMALL.confidence)
    assert onnx["matched"] > 8
    tolerance = TOLERANCES["FP32"]
    assert 0 < onnx["differences"]["1 - IoU"] <= tolerance.iou
    assert 0 < onnx["differences"]["score"] <= tolerance.score
    assert 0 <= onnx["differences"]["angle"] <= tolerance.angle
    file = finished / "small" / "distilled" / "weights" / "best.onnx"
    assert onnx["file_mb"] == pytest.approx(file.stat().st_size / 1e6)
    text = (finished / "small" / "demo.md").read_text(encoding="utf-8")
    assert f"against PyTorch: {onnx['matched']} detections of confidence 0.1 and more on 8 images matched" in text


def test_measured_is_what_ultralytics_measures(finished: Path, plan: DemoPlan, tmp_path: Path) -> None:
    folder = finished / "small"
    models = json.loads((folder / "demo.json").read_text(encoding="utf-8"))["models"]
    keys = {"data": plan.data, "imgsz": plan.imgsz, "batch": plan.batch, "conf": plan.common["conf"], "device": "cpu"}
    metrics = YOLO(str(folder / "plain" / "weights" / "best.pt")).val(
        **keys, split="val", plots=False, verbose=False, workers=0, save_dir=str(tmp_path), exist_ok=True
    )
    assert models["plain"]["map50"] == pytest.approx(float(metrics.box.map50), abs=1e-6)
    assert models["plain"]["map50_95"] == pytest.approx(float(metrics.box.map), abs=1e-6)


def test_picture_has_a_row_an_image_and_a_column_a_source(finished: Path) -> None:
    image = cv2.imread(str(finished / "small" / "demo.jpg"))
    step = picture.SIDE + picture.GAP
    assert image.shape[1] == 4 * step
    assert image.shape[0] == picture.BAND + picture.GAP + run.PICTURE_IMAGES * step + picture.BAND


def test_the_screen_shows_the_steps_and_the_log_the_rest(finished: Path) -> None:
    screen = (finished / "screen.txt").read_text(encoding="utf-8")
    log = (finished / "small" / run.LOG_FILE).read_text(encoding="utf-8")
    steps = [line.split()[0] for line in screen.splitlines() if line.startswith("[")]
    assert list(dict.fromkeys(steps)) == [f"[{n}/8]" for n in range(1, 9)]
    for word in ("Ultralytics 8", "engine/trainer", "ultralytics.nn.modules"):
        assert word in log
        assert word not in screen
    for word in ("| plain student ", run.LOG_FILE, SMALL.verdict):
        assert word in screen


def test_a_failed_step_names_the_log(
    project: Path, plan: DemoPlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "small" / "demo.jpg").unlink()

    def failing(*args: Any, **keys: Any) -> None:
        print("before the failure")
        raise ZeroDivisionError("in the picture")

    monkeypatch.setattr(run, "detect", failing)
    with pytest.raises(ZeroDivisionError):
        Demo(plan, settings_in(project)).run()
    log = project / "small" / run.LOG_FILE
    screen = capsys.readouterr().out
    assert str(log) in screen.splitlines()[-1]
    assert "before the failure" not in screen
    assert "before the failure" in log.read_text(encoding="utf-8")


# Going on --------------------------------------------------------------------------------------------------------


def refuse(*args: Any, **keys: Any) -> None:
    """Stand in for work that must not be done again."""
    raise AssertionError("was called again")


def test_finished_steps_are_not_done_again(
    project: Path, plan: DemoPlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((project / "small" / "demo.json").read_text(encoding="utf-8"))
    for name in ("train_plain", "resume_plain"):
        monkeypatch.setattr(plain_run, name, refuse)
    for name in ("measure", "export_student", "detect"):
        monkeypatch.setattr(run, name, refuse)
    monkeypatch.setattr(training, "distill", refuse)
    assert Demo(plan, settings_in(project)).run() == before
    screen = capsys.readouterr().out
    assert screen.count("trained already") == 3
    assert "Done in" in screen


@pytest.mark.slow
def test_a_missing_checkpoint_is_trained_again_and_what_hangs_on_it(
    project: Path, plan: DemoPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / "small"
    (folder / "distilled" / "weights" / "best.pt").unlink()
    monkeypatch.setattr(plain_run, "train_plain", refuse)
    began: list[str] = []
    start = DemoState.start
    monkeypatch.setattr(DemoState, "start", lambda self, step: (began.append(step), start(self, step))[1])
    Demo(plan, settings_in(project)).run()
    assert began == ["distilled", "validation", "onnx", "picture"]


class Stop(BaseException):
    """Stands for a kill."""


def stop_after_first_save(kind: type[BaseTrainer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a trainer be cut off once its first epoch is saved."""
    save = kind.save_model

    def saving(self: BaseTrainer) -> bool:
        save(self)
        raise Stop

    monkeypatch.setattr(kind, "save_model", saving)


def stop_before_final(kind: type[BaseTrainer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a trainer be cut off between its last epoch and the end of the run."""

    def stopped(self: BaseTrainer) -> None:
        raise Stop

    monkeypatch.setattr(kind, "final_eval", stopped)


def trainings(plan: DemoPlan, project: Path) -> training.Trainings:
    """The trainings of a demonstration whose data are at hand."""
    demo = Demo(plan, settings_in(project))
    demo.prepare(a_task())
    return demo.trainings


@pytest.mark.parametrize(
    ("which", "cut"),
    [
        ("teacher", stop_before_final),
        ("distilled", stop_after_first_save),
        pytest.param("teacher", stop_after_first_save, marks=pytest.mark.slow),
        pytest.param("distilled", stop_before_final, marks=pytest.mark.slow),
    ],
)
def test_a_training_that_was_cut_off_goes_on(
    which: str,
    cut: Callable[[Any, pytest.MonkeyPatch], None],
    plan: DemoPlan,
    checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longer = replace(plan, student="yolov8n-obb.yaml", teacher_epochs=EPOCHS, student_epochs=EPOCHS)
    first = trainings(longer, tmp_path)
    if which == "distilled":
        teacher = first.weights("teacher")
        teacher.parent.mkdir(parents=True)
        shutil.copyfile(checkpoint("yolov8n-obb.yaml"), teacher)
        first.state.finish("teacher")
    with monkeypatch.context() as patch:
        cut(DS2D2OBBTrainer if which == "distilled" else OBBTrainer, patch)
        with pytest.raises(Stop):
            getattr(first, which)(a_task())
    again = trainings(longer, tmp_path)
    assert again.state.started(which)
    monkeypatch.setattr(plain_run, "train_plain", refuse)
    getattr(again, which)(a_task())
    best = again.weights(which)
    assert again.state.done(which, [best])
    for name in ("best.pt", "last.pt"):
        saved = torch_load(best.with_name(name), map_location="cpu")
        assert (saved["epoch"], saved["optimizer"]) == (-1, None)
        assert get_adapters(saved["model"]) is None
    assert len((tmp_path / "small" / which / "results.csv").read_text(encoding="utf-8").splitlines()) == 1 + EPOCHS


def test_half_a_checkpoint_starts_the_training_again(plan: DemoPlan, tmp_path: Path) -> None:
    demo_trainings = trainings(plan, tmp_path)
    demo_trainings.state.start("teacher")
    last = demo_trainings.weights("teacher").with_name("last.pt")
    last.parent.mkdir(parents=True)
    last.write_bytes(b"PK half a file")
    screen = io.StringIO()
    demo_trainings.teacher(Task("teacher", None, screen))
    assert "starts again" in screen.getvalue()
    assert plain_run.trained_epochs(last) == -1


def test_another_seed_does_not_take_old_results(project: Path, plan: DemoPlan) -> None:
    with pytest.raises(BadUseError, match=r"seed was 0, is 1.*name=") as caught:
        Demo(plan, settings_in(project, seed=1)).run()
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_data_do_not_take_old_results(split: str, project: Path, plan: DemoPlan, tmp_path: Path) -> None:
    shutil.copytree(Path(plan.data).parent, tmp_path / "data")
    text = (tmp_path / "data" / "data.yaml").read_text(encoding="utf-8")
    moved = text.replace(str(Path(plan.data).parent.as_posix()), (tmp_path / "data").as_posix())
    (tmp_path / "data" / "data.yaml").write_text(moved, encoding="utf-8")
    same = settings_in(project, data=str(tmp_path / "data" / "data.yaml"))
    Demo(plan, same).prepare(a_task())  # a copy elsewhere is the same data
    label = next((tmp_path / "data" / "labels" / split).glob("*.txt"))
    label.write_text(label.read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    with pytest.raises(BadUseError, match="data was"):
        Demo(plan, same).prepare(a_task())


def test_a_folder_of_something_else_is_left_alone(plan: DemoPlan, tmp_path: Path) -> None:
    weights = tmp_path / "small" / "teacher" / "weights" / "last.pt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"precious")
    with pytest.raises(BadUseError, match="holds no demo"):
        Demo(plan, settings_in(tmp_path)).run()
    assert weights.read_bytes() == b"precious"


def test_state_forgets_what_was_made_of_a_step(tmp_path: Path) -> None:
    state = DemoState(tmp_path / "run", {"seed": 0})
    for step in ("teacher", "distilled", "plain", "validation", "onnx", "picture"):
        state.start(step)
        state.finish(step)
    state.start("teacher")
    again = DemoState(tmp_path / "run", {"seed": 0})
    assert again.started("teacher")
    assert [s for s in ("distilled", "plain", "validation", "onnx", "picture") if again.done(s)] == ["plain"]


def test_fingerprint_holds_all_that_results_depend_on(plan: DemoPlan) -> None:
    settings = DemoSettings()
    base = fingerprint(plan, settings, "a")
    assert fingerprint(plan, replace(settings, device="cpu", name="x"), "a") == base
    assert fingerprint(replace(plan, workers=7, duration=""), settings, "a") == base
    for other in (
        fingerprint(plan, replace(settings, seed=1), "a"),
        fingerprint(plan, replace(settings, batch=2), "a"),
        fingerprint(plan, settings, "b"),
        fingerprint(replace(plan, student_epochs=9), settings, "a"),
        fingerprint(replace(plan, common={"lr0": 1.0}), settings, "a"),
    ):
        assert other != base


# ONNX ------------------------------------------------------------------------------------------------------------


def test_a_corrupted_onnx_file_fails_the_demo(project: Path, plan: DemoPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx
    from onnx import numpy_helper

    write_export = exporter.write_export

    def spoiling(*args: Any, **keys: Any) -> Path:
        file = write_export(*args, **keys)
        model = onnx.load(file)
        for weight in (t for t in model.graph.initializer if len(t.dims) == 4):
            values = numpy_helper.to_array(weight) * np.float32(1.05)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        onnx.save(model, file)
        return file

    (project / "small" / "distilled" / "weights" / "best.onnx").unlink()
    monkeypatch.setattr(exporter, "write_export", spoiling)
    with pytest.raises(DS2D2Error, match="fails its check against PyTorch") as caught:
        Demo(plan, settings_in(project)).run()
    assert caught.value.status == 1
    steps = json.loads((project / "small" / STATE_FILE).read_text(encoding="utf-8"))["steps"]
    assert steps["onnx"] == "started"


def test_an_onnx_file_that_cannot_be_loaded_fails_the_demo(
    project: Path, plan: DemoPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_export = exporter.write_export

    def truncating(*args: Any, **keys: Any) -> Path:
        file = write_export(*args, **keys)
        file.write_bytes(file.read_bytes()[:1000])
        return file

    (project / "small" / "distilled" / "weights" / "best.onnx").unlink()
    monkeypatch.setattr(exporter, "write_export", truncating)
    with pytest.raises(DS2D2Error, match="could not be compared with PyTorch: onnx does not run"):
        Demo(plan, settings_in(project)).run()


def test_a_student_that_detects_nothing_is_exported_without_a_comparison(
    project: Path, plan: DemoPlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "small" / "distilled" / "weights" / "best.onnx").unlink()
    nothing = picture.Boxes(np.zeros((0, 4, 2), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    monkeypatch.setattr(exported, "detect", lambda weights, images, *_: [nothing] * len(images))
    report = Demo(plan, settings_in(project)).run()
    assert (report["onnx"]["images"], report["onnx"]["confidence"]) == (0, None)
    assert "detects nothing yet, its ONNX file is not compared with PyTorch" in capsys.readouterr().out
    assert "the student detects nothing yet" in (project / "small" / "demo.md").read_text(encoding="utf-8")


def test_low_scores_are_compared_too(project: Path, plan: DemoPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "small" / "distilled" / "weights" / "best.onnx").unlink()
    low = picture.Boxes(np.zeros((1, 4, 2), np.float32), np.zeros(1, np.int64), np.full(1, 0.02, np.float32))
    monkeypatch.setattr(exported, "detect", lambda weights, images, *_: [low] * len(images))
    onnx = Demo(plan, settings_in(project)).run()["onnx"]
    assert (onnx["images"], onnx["confidence"]) == (8, exported.MIN_CONFIDENCE)


def test_an_export_of_an_older_version_is_compared_again(project: Path, plan: DemoPlan) -> None:
    file = project / "small" / STATE_FILE
    state = json.loads(file.read_text(encoding="utf-8"))
    before = state["steps"]["onnx"]
    state["steps"]["onnx"] = {"boxes": 1e-4, "scores": 1e-6, "angles": 1e-6, "images": 8, "file_mb": 1.0}
    file.write_text(json.dumps(state), encoding="utf-8")
    after = Demo(plan, settings_in(project)).run()["onnx"]
    assert after["differences"] == pytest.approx(before["differences"])
    assert (after["images"], after["matched"], after["confidence"]) == (8, before["matched"], before["confidence"])


# Pieces ----------------------------------------------------------------------------------------------------------


def test_cpu_threads_compute_where_ultralytics_would_leave_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_utils, "NUM_THREADS", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        with devices.cpu_threads():
            devices.check_device("cpu")
            assert torch.get_num_threads() == 2
        assert (torch.get_num_threads(), torch_utils.NUM_THREADS) == (before, 1)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        with devices.cpu_threads():
            devices.check_device("cpu")
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_ground_truth_is_in_the_pixels_of_the_image(tiny_data: Callable[[str], Path]) -> None:
    image = tiny_data("obb").parent / "images" / "val" / "0.png"
    boxes = picture.ground_truth([image])[0]
    assert boxes.corners.shape == (4, 4, 2)
    pixels = cv2.imread(str(image)).astype(int)
    x, y = boxes.corners[-1].mean(0).round().astype(int)  # the last rectangle is drawn over the others
    assert pixels[y, x].tolist() == ([80, 240, 80] if boxes.classes[-1] else [80, 80, 240])


def test_an_image_without_labels_has_no_boxes(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    boxes = picture.ground_truth([tmp_path / "images" / "a.png"])[0]
    assert (boxes.corners.shape, boxes.classes.shape, boxes.scores.shape) == ((0, 4, 2), (0,), (0,))


def boxes_of(corners: np.ndarray, classes: list[int]) -> picture.Boxes:
    """Boxes of score 1."""
    return picture.Boxes(corners, np.array(classes, dtype=np.int64), np.ones(len(classes), np.float32))


def test_boxes_are_drawn_where_they_are(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((320, 320, 3), np.uint8))
    square = np.array([[[100, 100], [200, 100], [200, 200], [100, 200]]], dtype=np.float32)
    boxes = boxes_of(square, [1])
    picture.draw([tmp_path / "a.png"], {"one": [boxes]}, {0: "red", 1: "cyan"}, tmp_path / "out.jpg")
    image = cv2.imread(str(tmp_path / "out.jpg")).astype(int)
    top = picture.BAND + picture.GAP
    assert image[top + 300, 200].min() < 60 < image[top + 300, 200, :2].min() + 60  # on the left side: cyan, no red
    assert image[top + 300, 200, 0] > 150
    assert image[top + 300, 300].max() < 40


def test_table_gives_the_share_of_the_teacher() -> None:
    models = dict.fromkeys(LABELS, "yolov8n-obb.yaml")
    measured = {
        "teacher": ModelScores(3_000_000, 8.3, 6.4, 0.6, 0.4),
        "plain": ModelScores(3_000_000, 8.3, 6.4, 0.5, 0.2),
        "distilled": ModelScores(3_000_000, 8.3, 6.4, 0.5, 0.3),
    }
    rows = scores_table(measured, models).splitlines()
    assert [r.split("|")[-2].strip() for r in rows[2:]] == ["100%", "50%", "75%"]
    assert len({len(r) for r in rows}) == 1
    nothing = replace(measured["teacher"], map50_95=0.0)
    assert scores_table({**measured, "teacher": nothing}, models).splitlines()[2].split("|")[-2].strip() == "-"


@pytest.mark.parametrize("size", PLANS)
def test_public_sizes_name_what_exists(size: str) -> None:
    public = PLANS[size]
    assert Path(resolve_data(public.data)).is_file()
    assert set(public.common) <= set(DEFAULT_CFG_KEYS)
    assert public.imgsz % 32 == 0
    sizes = [
        sum(p.numel() for p in YOLO(resolve_model(m)).model.parameters()) for m in (public.teacher, public.student)
    ]
    assert sizes[0] > sizes[1]
    for model in (public.teacher, public.student):
        assert YOLO(resolve_model(model)).task == "obb"


# What it refuses -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path) -> Iterator[None]:
    """Run each test in a folder of its own."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield
    os.chdir(before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["size=medium"], "size='medium' must be one of small, full"),
        (["sise=small"], "'sise' (did you mean 'size'?)"),
        (["seed=-1"], "seed=-1 must be"),
        (["batch=0", "seed=x"], "seed='x' must be a whole number of at least 0; batch=0 must be"),
        (["device=0,1"], "must be one device"),
        (["device=99"], "is no device of this machine"),
        (["data=nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_use_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *arguments]) == 2
    line = capsys.readouterr().err.strip()
    assert message in line
    assert len(line.splitlines()) == 1
    assert not Path("runs").exists()


def test_upright_labels_are_refused(tiny_data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", f"data={tiny_data('detect')}", "device=cpu"]) == 2
    assert "use obb labels" in capsys.readouterr().err


def test_data_of_other_than_three_channels_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_bands(tmp_path / "bands", 4)
    assert main(["demo", f"data={data}", "device=cpu", f"project={tmp_path / 'demo'}"]) == 2
    assert "has 4 channels: the demo takes 3, train takes any" in capsys.readouterr().err


def test_missing_export_packages_are_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert main(["demo"]) == 2
    assert "needs onnxruntime for its export: pip install 'ds2d2-yolo[export]'" in capsys.readouterr().err
    assert not Path("runs").exists()
