"""What is measured, what is kept for the next command, and what is shown."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from filelock import FileLock

from ds2d2_yolo.bridge.inference import export as exporter
from ds2d2_yolo.bridge.upstream.hardware import LoadMeter
from ds2d2_yolo.deploy import benchmark
from ds2d2_yolo.deploy.benchmarks import benchmark_run, worker
from ds2d2_yolo.deploy.benchmarks.benchmark_inputs import parse_models
from ds2d2_yolo.deploy.benchmarks.benchmark_run import BenchmarkRun
from ds2d2_yolo.deploy.benchmarks.table import BenchmarkRow, draw, ratios, row_of, table
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.child_process import ChildError, run_child
from tests.helpers.data import write_bands, write_tiny_data
from tests.helpers.progress import recorded_tasks


def four_channels(folder: Path) -> Path:
    """Write an untrained checkpoint of four channels."""
    import torch
    from ultralytics.nn.tasks import OBBModel

    model = OBBModel("yolov8n-obb.yaml", nc=2, ch=4, verbose=False)
    model.names, model.task = {0: "red", 1: "green"}, "obb"
    torch.save({"model": model, "train_args": {"task": "obb", "imgsz": 96}}, folder / "four.pt")
    return folder / "four.pt"


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """Jobs are answered here instead of in processes; openvino fails."""
    started: list[tuple[str, str, str]] = []

    def answer(
        self: BenchmarkRun, cell: dict[str, Any], job: dict[str, Any], title: str, rename: Any = None
    ) -> dict[str, Any]:
        if cell.get("reason"):
            return {}
        started.append((cell["model"], cell["format"], title))
        if job["work"] == "export":
            if job["format"] == "openvino":
                cell["reason"] = f"{title}: no openvino"
                return {}
            file = Path(job["folder"]) / "a.onnx"
            file.parent.mkdir(parents=True)
            file.write_bytes(b"x" * 2_000_000)
            cell[rename["file"]] = str(file)
            return {"file": str(file)}
        if job["work"] == "accuracy":
            return {"map50": 0.5, "map50_95": 0.25}
        ms = 10.0 if cell["format"] == "pt" else 5.0
        timed = {"forward": [ms] * job["runs"], "total": [2 * ms] * job["runs"]}
        batches = {"batches": [4 * ms] * 3} if job["batch"] > 1 else {}
        return {**timed, **batches, "peak_mb": 300.0, "added_mb": 40.0, "threads": 1}

    monkeypatch.setattr(BenchmarkRun, "_run_job", answer)
    monkeypatch.setattr(benchmark_run, "LOAD_SECONDS", 0.01)
    return started


def keys(checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], out: Path) -> dict[str, Any]:
    models = f"big:{checkpoint('yolov8s-obb.yaml')},small:{checkpoint('yolov8n-obb.yaml')}"
    return {"model": models, "data": str(tiny_data("obb")), "imgsz": 96, "runs": 5, "rounds": 2, "out": str(out)}


def test_turns_are_interleaved_and_what_is_measured_is_kept(
    jobs: list[tuple[str, str, str]], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    options = keys(checkpoint, tiny_data, tmp_path / "out")
    result = benchmark(**options, formats="pt,onnx,openvino", batch=4)
    cells = [("big", "pt"), ("big", "onnx"), ("small", "pt"), ("small", "onnx")]
    assert [j[:2] for j in jobs if j[2] == "turn 1 of 2"] == cells
    assert [j[:2] for j in jobs if j[2] == "turn 2 of 2"] == cells[::-1]
    rows = {(r.model, r.format): r for r in result.rows}
    first, second = rows["big", "pt"], rows["small", "onnx"]
    assert (first.times_first, second.times_first, first.runs) == (1, 0.5, 5)
    assert (second.latency_ms, second.total_ms, second.file_mb) == (5, 10, 2)
    assert second.images_per_s == 200
    assert first.parameters > second.parameters
    assert "no openvino" in str(rows["big", "openvino"].reason)
    assert "not measured: export, batch 1: no openvino" in str(result)
    assert result.machine["versions"]["torch"] in str(result)
    with (tmp_path / "out" / "benchmark.csv").open(encoding="utf-8") as file:
        assert [r["total_ms"] for r in csv.DictReader(file)] == ["20.0", "10.0", "", "20.0", "10.0", ""]
    assert cv2.imread(str(tmp_path / "out" / "benchmark.png")) is not None

    jobs.clear()
    repeated = benchmark(**options, formats="pt,onnx,openvino", batch=4)
    assert {j[1] for j in jobs} == {"openvino"}  # what failed is tried again, nothing else
    assert repeated.rows == result.rows
    jobs.clear()
    benchmark(**options, formats="pt", batch=4, warmup=1)
    assert len(jobs) == 2 * 3  # other settings are other measurements


def test_every_step_is_shown_on_standard_error(
    jobs: list[tuple[str, str, str]], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tasks = recorded_tasks(benchmark_run, monkeypatch)
    options = keys(checkpoint, tiny_data, tmp_path / "out")
    benchmark(**options, formats="pt,openvino")
    assert capsys.readouterr().err.splitlines()[0] == "benchmark"
    benchmark(**options, formats="pt,openvino", verbose=False)
    assert capsys.readouterr().err == ""
    assert [(task.completed, task.total) for task in tasks] == [(16, 16)] * 2  # 4 cells, export, 2 turns, accuracy


def test_a_changed_file_is_measured_again_and_a_lost_turn_alone(
    jobs: list[tuple[str, str, str]], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    options = {**keys(checkpoint, tiny_data, tmp_path), "formats": "pt", "model": f"aa:{tmp_path / 'a.pt'}"}
    (tmp_path / "a.pt").write_bytes(checkpoint("yolov8n-obb.yaml").read_bytes())
    benchmark(**options)
    stored = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    del next(iter(stored["cells"].values()))["turns"]["1"]
    (tmp_path / "benchmark.json").write_text(json.dumps(stored), encoding="utf-8")
    jobs.clear()
    benchmark(**options)
    assert [j[2] for j in jobs] == ["turn 2 of 2"]
    jobs.clear()
    (tmp_path / "a.pt").write_bytes(checkpoint("yolov8n-obb.yaml", seed=1).read_bytes())
    benchmark(**options)
    assert [j[2] for j in jobs] == ["turn 1 of 2", "turn 2 of 2", "mAP"]


def test_a_busy_machine_is_named_and_its_turns_are_measured_again(
    jobs: list[tuple[str, str, str]], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = {
        **keys(checkpoint, tiny_data, tmp_path),
        "formats": "pt",
        "model": f"aa:{checkpoint('yolov8n-obb.yaml')}",
    }
    answer = BenchmarkRun._run_job
    load = {"before": 1.5, "while": 1.25}

    def answer_under_load(self: BenchmarkRun, *job: Any) -> dict[str, Any]:
        measured = answer(self, *job)
        return {**measured, "other_cores": load["while"]} if "forward" in measured else measured

    monkeypatch.setattr(BenchmarkRun, "_run_job", answer_under_load)
    monkeypatch.setattr(LoadMeter, "__exit__", lambda self, *_: setattr(self, "other_cores", load["before"]))
    result = benchmark(**options)
    assert "WARNING: other processes kept 1.5 of" in capsys.readouterr().out
    assert "WARNING: other processes kept 1.2 of" in str(result)
    assert result.rows[0].other_cores == 1.25
    load.update({"before": 0.05, "while": 0.05})
    jobs.clear()
    result = benchmark(**options)
    assert [j[2] for j in jobs] == ["turn 1 of 2", "turn 2 of 2"]
    assert "WARNING" not in str(result) + capsys.readouterr().out
    jobs.clear()
    benchmark(**options)
    assert not jobs


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": None}, "model= and data= are needed"),
        ({"model": "aa:nowhere.pt"}, "model=nowhere.pt does not exist"),
        ({"formats": "pt,onxx"}, "formats=onxx must be one of pt, torchscript, onnx"),
        ({"formats": "onnx-int4"}, "formats=onnx-int4 must be one of fp16, int8"),
        ({"formats": "pt-int8"}, "PyTorch runs in FP32 or FP16"),
        ({"formats": "pt,pt"}, "names a format twice"),
        ({"runs": 3, "rounds": 9}, "runs=3 are fewer than rounds=9"),
        ({"round": 9}, "did you mean 'rounds'"),
    ],
)
def test_bad_use_is_one_line(
    changed: dict[str, Any],
    message: str,
    checkpoint: Callable[..., Path],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    with pytest.raises(BadUseError) as caught:
        benchmark(**{**keys(checkpoint, tiny_data, tmp_path / "out"), **changed})
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_one_file_under_two_names_and_other_settings_have_files_of_their_own(
    jobs: list[tuple[str, str, str]], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    small = checkpoint("yolov8n-obb.yaml")
    options = {**keys(checkpoint, tiny_data, tmp_path / "out"), "model": f"one:{small},two:{small}", "formats": "onnx"}
    assert [r.model for r in benchmark(**options).rows] == ["one", "two"]
    exports = len([j for j in jobs if j[2].startswith("export")])
    benchmark(**options, nms=True)
    assert len([j for j in jobs if j[2].startswith("export")]) == 2 * exports


@pytest.mark.parametrize(
    ("names", "warning"),
    [
        (
            ["tree", "rock"],
            "compared by index, but their names differ: data 'tree' as model 'red', data 'rock' as model 'green'",
        ),
        (["red", "rock"], "compared by index, but their names differ: data 'rock' as model 'green'"),
        (["green", "red"], "matched by name, model and data have them under different indices"),
        (["Red", "green"], None),
    ],
)
def test_classes_of_other_names_are_warned_of_before_and_beside_the_numbers(
    names: list[str], warning: str | None, jobs: list[tuple[str, str, str]], checkpoint: Callable[..., Path],
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = write_tiny_data(tmp_path / "data", "obb")
    data.write_text(data.read_text(encoding="utf-8").partition("names:")[0] + f"names: {names}\n", encoding="utf-8")
    options = keys(checkpoint, lambda _: data, tmp_path / "out")
    result = benchmark(**options, formats="onnx")
    report_text = (tmp_path / "out" / "benchmark.md").read_text(encoding="utf-8")
    for text in (capsys.readouterr().out, str(result), report_text):
        assert text.count("WARNING: mAP of ") == (2 if warning else 0)
        assert warning is None or text.count(f": Classes are {warning}.") == 2


def test_what_does_not_fit_the_data_is_refused_before_anything_is_measured(
    jobs: list[tuple[str, str, str]], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    options = keys(checkpoint, tiny_data, tmp_path / "out")
    with pytest.raises(BadUseError, match=r"labels have 5 columns and big, an obb model, needs 9"):
        benchmark(**{**options, "data": str(tiny_data("detect"))})
    bands = str(write_bands(tmp_path / "bands", 4))
    with pytest.raises(BadUseError, match="big takes 3 channels, and the data have 4"):
        benchmark(**{**options, "data": bands})
    with pytest.raises(BadUseError, match="device=intel:gpu is no device of torch"):
        benchmark(**options, device="intel:gpu")
    torn = write_tiny_data(tmp_path / "torn", "obb")
    (torn.parent / "images" / "val" / "3.png").write_bytes(b"no image")
    with pytest.raises(BadUseError, match=r"3.png cannot be read as an image: correct it"):
        benchmark(**{**options, "data": str(torn)})
    assert not jobs
    benchmark(**{**options, "model": str(four_channels(tmp_path)), "data": bands, "formats": "pt"})
    assert [j[2] for j in jobs] == ["turn 1 of 2", "turn 2 of 2", "mAP"]


def test_images_are_timed_with_all_their_channels(tmp_path: Path) -> None:
    bands = write_bands(tmp_path / "bands", 4)
    images = [str(p) for p in sorted((bands.parent / "images" / "val").iterdir())]
    file = str(four_channels(tmp_path))
    times = worker.timing({"file": file, "batched": file, "format": "pt", "task": "obb", "half": False, "nms": None,
                           "imgsz": 96, "device": "cpu", "channels": 4, "images": images, "runs": 2, "warmup": 0,
                           "batch": 2})  # fmt: skip
    assert len(times["forward"]) == len(times["total"]) == 2
    assert len(times["batches"]) == 3


def test_torchscript_is_made_on_the_device_that_runs_it(
    checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[dict[str, Any]] = []

    def refuse(module: str, job: dict[str, Any], environment: dict[str, str]) -> None:
        jobs.append(job)
        raise ChildError("refused")

    monkeypatch.setattr(benchmark_run, "run_child", refuse)
    with pytest.raises(DS2D2Error):
        benchmark(**keys(checkpoint, tiny_data, tmp_path), formats="torchscript-fp16,onnx", device="cpu")
    devices = {job["format"]: job["args"].get("device") for job in jobs}
    assert devices == {"torchscript": "cpu", "onnx": None}


def test_two_benchmarks_do_not_share_a_folder(
    jobs: list[tuple[str, str, str]], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(BadUseError, match="another benchmark is at work in"):
        benchmark(**keys(checkpoint, tiny_data, tmp_path))
    assert not jobs


def test_a_tilde_is_the_home_folder(
    jobs: list[tuple[str, str, str]], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "m.pt").write_bytes(checkpoint("yolov8n-obb.yaml").read_bytes())
    options = {**keys(checkpoint, tiny_data, Path("~/bench")), "model": "m:~/m.pt"}
    assert benchmark(**options).folder == tmp_path / "home" / "bench"
    assert not (tmp_path / "~").exists()
    assert parse_models("~/best.pt")[0][0] == "home"


def test_nothing_measured_is_a_failure(
    jobs: list[tuple[str, str, str]], checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(DS2D2Error, match="nothing could be measured"):
        benchmark(**keys(checkpoint, tiny_data, tmp_path / "out"), formats="openvino")


def test_a_size_that_the_model_cannot_take_is_refused(
    checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(BadUseError, match="imgsz=100 must be a multiple of the stride of big, small"):
        benchmark(**{**keys(checkpoint, tiny_data, tmp_path / "out"), "imgsz": 100})


def test_models_are_named_after_their_runs(tmp_path: Path) -> None:
    models = parse_models("runs/teacher/weights/best.pt,xx:runs/plain/weights/best.pt, some/model.pt")
    assert [name for name, _ in models] == ["teacher", "xx", "model"]
    (tmp_path / "linked.pt").symlink_to(tmp_path / "runs" / "weights" / "best.pt")
    assert parse_models(str(tmp_path / "linked.pt"))[0][0] == "linked"
    with pytest.raises(BadUseError, match="names two models alike"):
        parse_models(["a/x.pt", "b/x.pt"])


def test_a_job_that_fails_answers_with_its_reason() -> None:
    with pytest.raises(ChildError) as caught:
        run_child("ds2d2_yolo.deploy.benchmarks.worker", {"work": "export", "model": "nowhere.pt"})
    assert str(caught.value) == "model=nowhere.pt does not exist"


def test_medians_percentiles_and_throughput_are_over_all_turns() -> None:
    turn = {"forward": [1.0, 2.0, 3.0], "total": [2.0, 4.0, 6.0], "peak_mb": 10.0, "added_mb": None}
    later = {"forward": [9.0, 9.0], "total": [20.0, 20.0], "peak_mb": 12.0, "added_mb": None}
    cell = {
        "model": "a",
        "format": "pt",
        "parameters": 1,
        "gflops": 2.0,
        "turns": {"0": turn, "1": later},
        "file_mb": 1.0,
    }
    row = row_of(cell, 1)
    assert (row.latency_ms, row.total_ms, row.peak_mb, row.added_mb, row.runs) == (3, 6, 12, None, 5)
    assert row.p95_ms == pytest.approx(9)
    assert row.images_per_s == pytest.approx(1000 / 6)
    failed = row_of({**cell, "format": "onnx", "reason": "no"}, 1)
    both = ratios([failed, row])
    assert [r.times_first for r in both] == [1, 1]
    assert failed.latency_ms == 3  # what was measured stays
    assert "not all: no" in table(both)
    assert "not measured: no" in table([row_of({**cell, "turns": {}, "reason": "no"}, 1)])


def test_a_picture_of_nothing_is_not_drawn(tmp_path: Path) -> None:
    assert not draw([BenchmarkRow("a", "pt", "no", 1, 1.0)], tmp_path / "a.png", "")
    assert not list(tmp_path.iterdir())


def test_a_crash_of_a_process_becomes_the_reason(
    checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(DS2D2Error, match="nothing could be measured"):
        benchmark(**keys(checkpoint, tiny_data, tmp_path), formats="pt")
    assert (tmp_path / "benchmark.csv").read_text(encoding="utf-8").count("its process ended with status 1") == 2


@pytest.mark.slow
def test_a_real_benchmark(detecting: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path: Path) -> None:
    model = detecting("yolov8n-obb.yaml", tmp_path / "m")
    result = benchmark(
        model=str(model), formats="pt,onnx,onnx-int8,pt-fp16", data=str(tiny_data("obb")), imgsz=96, runs=4, rounds=2,
        warmup=1, batch=2, out=str(tmp_path / "out"),
    )  # fmt: skip
    rows = {r.format: r for r in result.rows}
    assert "needs a GPU" in str(rows.pop("pt-fp16").reason)
    for row in rows.values():
        assert row.reason is None
        assert 0 < row.latency_ms < row.total_ms
        assert row.peak_mb > row.added_mb > 0
        assert row.images_per_s > 0
    assert rows["onnx-int8"].file_mb < rows["onnx"].file_mb / 2
    assert rows["pt"].map50_95 == pytest.approx(rows["onnx"].map50_95, abs=1e-3)
    assert exporter.open_checkpoint(str(model), "").parameters == rows["pt"].parameters
