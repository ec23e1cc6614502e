"""`explain`: its arrays are those of the core's functions and of the distiller, and bad input is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ultralytics.nn.tasks import OBBModel, load_checkpoint

import ds2d2_yolo
from ds2d2_yolo.bridge.distillation.batch import StudentInputs
from ds2d2_yolo.bridge.distillation.build import build_distiller
from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.inference import explain as explaining
from ds2d2_yolo.bridge.inference.explain import explain_pair
from ds2d2_yolo.bridge.inference.explained_pair import ExplainedPair, load_pair
from ds2d2_yolo.bridge.inference.image_maps import FeaturePair
from ds2d2_yolo.bridge.models.amplifier import one_to_many
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard, save_amplifier
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.models.loading import load_student
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.cli import main
from ds2d2_yolo.config.settings import TERMS, Settings
from ds2d2_yolo.core import disw_map, dwt2
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.explanation.facts import Explanation
from ds2d2_yolo.explanation.options import ExplainOptions
from tests.helpers.data import write_bands, write_tiny_data

CPU = torch.device("cpu")
MODELS = {"obb": ("yolov8s-obb.yaml", "yolov8n-obb.yaml"), "detect": ("yolo11s.yaml", "yolov8n.yaml")}
Files = dict[str, str]
GetFiles = Callable[[str], Files]


def write_amplifier(teacher: Path, file: Path, sha256: str | None = None) -> None:
    """Write the teacher's own head as its amplifier."""
    loaded = load_teacher(str(teacher))
    card = AmplifierCard(sha256 or loaded.sha256, "", "haar", loaded.names, loaded.names, (0, 1, 2), 96, 1.0, 1)
    save_amplifier(file, one_to_many(dense_head(loaded.model, "teacher")).state_dict(), card)


@pytest.fixture(scope="module")
def files(
    detecting: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> GetFiles:
    """Teacher, student in a run's folder with an amplifier, and data of a task."""
    folder = tmp_path_factory.mktemp("explained")

    def get(task: str) -> Files:
        teacher, student = MODELS[task]
        run = folder / task
        made = {
            "teacher": str(detecting(teacher, folder / f"{task}-teacher")),
            "student": str(detecting(student, run / "weights")),
            "data": str(tiny_data(task)),
        }
        if not (run / "amplifier.safetensors").exists():
            write_amplifier(Path(made["teacher"]), run / "amplifier.safetensors")
        return made

    return get


@pytest.fixture(scope="module")
def explained(files: GetFiles) -> Callable[[str], tuple[Explanation, ExplainedPair]]:
    """The arrays of both tasks with the pair that they are of."""
    made: dict[str, tuple[Explanation, ExplainedPair]] = {}
    pairs: list[ExplainedPair] = []

    def get(task: str) -> tuple[Explanation, ExplainedPair]:
        if task not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(explaining, "load_pair", lambda *a: (pairs.append(load_pair(*a)), pairs[-1])[1])
                options = ExplainOptions(**files(task), images=2, fit_images=3)
                made[task] = explain_pair(options, {"imgsz": 96, "conf": 0.1}, CPU)[0], pairs[-1]
        return made[task]

    return get


@pytest.mark.parametrize("task", MODELS)
def test_values_are_the_terms_of_a_distiller(task: str, explained: Any, files: GetFiles) -> None:
    explanation, pair = explained(task)
    student, _ = load_checkpoint(files(task)["student"])
    head = dense_head(student, "student")
    teacher = load_teacher(files(task)["teacher"])
    distiller = build_distiller(
        head, teacher, Settings(gains=1.0, imhi=1.0), adapters=pair.distiller.adapters,
        amplifier_state=one_to_many(dense_head(load_teacher(files(task)["teacher"]).model, "t")).state_dict(),
    )  # fmt: skip
    student.train()
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    for image in explanation.images:
        inputs = torch.from_numpy(image.pixels.copy()).permute(2, 0, 1)[None].float() / 255
        boxes = torch.from_numpy(image.truth.corners)
        rows = [cv2.minAreaRect(b.numpy().astype(np.float32)) for b in boxes]
        targets = (
            torch.tensor([[*centre, *size, np.radians(angle)] for centre, size, angle in rows])
            if task == "obb"
            else torch.cat((boxes.amin(1), boxes.amax(1)), 1)
        )[None].float()
        with torch.no_grad():
            raw = student(inputs)
            student_inputs = StudentInputs(
                raw["feats"], Targets(targets, torch.ones(targets.shape[:2], dtype=torch.bool))
            )
            terms = distiller(student_inputs, distiller.teacher_outputs(inputs))
        assert set(image.values) == set(TERMS)
        for term in TERMS:
            assert sum(image.values[term]) == pytest.approx(float(terms[term]), rel=2e-3), term


@pytest.mark.parametrize("task", MODELS)
def test_maps_are_those_of_the_core(task: str, explained: Any) -> None:
    explanation, pair = explained(task)
    image = explanation.images[0]
    inputs = torch.from_numpy(image.pixels.copy()).permute(2, 0, 1)[None].float() / 255
    student, teacher = pair.features(inputs)
    for i, (level, s, t) in enumerate(zip(image.levels, student, teacher, strict=True)):
        adapted = F.conv2d(s, list(pair.distiller.adapters.parameters())[i].detach())
        low, high = dwt2(t)
        np.testing.assert_allclose(level.low.teacher, low.square().mean(1)[0], rtol=1e-4)
        np.testing.assert_allclose(level.high.teacher, high.square().mean((1, 2))[0], rtol=1e-4)
        np.testing.assert_allclose(level.high.student, dwt2(adapted)[1].square().mean((1, 2))[0], rtol=1e-3, atol=1e-6)
        error = dwt2(adapted - t)[0].square().mean(1)[0].numpy() * level.weight
        np.testing.assert_allclose(level.low.weighted_error, error, rtol=1e-3, atol=1e-6)
        assert level.weight.sum() == pytest.approx(level.weight.size + len(image.truth.labels), rel=1e-5)
        if task == "detect":
            corners = torch.from_numpy(image.truth.corners)
            xyxy = torch.cat((corners.amin(1), corners.amax(1)), 1).float()
            cell = (2.0 * level.stride, 2.0 * level.stride)
            expected_weight = disw_map(xyxy, torch.zeros(len(xyxy)), 1, level.weight.shape, cell)
            np.testing.assert_allclose(level.weight, expected_weight[0, 0].numpy(), rtol=1e-5)


@pytest.mark.parametrize("task", MODELS)
def test_amplifier_maps_show_the_level_with_most_of_the_term(task: str, explained: Any) -> None:
    explanation, _ = explained(task)
    for image in explanation.images:
        strides = [level.stride for level in image.levels]
        for term, maps in image.amplifiers.items():
            assert maps.stride == strides[int(np.argmax(image.values[term]))]
            assert maps.features.shape == maps.scores.shape == maps.objects.shape == (96 // maps.stride,) * 2
            assert 0 < maps.scores.max() <= 1
            assert 0 < maps.objects.sum() < maps.objects.size
            centre = image.truth.corners[0].mean(0)
            if maps.stride == 8 and np.ptp(image.truth.corners[0], axis=0).min() > 16:
                assert maps.objects[int(centre[1] // 8), int(centre[0] // 8)]


@pytest.mark.parametrize("task", MODELS)
def test_boxes_are_those_of_labels_and_prediction(task: str, explained: Any, files: GetFiles) -> None:
    explanation, _ = explained(task)
    model = load_student(files(task)["student"])
    for image in explanation.images:
        result = model.predict(image.pixels[..., ::-1].copy(), imgsz=96, conf=0.1, device="cpu", verbose=False)[0]
        predicted_boxes = result.obb.xyxyxyxy if task == "obb" else result.boxes.xyxy
        assert len(predicted_boxes) == len(image.student.labels) > 0
        centres = predicted_boxes.mean(1) if task == "obb" else (predicted_boxes[:, :2] + predicted_boxes[:, 2:]) / 2
        corners = image.student.corners if task == "obb" else image.student.corners.clip(0, 96)  # as predict does
        np.testing.assert_allclose(corners.mean(1), centres, atol=0.5)
        label = Path(files(task)["data"]).parent / "labels" / "val" / f"{Path(image.file).stem}.txt"
        kinds = [("red", "green")[int(line.split()[0])] for line in label.read_text().splitlines()]
        assert list(image.truth.labels) == kinds


def test_the_teacher_as_its_own_student_needs_no_adapter(files: GetFiles) -> None:
    paths = {**files("obb"), "student": files("obb")["teacher"]}
    options = ExplainOptions(**paths, images=1, fit_images=8, levels=[8])  # coarser levels have too few cells here
    explanation, task = explain_pair(options, {"imgsz": 96}, CPU)
    assert task == "obb"
    assert explanation.r2[0] > 0.99
    assert explanation.no_amplifier == "no high-frequency amplifier given"
    assert set(explanation.images[0].amplifiers) == {"imfu"}


def test_an_amplifier_of_another_teacher_is_left_out_unless_it_is_named(files: GetFiles, tmp_path: Path) -> None:
    paths = files("obb")
    student = tmp_path / "weights" / "best.pt"
    student.parent.mkdir()
    student.write_bytes(Path(paths["student"]).read_bytes())
    write_amplifier(Path(paths["teacher"]), tmp_path / "amplifier.safetensors", "0" * 64)
    options = {**paths, "student": str(student)}
    pair = load_pair(ExplainOptions(**options), 3, CPU, 96)
    assert pair.distiller.amplifier is None
    assert "does not fit this teacher" in pair.no_amplifier
    with pytest.raises(BadUseError, match="another teacher"):
        load_pair(ExplainOptions(**options, amplifier=str(tmp_path / "amplifier.safetensors")), 3, CPU, 96)


def test_only_shared_classes_are_compared(checkpoint: Callable[..., Path], files: GetFiles) -> None:
    paths = {**files("obb"), "student": str(checkpoint("yolov8n-obb.yaml", names=("blue", "red")))}
    pair = load_pair(ExplainOptions(**paths), 3, CPU, 96)
    assert pair.shared == "the teacher has 1 of the student's 2 classes"
    assert pair.distiller.teacher_columns == [0]


def test_features_that_are_not_finite_are_refused(files: GetFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeaturePair, "finite", False)
    with pytest.raises(DS2D2Error, match=r"val.*\.png are not finite"):
        explain_pair(ExplainOptions(**files("obb"), images=1, fit_images=1), {"imgsz": 64}, CPU)


def test_a_split_without_images_or_labels_is_refused(files: GetFiles, tmp_path: Path) -> None:
    yaml = write_tiny_data(tmp_path / "bare", "obb", images=2)
    options = ExplainOptions(**{**files("obb"), "data": str(yaml)}, images=1)
    for file in (yaml.parent / "labels" / "val").glob("*.txt"):
        file.unlink()
    with pytest.raises(BadUseError, match="no labels for the 2 images of split=val"):
        explain_pair(options, {"imgsz": 64}, CPU)
    for file in (yaml.parent / "images" / "val").glob("*.png"):
        file.unlink()
    with pytest.raises(BadUseError, match="no images for split=val"):
        explain_pair(options, {"imgsz": 64}, CPU)


def test_images_that_cannot_be_read_are_left_out_of_the_fit(files: GetFiles, tmp_path: Path) -> None:
    yaml = write_tiny_data(tmp_path / "broken", "obb", images=3)
    images = yaml.parent / "images"
    (images / "train" / "1.png").write_bytes(b"broken")
    options = ExplainOptions(**{**files("obb"), "data": str(yaml)}, images=1)
    assert explain_pair(options, {"imgsz": 64}, CPU)[0].fitted_to == "2 images of split=train"
    for file in (images / "train").glob("*.png"):
        file.write_bytes(b"broken")
    with pytest.raises(DS2D2Error, match=r"none of 3 images, such as .*0\.png, can be read"):
        explain_pair(options, {"imgsz": 64}, CPU)


def test_the_random_state_stays(files: GetFiles) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    explain_pair(ExplainOptions(**files("detect"), images=1, fit_images=1), {"imgsz": 64}, CPU)
    assert torch.equal(before, torch.get_rng_state())


def test_named_images_are_shown_in_their_order(files: GetFiles) -> None:
    options = ExplainOptions(**files("obb"), images="5,2.png", fit_images=1)
    explanation, _ = explain_pair(options, {"imgsz": 96, "split": "train"}, CPU)
    assert [image.file for image in explanation.images] == ["5.png", "2.png"]
    assert explanation.fitted_to == "1 images of split=train"


def test_images_that_are_not_square_are_shown_without_their_padding(files: GetFiles, tmp_path: Path) -> None:
    yaml = write_tiny_data(tmp_path / "wide", "obb")
    for file in (yaml.parent / "images").rglob("*.png"):
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (96, 48)))
    options = ExplainOptions(**{**files("obb"), "data": str(yaml)}, images=1, fit_images=1)
    image = explain_pair(options, {"imgsz": 96}, CPU)[0].images[0]
    assert image.area == (0, 24, 96, 72)
    assert image.pixels.shape == (96, 96, 3)


def test_data_of_other_channels_are_refused(files: GetFiles, tmp_path: Path) -> None:
    data = write_bands(tmp_path / "four", 4)
    options = ExplainOptions(**{**files("obb"), "data": str(data)}, images=1)
    with pytest.raises(BadUseError, match="takes 3 channels and the data have 4"):
        explain_pair(options, {"imgsz": 96}, CPU)


def test_the_teacher_takes_its_channels_of_the_data(files: GetFiles, tmp_path: Path) -> None:
    student = OBBModel("yolov8n-obb.yaml", ch=4, nc=2, verbose=False)
    student.names, student.task = {0: "red", 1: "green"}, "obb"
    torch.save({"model": student, "train_args": {"task": "obb", "imgsz": 64}}, tmp_path / "four.pt")
    paths = {**files("obb"), "student": str(tmp_path / "four.pt"), "data": str(write_bands(tmp_path / "four", 4))}
    options = ExplainOptions(**paths, teacher_channels=[2, 1, 0], images=1, fit_images=1)
    explanation, _ = explain_pair(options, {"conf": 0.05}, CPU)
    assert explanation.imgsz == 64
    assert explanation.shared == "the teacher has all classes of the student"
    assert explanation.images[0].pixels.shape == (64, 64, 3)
    assert len(explanation.images[0].teacher.labels) > 0


def test_models_without_a_shared_class_or_of_two_tasks_are_refused(
    checkpoint: Callable[..., Path], files: GetFiles
) -> None:
    paths = files("obb")
    other = str(checkpoint("yolov8n-obb.yaml", names=("cat", "dog")))
    with pytest.raises(BadUseError, match="share no class: the student has cat, dog; the teacher has red, green"):
        load_pair(ExplainOptions(**{**paths, "student": other}), 3, CPU, 96)
    with pytest.raises(BadUseError, match="use a teacher for obb"):
        load_pair(ExplainOptions(**{**paths, "teacher": files("detect")["teacher"]}), 3, CPU, 96)


def test_the_command_writes_page_and_sheets(
    files: GetFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"{key}={value}" for key, value in files("detect").items()]
    status = main(["explain", *arguments, "images=1", "fit_images=1", "imgsz=96", "device=cpu", f"project={tmp_path}"])
    page = tmp_path / "explain" / "index.html"
    assert status == 0, capsys.readouterr().err
    assert capsys.readouterr().out.splitlines()[-1] == f"1 sheet on one page: {page}"
    assert sorted(p.name.split("-")[0] for p in page.parent.iterdir()) == ["banner.png", "index.html", "sheet"]


def test_the_function_is_exported_and_names_what_is_missing() -> None:
    with pytest.raises(BadUseError, match="student=, data= missing: ds2d2-yolo explain"):
        ds2d2_yolo.explain("teacher.pt")
    with pytest.raises(BadUseError, match="did you mean 'images'"):
        ds2d2_yolo.explain("t.pt", "s.pt", "d.yaml", image=3)
