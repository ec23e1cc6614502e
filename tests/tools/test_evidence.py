"""The evidence: its tables are those of the raw results, its headline is in them, and its command does what it says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.tasks import OBBModel
from ultralytics.utils import YAML
from ultralytics.utils.torch_utils import select_device

from ds2d2_yolo import compare as comparing
from ds2d2_yolo import evaluate as evaluating
from ds2d2_yolo.bridge.data.images import list_images
from ds2d2_yolo.bridge.training import plain_run
from ds2d2_yolo.bridge.upstream.devices import cpu_threads
from ds2d2_yolo.compare.arms import read_arms
from ds2d2_yolo.compare.options import CompareOptions
from ds2d2_yolo.compare.plan import ComparePlan
from ds2d2_yolo.compare.results import RunResult, read_results, write_results
from ds2d2_yolo.compare.state import run_folder
from ds2d2_yolo.compare.summaries.statistics import paired_difference
from ds2d2_yolo.compare.summaries.summary import summarise
from ds2d2_yolo.compare.summaries.tables import report
from ds2d2_yolo.errors import BadUseError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "evidence-runs.md").read_text(encoding="utf-8")
RESULTS = sorted((ROOT / "docs" / "evidence").glob("*/results.csv"))


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import evidence

    return evidence


def test_there_is_evidence() -> None:
    assert len(RESULTS) >= 1


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.parent.name)
def test_tables_are_those_of_the_raw_results(file: Path) -> None:
    summary = summarise(read_results(file), "plain", 0.95)
    assert (file.parent / "compare.md").read_text(encoding="utf-8").startswith(report(summary))


def test_difference_over_all_teachers_is_that_of_the_raw_results() -> None:
    """The pairs of a seed averaged, which the page names."""
    for kind in ("hituav", "heldout"):
        names = [kind, f"{kind}2", f"{kind}3"]
        gained: dict[int, list[float]] = {}
        for name in names:
            rows = read_results(ROOT / "docs" / "evidence" / name / "results.csv")
            last = {(r.arm, r.seed): r.map50 for r in rows if (r.by, r.weights) == ("all", "last")}
            for seed in range(3):
                gained.setdefault(seed, []).append(last["ds2d2", seed] - last["plain", seed])
        assert all(difference > 0 for each in gained.values() for difference in each)
        paired = paired_difference({s: sum(each) / 3 for s, each in gained.items()}, dict.fromkeys(gained, 0.0), 0.95)
        assert paired is not None
        assert paired.low is not None
        assert paired.high is not None
        interval_text = f"{paired.mean:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]"
        assert interval_text in PAGE


def test_command_runs_what_the_page_says(
    evidence: Any, tmp_path: Path, tiny_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which the tool sets, and this undoes
    seen: dict[str, Any] = {}
    monkeypatch.setattr(comparing, "compare", lambda **keys: seen.update(keys))
    trained: list[Path] = []
    monkeypatch.setattr(evidence, "train_teacher", lambda data, folder, *_: trained.append(folder) or folder)
    data = tiny_data("obb")
    evidence.main([str(data), "--arms", "ds2d2", "--seeds", "1", "--folder", str(tmp_path), "--teacher-bf16"])
    assert seen.pop("teacher_bf16") is True
    evidence.main([str(data), "--arms", "plain", "--seeds", "1", "--folder", str(tmp_path), "--teacher-bf16"])
    assert "teacher_bf16" not in seen, "a comparison refuses settings that none of its arms takes"
    evidence.main([str(data), "--arms", "ds2d2", "--seeds", "1", "--folder", str(tmp_path)])
    assert "teacher_bf16" not in seen
    assert trained == [tmp_path / "teacher"] * 3
    schedules: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        patch.setattr(evidence, "train_teacher", lambda _, folder, keys, *__: schedules.append(keys) or folder)
        larger = ["--arms", "large:teacher_imgsz=640", "--teacher-imgsz", "640", "--folder", str(tmp_path)]
        evidence.main([str(data), *larger, "--seeds", "1"])
    assert (schedules[0]["imgsz"], seen["imgsz"], seen["arms"]) == (640, 320, "large:teacher_imgsz=640")
    evidence.main([str(data), "--arms", "ds2d2", "--seeds", "1", "--folder", str(tmp_path)])
    trained.pop()
    assert (seen["seeds"], seen["arms"], seen["data"]) == ([1], "ds2d2", str(data))
    measured = read_results(next(file for file in RESULTS if file.parent.name == "hituav"))[0]
    assert (seen["imgsz"], seen["epochs"]) == (measured.imgsz, measured.epochs)
    for arms, seeds, runs in (("ds2d2", 1, 1), ("fu2:imfu_share=2.0", 1, 1), (evidence.ARMS, 2, 11)):
        evidence.main([str(data), "--arms", arms, "--seeds", *map(str, range(seeds)), "--folder", str(tmp_path)])
        options = CompareOptions.of(seen, "compare", passing=set(seen))
        assert len(ComparePlan.of(options, CompareOptions.split(seen)[1]).runs) == runs
    trained.clear()
    with pytest.raises(SystemExit, match="1"):
        evidence.main([str(data), "--arms", "ds3d3", "--folder", str(tmp_path)])
    error_text = capsys.readouterr().err
    assert error_text.startswith("error: unknown arm 'ds3d3'")
    assert error_text.count("\n") == 1
    assert not trained


@pytest.mark.parametrize("parallel", [2, 3])
def test_teacher_has_as_many_threads_as_runs_go_at_a_time(
    evidence: Any, tmp_path: Path, tiny_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, parallel: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(comparing, "compare", lambda **keys: None)
    threads: list[int] = []

    def train(data: str, folder: Path, *_: Any) -> Path:
        select_device("cpu", verbose=False)  # which takes Ultralytics' own number by itself
        threads.append(torch.get_num_threads())
        return folder

    monkeypatch.setattr(evidence, "train_teacher", train)
    with cpu_threads():  # puts Ultralytics' number and torch's back
        evidence.main([str(tiny_data("obb")), "--parallel", str(parallel), "--folder", str(tmp_path)])
    assert threads == [parallel]


Trainings = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """Train nothing: the keys of the last comparison and of the last teacher's training appear in two dictionaries."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    compared: dict[str, Any] = {}
    taught: dict[str, Any] = {}
    monkeypatch.setattr(comparing, "compare", lambda **keys: compared.update(keys))

    def train(model: str, keys: dict[str, Any], callbacks: Any) -> None:
        taught.update(keys, model=model, callbacks=callbacks)
        Path(keys["project"], keys["name"]).mkdir(parents=True)

    monkeypatch.setattr(plain_run, "train_plain", train)
    return compared, taught


def test_teacher_may_be_trained_longer_and_from_another(
    evidence: Any, tmp_path: Path, tiny_data: Callable[[str], Path], trainings: Trainings,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    seen, taught = trainings
    start = tmp_path / "start.pt"
    command = [str(tiny_data("obb")), "--folder", str(tmp_path / "runs"), "--teacher-epochs", "7", "--teacher-from"]
    with pytest.raises(SystemExit):
        evidence.main([*command, str(start)])
    assert "--teacher-from: there is no file" in capsys.readouterr().err
    assert not taught
    start.touch()
    monkeypatch.chdir(tmp_path)
    evidence.main([*command, "start.pt"])
    assert (taught["pretrained"], taught["epochs"]) == (str(start), 7)
    assert "pretrained" not in seen
    assert seen["epochs"] == evidence.protocol_of("").schedule["epochs"]
    assert taught["callbacks"] is None
    evidence.main([str(tiny_data("obb")), "--folder", str(tmp_path / "others")])
    assert (taught["pretrained"], taught["epochs"]) == (False, evidence.protocol_of("").schedule["epochs"])


def test_pretrained_weights_are_those_of_a_folder(
    evidence: Any, tmp_path: Path, tiny_data: Callable[[str], Path], trainings: Trainings,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    seen, taught = trainings
    command = [str(tiny_data("obb")), "--folder", str(tmp_path / "runs"), "--pretrained", str(tmp_path)]
    with pytest.raises(SystemExit, match="1"):
        evidence.main(command)
    student, teacher = tmp_path / "yolov8n-railway.pt", tmp_path / "yolo11s-ships.pt"
    assert capsys.readouterr().err == f"error: --pretrained: there is no file {student}\n"
    student.touch()
    teacher.touch()
    evidence.main([*command, "--teacher-trained-in-bf16"])
    assert taught["callbacks"] == {"on_train_start": evidence.run_in_bfloat16}
    assert (taught["model"], taught["pretrained"], taught["fraction"]) == ("yolo11s-obb.yaml", str(teacher), 1.0)
    assert (seen["student"], seen["pretrained"], seen["fraction"]) == ("yolov8n-obb.yaml", str(student), 0.5)
    assert seen["epochs"] == 80
    seen.clear()
    capsys.readouterr()
    evidence.main([*command, "--arms", "teacher"])
    assert not seen, "a teacher alone is not compared"
    assert capsys.readouterr().out == f"the teacher is {tmp_path / 'runs/teacher/weights/best.pt'}\n"


def test_students_see_half_the_teachers_size(
    evidence: Any, tmp_path: Path, tiny_data: Callable[[str], Path], trainings: Trainings,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    seen, taught = trainings
    command = [str(tiny_data("obb")), "--folder", str(tmp_path / "runs"), "--half-size"]
    with pytest.raises(SystemExit):
        evidence.main(command)
    assert "give --pretrained too" in capsys.readouterr().err
    assert not taught
    student = tmp_path / "yolov8n-railway.pt"
    student.touch()
    evidence.main([*command, "--pretrained", str(tmp_path)])
    assert (taught["imgsz"], seen["imgsz"]) == (320, 160)
    assert (taught["model"], taught["pretrained"]) == (seen["student"], str(student))
    assert (taught["fraction"], seen["fraction"]) == (0.5, 0.5), "the held-out images measure both"
    sizes = {arm.name: arm.settings.get("teacher_imgsz") for arm in read_arms(seen["arms"])}
    assert sizes == {"plain": None, "images": 320, "balanced": 320}


def test_students_see_unlabelled_images_that_the_teacher_does_not(
    evidence: Any, tmp_path: Path, tiny_data: Callable[[str], Path], trainings: Trainings,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    seen, taught = trainings
    command = [str(tiny_data("obb")), "--folder", str(tmp_path / "runs"), "--unlabelled"]
    with pytest.raises(SystemExit):
        evidence.main([*command, "--held-out"])
    assert "--held-out: the students of --unlabelled have seen these images" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evidence.main([*command, "--pretrained", str(tmp_path)])
    assert "leave out --pretrained" in capsys.readouterr().err
    assert not taught
    evidence.main(command)
    assert (seen["fraction"], seen["unlabelled"], taught["fraction"]) == (0.5, "rest", 0.5)
    assert "unlabelled" not in taught
    options = CompareOptions.of(seen, "compare", passing=set(seen))
    plan = ComparePlan.of(options, CompareOptions.split(seen)[1])
    batches = {arm.name: plan.train_batch(arm).get("batch", plan.keys["batch"]) for arm in plan.arms}
    usual = evidence.protocol_of("").schedule["batch"]
    assert batches == {"plain": usual, "labelled": usual, "ds2d2": 2 * usual, "pseudo_labels": 2 * usual}
    assert taught["batch"] == usual


def test_training_in_bfloat16_has_float32_weights_and_outputs(evidence: Any) -> None:
    torch.manual_seed(0)
    model = OBBModel("yolov8n-obb.yaml", nc=2, verbose=False).train()
    images, keys = torch.rand(2, 3, 64, 64), ("boxes", "scores", "angle")
    plain = model.predict(images)
    evidence.run_in_bfloat16(SimpleNamespace(model=model))
    half = model.predict(images)
    assert all(half[key].dtype == torch.float32 for key in keys)
    assert any(not torch.equal(half[key], plain[key]) for key in keys), "it ran in float32"
    for key in keys:
        assert torch.cosine_similarity(half[key].flatten(), plain[key].flatten(), dim=0) > 0.99
    sum(half[key].sum() for key in keys).backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


def test_scenes_have_the_schedule_that_was_measured(
    evidence: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen: dict[str, Any] = {}
    taught: dict[str, Any] = {}
    monkeypatch.setattr(comparing, "compare", lambda **keys: seen.update(keys))
    monkeypatch.setattr(evidence, "train_teacher", lambda data, folder, schedule, *_: taught.update(schedule) or folder)
    evidence.main(["aerial-scenes.yaml", "--arms", "plain", "--folder", str(tmp_path)])
    measured = read_results(next(file for file in RESULTS if file.parent.name == "scenes"))[0]
    assert (seen["data"], seen["imgsz"], seen["epochs"]) == (measured.data, measured.imgsz, measured.epochs)
    assert {k for k in taught if taught[k] != seen[k]} == {"epochs"}
    assert taught["epochs"] > seen["epochs"]
    with pytest.raises(SystemExit):
        evidence.main(["aerial-scenes.yaml", "--held-out", "--folder", str(tmp_path)])


def test_held_out_images_are_those_that_runs_do_not_see(
    evidence: Any, tmp_path: Path, tiny_data: Callable[[str], Path]
) -> None:
    data = str(tiny_data("obb"))
    split = YAML.load(evidence.held_out(data, 0.25, tmp_path))["val"]
    listed = Path(split).read_text(encoding="utf-8").split()
    args = get_cfg(overrides={"data": data, "task": "obb", "fraction": 0.25})
    dataset = check_det_dataset(data)
    seen = build_yolo_dataset(args, dataset["train"], 2, dataset, mode="train").im_files
    assert len(seen) == 2
    assert len(listed) == 6
    assert set(map(str, list_images(dataset["train"]))) == {*listed, *seen}


def test_held_out_images_are_measured_once(
    evidence: Any, tmp_path: Path, tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    yaml = evidence.held_out(str(tiny_data("obb")), 0.25, tmp_path / "held")
    weights = run_folder(tmp_path, "plain", 0) / "weights"
    weights.mkdir(parents=True)
    shutil.copy(checkpoint("yolov8n-obb.yaml"), weights / "last.pt")
    row = RunResult(
        "plain", 0, "d.yaml", "t.pt", "s.yaml", 96, 1, "last", "all", "all", 0.9, 0.8, 1, 1, teacher_hash="t"
    )
    write_results(tmp_path / "results.csv", [row, replace(row, weights="best"), replace(row, by="size")])
    schedule = {**evidence.protocol_of("").schedule, "imgsz": 96}
    results = evidence.measure_held_out(yaml, tmp_path, weights, schedule)
    rows = read_results(results)
    assert {(r.arm, r.seed, r.weights, r.data, r.teacher_hash) for r in rows} == {
        ("plain", 0, "last", "held/data.yaml", "t")
    }
    overall = rows[0]
    assert (overall.by, overall.images) == ("all", 6)
    assert overall.map50 < 0.9, "measured, not copied"
    assert any(r.by == "size" for r in rows)
    monkeypatch.setattr(evaluating, "evaluate", None)
    before = results.read_text(encoding="utf-8")
    assert evidence.measure_held_out(yaml, tmp_path, weights, schedule).read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("epoch", "expected_calls"), [(None, ["train_plain"]), (0, ["resume_plain"]), (1, []), (-1, [])],
    ids=["half written", "after the first epoch", "after the last", "stripped"],
)  # fmt: skip
def test_teacher_that_was_cut_off_is_brought_to_its_end(
    evidence: Any, tmp_path: Path, checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, epoch: int | None,
    expected_calls: list[str],
) -> None:  # fmt: skip
    calls: list[str] = []
    for name in ("train_plain", "resume_plain"):
        monkeypatch.setattr(plain_run, name, lambda *_, name=name: calls.append(name))
    weights = tmp_path / "teacher" / "weights"
    weights.mkdir(parents=True)
    for file in (weights / "last.pt", weights / "best.pt"):
        saved_checkpoint = torch.load(checkpoint("yolov8n-obb.yaml"), weights_only=False)
        torch.save({**saved_checkpoint, "epoch": epoch, "optimizer": {"state": {}}}, file)
    if epoch is None:
        (weights / "last.pt").write_bytes((weights / "last.pt").read_bytes()[:1000])
    schedule = {**evidence.protocol_of("").schedule, "epochs": 2}
    assert evidence.train_teacher("d.yaml", tmp_path / "teacher", schedule) == weights / "best.pt"
    assert calls == expected_calls
    assert (tmp_path / "teacher" / "done").exists()
    if not expected_calls:
        assert torch.load(weights / "last.pt", weights_only=False)["optimizer"] is None


def test_teacher_of_other_settings_is_no_teacher_of_these(evidence: Any, tmp_path: Path) -> None:
    """Its rows would stand for a teacher that was never trained."""
    schedule = {**evidence.protocol_of("").schedule, "epochs": 20}
    folder, start = tmp_path / "teacher", tmp_path / "t2" / "weights" / "best.pt"
    (folder / "weights").mkdir(parents=True)
    saved_args = {"data": "/elsewhere/hituav/data.yaml", "seed": 0, "pretrained": False, **schedule, "device": "0"}
    YAML.save(folder / "args.yaml", saved_args)
    (folder / "done").touch()
    data = str(tmp_path / "hituav" / "data.yaml")
    assert evidence.train_teacher(data, folder, schedule) == folder / "weights" / "best.pt"
    for changed, message in (
        ({"epochs": 40}, "epochs was 20, is 40"), ({"pretrained": str(start)}, "pretrained was False, is "),
        ({"lr0": 0.1}, "lr0 was 0.001, is 0.1"),
    ):  # fmt: skip
        with pytest.raises(BadUseError, match=message):
            evidence.train_teacher(data, folder, {**schedule, **changed})
    YAML.save(folder / "args.yaml", {**saved_args, "pretrained": str(tmp_path / "t1" / "weights" / "best.pt")})
    with pytest.raises(BadUseError, match="pretrained was "):  # of the same name in another folder
        evidence.train_teacher(data, folder, {**schedule, "pretrained": str(start)})
    YAML.save(folder / "args.yaml", saved_args)
    with pytest.raises(BadUseError, match="data was /elsewhere/hituav/"):
        evidence.train_teacher(str(tmp_path / "dior" / "data.yaml"), folder, schedule)


@pytest.mark.slow
def test_teacher_is_trained_once(evidence: Any, tmp_path: Path, tiny_data: Callable[[str], Path]) -> None:
    schedule = {**evidence.protocol_of("").schedule, "epochs": 1, "imgsz": 96, "fraction": 1.0, "val": False}
    data = str(tiny_data("obb"))
    best = evidence.train_teacher(data, tmp_path / "teacher", schedule)
    before = best.stat().st_mtime_ns
    assert evidence.train_teacher(data, tmp_path / "teacher", schedule).stat().st_mtime_ns == before


def test_an_interruption_is_one_line(
    evidence: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the command sets it
    monkeypatch.setattr(evidence, "run", interrupt)
    with pytest.raises(SystemExit) as ended:
        evidence.main(["aerial-scenes.yaml"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted: the same command goes on\n"
