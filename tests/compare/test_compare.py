"""A comparison as a whole: first with a stand-in for the runs' processes, then really, with a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ds2d2_yolo import evaluate as evaluating
from ds2d2_yolo.bridge.upstream import hardware
from ds2d2_yolo.compare import compare, run
from ds2d2_yolo.compare.launchers.child import RESULT_FILE, TASK_FILE, run_task
from ds2d2_yolo.compare.launchers.slurm import SlurmLauncher
from ds2d2_yolo.compare.results import read_results
from ds2d2_yolo.compare.schedule import Job
from ds2d2_yolo.compare.state import CompareState
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from tests.helpers.quantised import needs_modelopt
from tests.helpers.slurm_programs import SlurmPrograms
from tests.helpers.trainers import PAIRS

# Notes that it ran, and leaves a result: mAP50 0.1 for plain, 0.2 for any other, a hundredth more for each seed.
STAND_IN = """
import json, pathlib, sys
task = json.loads(pathlib.Path(sys.argv[1]).read_text())
row, folder = task["row"], pathlib.Path(sys.argv[1]).parent
with open(sys.argv[2], "a") as f:
    f.write(f"{row['arm']} {row['seed']} {task['keys']['seed']}\\n")
if pathlib.Path(sys.argv[2]).with_name(f"break-{row['arm']}-{row['seed']}").exists():
    raise SystemExit("the run broke")
value = (0.1 if row["arm"] == "plain" else 0.2) + 0.01 * row["seed"]
row |= {"by": "all", "group": "all", "map50": value, "map50_95": value / 2, "images": 8, "objects": 32}
rows = [{**row, "weights": w} for w in ("last", "best")]
(folder / "result.json").write_text(json.dumps(rows))
"""


@pytest.fixture
def keys(tmp_path: Path, tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path]) -> dict[str, Any]:
    """The keys of a tiny comparison."""
    return {
        "teacher": str(checkpoint("yolov8s-obb.yaml")), "student": "yolov8n-obb.yaml", "data": str(tiny_data("obb")),
        "imgsz": 96, "epochs": 1, "batch": 4, "nbs": 4, "device": "cpu", "optimizer": "AdamW", "lr0": 0.001,
        "warmup_epochs": 0, "val": False, "project": str(tmp_path / "runs"), "arms": "plain,distill_model",
        "seeds": [0, 1], "parallel": 1,
    }  # fmt: skip


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Put the stand-in in the place of the runs' processes; tells which ran since it was last asked."""
    log = tmp_path / "ran.txt"
    job_command = run.job_command

    def command(job: Job, device: str) -> list[str]:
        job_command(job, device)
        return [sys.executable, "-c", STAND_IN, str(job.folder / TASK_FILE), str(log)]

    def new_lines() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    monkeypatch.setattr(run, "job_command", command)
    return new_lines


ALL = ["plain 0 0", "distill_model 0 0", "plain 1 1", "distill_model 1 1"]


def test_runs_everything_once_and_goes_on_with_what_is_added(keys: dict[str, Any], ran: Callable[[], Any]) -> None:
    comparison = compare(**keys)
    assert ran() == ALL
    assert "| distill_model |     2 |" in str(comparison)
    assert "+0.100" in comparison.text
    for name in ("results.csv", "summary.csv", "compare.md", "compare.png", "compare.json"):
        assert (comparison.folder / name).is_file()
    assert compare(**keys).text == comparison.text
    assert ran() == []
    compare(**{**keys, "seeds": [0, 1, 5]})
    assert ran() == ["plain 5 5", "distill_model 5 5"]
    compare(**{**keys, "arms": "teacher,strong:dis=12"})  # the baseline is there already
    assert ran() == ["teacher -1 0", "strong 0 0", "strong 1 1"]
    rows = read_results(comparison.folder / "results.csv")
    assert {(r.arm, r.seed) for r in rows if r.arm == "strong"} == {("strong", 0), ("strong", 1)}
    assert next(r.settings for r in rows if r.arm == "strong") == '{"dis": 12}'


def test_the_progress_goes_to_standard_error(
    keys: dict[str, Any], ran: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for seeds, verbose in (([0, 1], True), ([0, 1, 2], False)):
        compare(**keys | {"seeds": seeds, "verbose": verbose})
        out, err = capsys.readouterr()
        assert out == ""
        lines = [line for line in err.splitlines() if "WARNING" not in line]
        assert [line.partition(", log")[0] for line in lines[2:-1]] == [
            f"{arm}, seed {seed}: {event}"
            for seed in seeds
            for arm, score in (("plain", 0.1 + seed / 100), ("distill_model", 0.2 + seed / 100))
            for event in ("begins", f"done, mAP50 {score:.3f}, mAP50-95 {score / 2:.3f}")
            if verbose
        ]
        assert (lines[:1] == ["runs"]) == verbose
    assert len(ran()) == 6


def test_an_arm_that_shares_no_class_with_its_teacher_waits_for_no_amplifier(
    keys: dict[str, Any], ran: Callable[[], Any], checkpoint: Callable[..., Path]
) -> None:
    teacher = str(checkpoint("yolov8s-obb.yaml", names=("ship", "plane")))
    compare(**{**keys, "teacher": teacher, "arms": "plain,ds2d2", "seeds": 0})
    assert ran() == ["plain 0 0", "ds2d2 0 0"]


def test_a_failed_run_ends_no_other_and_is_tried_again(
    keys: dict[str, Any], ran: Callable[[], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "break-distill_model-0"
    broken.touch()
    with pytest.raises(DS2D2Error, match=r"1 failed, the same command tries again \(distill_model, seed 0: the run"):
        compare(**keys)
    assert ran() == ALL
    assert "| distill_model |     1 |" in capsys.readouterr().out  # the tables of the others
    broken.unlink()
    compare(**keys)
    assert ran() == ["distill_model 0 0"]


def test_a_result_that_nobody_collected_is_not_run_again(
    keys: dict[str, Any], ran: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(CompareState, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            compare(**keys)
    assert ran() == ["plain 0 0"]
    compare(**keys)
    assert ran() == ALL[1:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 2}, "epochs was 1, is 2"),
        ({"student": "yolo11n-obb.yaml"}, "student was"),
        ({"arms": "plain,distill_model,one:dis=3"}, None),
        ({"parallel": 2, "workers": 1, "level": 0.9}, None),
    ],
)
def test_a_folder_takes_one_comparison_alone(
    keys: dict[str, Any], ran: Callable[[], Any], change: dict[str, Any], message: str | None
) -> None:
    compare(**keys)
    ran()
    if message is None:
        compare(**{**keys, **change})
        return
    with pytest.raises(BadUseError, match=message):
        compare(**{**keys, **change})
    assert ran() == []


def test_two_at_once_in_a_folder_are_refused(keys: dict[str, Any], ran: Callable[[], Any], tmp_path: Path) -> None:
    compare(**{**keys, "seeds": 0})
    ran()
    with (
        FileLock(tmp_path / "runs" / "compare" / ".lock"),
        pytest.raises(BadUseError, match="another process compares"),
    ):
        compare(**keys)
    assert ran() == []


def test_missing_things_leave_no_folder(keys: dict[str, Any], ran: Callable[[], Any], tmp_path: Path) -> None:
    for wrong in ({"teacher": "none.pt"}, {"data": "none.yaml"}, {"device": 99}):
        with pytest.raises(BadUseError):
            compare(**{**keys, **wrong})
    assert ran() == []
    assert not (tmp_path / "runs").exists()


def test_an_arm_that_cannot_run_is_named_before_anything_does(keys: dict[str, Any], ran: Callable[[], Any]) -> None:
    with pytest.raises(BadUseError, match="arm far: levels"):
        compare(**{**keys, "arms": "plain,far:levels=[64]"})
    assert ran() == []
    assert not Path(keys["project"]).exists()


def test_each_gpu_takes_a_run_at_a_time(
    keys: dict[str, Any], ran: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The GPUs are pretended; the runs are stand-ins that read their device from their tasks."""
    monkeypatch.setattr(hardware, "devices_of", lambda device: tuple(str(device).split(",")))
    monkeypatch.setattr(hardware, "free_memory", lambda device: 10**11)
    del keys["parallel"]
    compare(**{**keys, "device": "0,1,2,3", "seeds": [0, 1, 2]})
    assert len(ran()) == 6
    tasks = [json.loads(file.read_text()) for file in (tmp_path / "runs").rglob(TASK_FILE)]
    assert {task["device"] for task in tasks} == {"0", "1", "2", "3"}
    assert {task["row"]["parallel"] for task in tasks} == {4}
    assert {task["threads"] for task in tasks} == {None}


@pytest.mark.skipif(os.name != "posix", reason="the stand-ins are shell scripts")
def test_slurm_runs_everything_once_and_an_interruption_leaves_its_jobs(
    keys: dict[str, Any], ran: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("submitit")
    slurm = SlurmPrograms(tmp_path)
    monkeypatch.setenv("PATH", f"{slurm.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(SlurmLauncher, "poll_interval_s", 0.1)
    keys = {k: v for k, v in keys.items() if k not in ("device", "parallel")}
    keys |= {"launcher": "slurm", "slurm": "partition=main,time=5", "threads": 2}
    slurm.switch("held")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SlurmLauncher, "ended", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compare(**{**keys, "seeds": 0})
    expected = "stopped with 0 of 2 runs done; the same command goes on; its Slurm jobs go on, 'scancel 1 2' ends them"
    assert expected in capsys.readouterr().err
    assert slurm.submitted() == ["plain-seed0", "distill_model-seed0"]
    slurm.end_jobs()
    slurm.switch("held", on=False)
    comparison = compare(**keys)
    assert sorted(ran()) == sorted(ALL)
    assert len(slurm.submitted()) == 2 + 4
    tasks = [json.loads(file.read_text()) for file in comparison.folder.rglob(TASK_FILE)]
    assert {(task["device"], task["threads"], task["row"]["parallel"]) for task in tasks} == {("cpu", 2, 4)}
    assert compare(**keys).text == comparison.text
    assert len(slurm.submitted()) == 2 + 4


# Really ----------------------------------------------------------------------------------------------------------


def start(keys: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Begin a comparison in a process of its own."""
    code = "import json, sys; from ds2d2_yolo.compare import compare; print(compare(**json.loads(sys.argv[1])))"
    return subprocess.Popen([sys.executable, "-c", code, json.dumps(keys)], stdout=subprocess.PIPE)


def test_one_real_run_of_an_arm(keys: dict[str, Any]) -> None:
    comparison = compare(**{**keys, "arms": "plain", "seeds": 3})
    assert {r.weights for r in comparison.summary.rows} == {"last", "best"}
    assert {"all", "size", "crowding", "orientation"} <= {r.by for r in comparison.summary.rows}
    row = comparison.summary.rows[0]
    assert (row.arm, row.seed, row.epochs_trained, row.sessions, row.parallel, row.imgsz) == ("plain", 3, 1, 1, 1, 96)
    assert row.initial_weights
    assert row.versions.startswith("ds2d2-yolo ")
    assert "| plain |          1 |" in comparison.text


@pytest.mark.slow
@pytest.mark.parametrize("task", ["obb", "detect"])
def test_real_runs_of_the_rivals(
    task: str, keys: dict[str, Any], tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path]
) -> None:
    teacher, student = PAIRS[task]
    models = {"teacher": str(checkpoint(teacher)), "student": student, "data": str(tiny_data(task))}
    comparison = compare(**{**keys, **models, "arms": "plain,pkd,cwd:tau=4,ld", "seeds": 3})
    rows = [row for row in comparison.summary.rows if row.by == "all" and row.weights == "last"]
    assert {row.arm: row.settings for row in rows} == {
        "plain": "{}",
        "pkd": '{"rival": "pkd", "weight": 10.0}',
        "cwd": '{"rival": "cwd", "tau": 4, "weight": 10.0}',
        "ld": {
            "detect": '{"rival": "ld", "temperature": 10.0, "weight": 0.25}',
            "obb": '{"rival": "ld", "temperature": 5.0, "weight": 10.0}',
        }[task],
    }
    assert len({row.initial_weights for row in rows}) == 1
    assert "Paired: the arms of a seed began with the same weights and saw the same first epoch" in comparison.text


@pytest.mark.slow
def test_real_runs_with_unlabelled_images(keys: dict[str, Any], tmp_path: Path) -> None:
    extra_keys = {"arms": "plain,ds2d2,pseudo_labels", "seeds": 3, "unlabelled": "rest", "fraction": 0.5, "imhi": 0}
    all_keys = {**keys, **extra_keys, "batch": 4}
    comparison = compare(**all_keys)
    rows = {row.arm: row for row in comparison.summary.rows if row.by == "all" and row.weights == "last"}
    assert len({(row.initial_weights, row.first_epoch) for row in rows.values()}) == 1, "the same labelled images"
    assert rows["pseudo_labels"].amplifier_seconds > 0 == rows["ds2d2"].amplifier_seconds
    (labels,) = tmp_path.rglob("pseudo-labels/data.yaml")
    written = labels.stat().st_mtime_ns
    compare(**{**all_keys, "seeds": [3, 4]})
    assert labels.stat().st_mtime_ns == written, "made once"
    with pytest.raises(BadUseError, match=r"unlabelled_conf was 0\.25, is 0\.5"):
        compare(**{**all_keys, "unlabelled_conf": 0.5})


@needs_modelopt
@pytest.mark.slow
def test_real_runs_of_quantised_students(keys: dict[str, Any]) -> None:
    comparison = compare(**{**keys, "arms": "plain,ds2d2,pkd", "seeds": 3, "quantize": 8, "imhi": 0})
    assert {row.arm for row in comparison.summary.rows} == {"plain", "ds2d2", "pkd"}
    assert "Paired: the arms of a seed began with the same weights and saw the same first epoch" in comparison.text


def test_a_precision_that_no_student_trains_in_is_refused_before_anything_runs(
    keys: dict[str, Any], ran: Callable[[], Any]
) -> None:
    with pytest.raises(BadUseError, match="quantize=16 is for export"):
        compare(**{**keys, "quantize": 16})
    assert ran() == []


def test_a_rival_that_cannot_compare_the_models_is_refused_before_anything_runs(
    keys: dict[str, Any], ran: Callable[[], Any], checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(BadUseError, match="ld compares box distributions of one number of bins above 1"):
        compare(**{**keys, "student": "yolo26n-obb.yaml", "arms": "plain,ld"})
    assert ran() == []


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_killed_comparison_goes_on_inside_its_runs(keys: dict[str, Any], tmp_path: Path) -> None:
    keys |= {"arms": "plain,ds2d2", "epochs": 12, "amplifier_epochs": 1, "parallel": 2}
    folder = tmp_path / "runs" / "compare"
    parent = start(keys)
    notes = folder / "ds2d2" / "seed0" / "watched.json"
    deadline = time.time() + 300
    while not (notes.is_file() and len(json.loads(notes.read_text())["epochs"]) >= 2):
        assert parent.poll() is None
        assert time.time() < deadline
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    time.sleep(1)
    before = json.loads(notes.read_text())
    assert not before["trained"]
    mtimes = {p.parent: p.stat().st_mtime for p in folder.rglob(RESULT_FILE)}
    resumed = start(keys)
    output = resumed.communicate(timeout=600)[0].decode()
    assert resumed.returncode == 0
    rows = read_results(folder / "results.csv")
    assert {(r.arm, r.seed) for r in rows} == {(a, s) for a in ("plain", "ds2d2") for s in (0, 1)}
    interrupted_run = next(r for r in rows if (r.arm, r.seed) == ("ds2d2", 0))
    assert (interrupted_run.sessions, interrupted_run.epochs_trained) == (2, 12)
    after = json.loads(notes.read_text())
    assert all(after["epochs"][e] == seconds for e, seconds in list(before["epochs"].items())[:-1])  # not run again
    assert all((folder / run_folder / RESULT_FILE).stat().st_mtime == mtime for run_folder, mtime in mtimes.items())
    assert "Paired: the arms of a seed began with the same weights and saw the same first epoch" in output
    assert "Cut off and gone on with" in output


def test_teacher_is_measured_at_the_size_and_in_the_way_of_the_students(
    tmp_path: Path, tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint was trained at 96 px, and the command says nothing of a size."""
    evaluate_keys: dict[str, Any] = {}
    evaluate = evaluating.evaluate
    monkeypatch.setattr(evaluating, "evaluate", lambda *a, **keys: evaluate_keys.update(keys) or evaluate(*a, **keys))
    monkeypatch.chdir(tmp_path)
    task = {
        "kind": "teacher", "threads": 1, "row": {"imgsz": 64}, "keys": {"nms": False, "epochs": 3},
        "subjects": {"teacher": str(checkpoint("yolov10n.yaml")), "data": str(tiny_data("detect"))},
    }  # fmt: skip
    rows = run_task(tmp_path, {**task, "device": "cpu"})
    assert (evaluate_keys["imgsz"], evaluate_keys["nms"], evaluate_keys["device"]) == (64, False, "cpu")
    assert rows[0]["by"] == "all"
