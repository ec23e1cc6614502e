"""The GPU check: a piece that crashes, hangs or is cut leaves the others and its figures; the small form runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
PLANTED = """
import os, subprocess, sys, time
from pathlib import Path
from gpu_pieces.runner import Skip

def passes(options, save):
    with open(options["counter"], "a") as file:
        file.write("x")
    return {"size": options["size"], "rows": {"a": {"ms": 2.0}, "b": {"ms": 300.0, "reason": "x|y"}}}

def raises(options, save):
    save({"half": 1})
    raise ValueError("no such thing\\nand more")

def dies(options, save):
    save({"half": 1})
    os._exit(3)

def hangs(options, save):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    save({"sleeper": sleeper.pid})
    time.sleep(600)

def skips(options, save):
    raise Skip("no engine here")

def needs_file(options, save):
    return {"text": Path(options["file"]).read_text()}
"""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The runner, whose pieces find the planted functions."""
    monkeypatch.syspath_prepend(str(TOOLS))
    (tmp_path / "planted.py").write_text(PLANTED, encoding="utf-8")
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    from gpu_pieces import runner

    return runner


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"size": 7, "counter": str(tmp_path / "counter"), "file": str(tmp_path / "wanted.txt")}


def planted(gpu: Any, *names: str, **keys: Any) -> list[Any]:
    return [gpu.Piece(name, f"planted:{name}", **{"seconds": 60, "needs_cuda": False, **keys}) for name in names]


def stored(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))


def test_each_end_of_a_piece_is_told_apart(gpu: Any, options: dict[str, Any], tmp_path: Path) -> None:
    reported = []
    pieces = planted(gpu, "raises", "dies", "skips", "passes")
    gpu.run_all(pieces, options, tmp_path, 600, cuda=False, revision="abc", report=lambda *x: reported.append(x))
    assert [name for name, outcome in reported if outcome is None] == ["raises", "dies", "skips", "passes"]
    results = {name: stored(tmp_path, name) for name in ("raises", "dies", "skips", "passes")}
    assert {name: (r["status"], r["reason"]) for name, r in results.items()} == {
        "raises": ("failed", "ValueError: no such thing"),
        "dies": ("failed", "its process ended with status 3"),
        "skips": ("skipped", "no engine here"),
        "passes": ("ok", ""),
    }
    assert results["raises"]["figures"] == results["dies"]["figures"] == {"half": 1}
    assert results["passes"]["figures"]["size"] == 7
    assert all(r["revision"] == "abc" and r["seconds"] > 0 for r in results.values())
    assert "and more" in (tmp_path / "raises.log").read_text(encoding="utf-8")


def test_a_hang_is_ended_with_all_that_it_started(gpu: Any, options: dict[str, Any], tmp_path: Path) -> None:
    outcome = gpu.run_piece(planted(gpu, "hangs")[0], options, tmp_path, 10, None)
    assert (outcome.status, outcome.reason) == ("timeout", "killed after 10 s")
    assert not_running(outcome.figures["sleeper"])


def not_running(process: int) -> bool:
    """Whether a process is gone, or killed and not yet collected by its new parent."""
    for _ in range(50):
        try:
            if psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


def test_a_second_run_does_what_is_not_done(gpu: Any, options: dict[str, Any], tmp_path: Path) -> None:
    pieces = planted(gpu, "passes", "needs_file")

    def run(*again: str) -> None:
        gpu.run_all(pieces, options, tmp_path, 600, cuda=False, again=again)

    run()
    assert stored(tmp_path, "needs_file")["status"] == "failed"
    Path(options["file"]).write_text("here", encoding="utf-8")
    run()
    assert stored(tmp_path, "needs_file")["figures"] == {"text": "here"}
    assert Path(options["counter"]).read_text() == "x", "a piece that was ok ran twice"
    run("passes")
    assert Path(options["counter"]).read_text() == "xx"


def test_new_pieces_come_before_those_that_failed(gpu: Any, tmp_path: Path) -> None:
    failed, cut, ok, new = pieces = planted(gpu, "failed", "cut", "ok", "new")
    for piece, status in ((failed, "timeout"), (cut, "unfinished"), (ok, "ok")):
        text = json.dumps({"status": status, "figures": {"half": 1}})
        (tmp_path / f"{piece.name}.json").write_text(text, encoding="utf-8")
    assert gpu.queue_of(pieces, tmp_path, []) == [new, failed, cut]
    assert gpu.queue_of(pieces, tmp_path, ["ok"]) == [ok, new, failed, cut]
    lacked = json.dumps({"status": "skipped", "reason": "needs CUDA"})
    (tmp_path / "ok.json").write_text(lacked, encoding="utf-8")
    assert gpu.queue_of(pieces, tmp_path, []) == [new, failed, cut, ok]
    left = gpu.load_outcome(tmp_path, "cut")
    assert (left.status, left.reason, left.figures) == ("failed", "cut before its end", {"half": 1})


def test_a_spent_budget_starts_nothing_but_skips(gpu: Any, options: dict[str, Any], tmp_path: Path) -> None:
    pieces = [*planted(gpu, "passes"), *planted(gpu, "dies", needs_cuda=True)]
    gpu.run_all(pieces, options, tmp_path, 0, cuda=False)
    assert not (tmp_path / "passes.json").exists()
    assert (stored(tmp_path, "dies")["status"], stored(tmp_path, "dies")["reason"]) == ("skipped", "needs CUDA")


def test_a_piece_gets_no_more_than_the_remaining_time(
    gpu: Any, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def record(piece: Any, options: Any, folder: Path, limit: float, revision: Any) -> Any:
        limits.append(limit)
        return gpu.Outcome("ok")

    monkeypatch.setattr(gpu, "run_piece", record)
    gpu.run_all(planted(gpu, "a", "b", seconds=20), options, tmp_path, 12, cuda=False)
    assert all(11 < limit <= 12 for limit in limits)
    assert len(limits) == 2


def test_tables(gpu: Any, options: dict[str, Any], tmp_path: Path) -> None:
    from gpu_pieces.table import write_summary

    pieces = planted(gpu, "passes", "dies", "never")
    gpu.run_all(pieces[:2], options, tmp_path, 600, cuda=False)
    write_summary(pieces, tmp_path, {"GPU": "none", "torch": "2.15"})
    merged = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert merged["environment"] == {"GPU": "none", "torch": "2.15"}
    assert merged["pieces"]["passes"]["figures"]["size"] == 7
    assert merged["pieces"]["never"] is None
    text = (tmp_path / "gpu_check.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("GPU none, torch 2.15\n")
    assert cells[2][:2] == ["passes", "ok"]
    assert cells[2][3] == "size 7"
    assert cells[3][:2] == ["dies", "failed: its process ended with status 3"]
    assert cells[4] == ["never", "not run", "-", ""]
    assert cells[5:] == [["passes", "ms", "reason"], cells[6], ["a", "2", "-"], ["b", "300", "x/y"]]


def test_a_killed_tool_ends_its_piece(gpu: Any, options: dict[str, Any], tmp_path: Path) -> None:
    script = (
        "import sys, gpu_check; from gpu_pieces.runner import Piece, run_all; from pathlib import Path;"
        "import signal; signal.signal(signal.SIGTERM, gpu_check._end);"
        "run_all([Piece('hangs', 'planted:hangs', 300, needs_cuda=False)], {}, Path(sys.argv[1]), 300, False)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOOLS), str(ROOT), os.environ["PYTHONPATH"]])}
    tool = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=env)
    while not ((outcome := gpu.load_outcome(tmp_path, "hangs")) and outcome.figures):
        assert tool.poll() is None
        time.sleep(0.1)
    tool.send_signal(signal.SIGTERM)
    assert tool.wait(30) == 143
    assert not_running(outcome.figures["sleeper"])
    assert gpu.load_outcome(tmp_path, "hangs").reason == "cut before its end"


def test_pieces_are_functions_that_exist(gpu: Any) -> None:
    import gpu_check

    names = [piece.name for piece in gpu_check.PIECES]
    assert len(set(names)) == len(names)
    for piece in (*gpu_check.PIECES, gpu_check.ENVIRONMENT):
        module, function = piece.function.split(":")
        text = (TOOLS / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        assert f"\ndef {function}(options: Mapping[str, Any], save: Save)" in text


def test_other_data_need_their_teacher(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu_check

    with pytest.raises(SystemExit):
        gpu_check.main(["out", "--data", "hit-uav.yaml"])
    assert "--data needs --teacher" in capsys.readouterr().err


def test_a_folder_holds_the_results_of_one_set_of_options(
    gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu_check

    options = {"data": None, "teacher": None, "student": None, "imgsz": 640, "batch": 16}
    stored = {**options, "small": False, "device": "0"}
    (tmp_path / "options.json").write_text(json.dumps(stored), encoding="utf-8")
    assert gpu_check.main([str(tmp_path), "--small"]) == 2
    assert "holds results of small False, device 0: choose another folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_small_form(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "gpu_check.py"), str(tmp_path), "--small"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    merged = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert merged["environment"]["GPU"] == "none"
    ran = {name: piece for name, piece in merged["pieces"].items() if piece["reason"] != "needs CUDA"}
    assert {name: piece["status"] for name, piece in ran.items()} == dict.fromkeys(
        ("cost_640", "resume", "cost_1024", "float32"), "ok"
    )
    assert ran["resume"]["figures"]["epochs"] == [1, 2]
    assert ran["float32"]["figures"]["steps"] == 2
    for name in ("cost_640", "cost_1024"):
        rows = ran[name]["figures"]["rows"]
        assert rows["plain student"]["over plain student"] == rows["floor"]["over floor"] == 1
        assert rows["all four terms"]["FLOPs say"] > 1
    assert done.stdout.endswith((tmp_path / "gpu_check.md").read_text(encoding="utf-8") + "\n")
