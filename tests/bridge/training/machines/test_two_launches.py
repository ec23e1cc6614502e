"""The documented command for several machines, typed once for each of two 'machines' that are one, over gloo on a CPU.

gloo_command/sitecustomize.py stands in for the GPUs. The machines have folders of their own and share no file.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.docs.test_commands import commands_of
from tests.helpers.data import write_tiny_data
from tests.helpers.gloo_ranks import check_mean_gradients, check_same_state

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[4]
STAND_IN = Path(__file__).with_name("gloo_command")
SIZE = ("imgsz=64", "epochs=3", "batch=8", "nbs=8", "optimizer=AdamW", "lr0=0.001", "warmup_epochs=0", "plots=False",
        "seed=3", "amplifier_epochs=1", "name=run")  # fmt: skip
TIMEOUT = 900  # seconds of a launch


def documented(restarts: bool) -> list[str]:
    """Return the page's command for several machines, in words: variables first."""
    page = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    (command,) = [c for c in commands_of(page) if "--nnodes" in c and ("--max-restarts" in c) == restarts]
    return shlex.split(command)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@dataclass
class Machines:
    """Two folders, each as a machine has it."""

    root: Path

    @property
    def folders(self) -> list[Path]:
        return [self.root / name for name in ("first", "second")]

    def launch(self, command: list[str], *more: str, **variables: str) -> tuple[list[int], list[str]]:
        """Type a command on both machines; return their exit statuses and what they printed."""
        words = [word.replace("HOST:29500", f"127.0.0.1:{free_port()}") for word in command]
        command_variables = dict(word.split("=", 1) for word in words if re.match("[A-Z_]+=", word))
        words = [str(Path(sys.executable).with_name("torchrun")), *words[len(command_variables) + 1 :], *SIZE, *more]
        environment = {
            **os.environ, **command_variables, **variables, "OMP_NUM_THREADS": "1", "GLOO_COMMAND_OUT": str(self.root),
            "PYTHONPATH": f"{STAND_IN}:{REPOSITORY}",
        }  # fmt: skip
        running = []
        for folder in self.folders:
            arguments = [*words, f"project={folder / 'runs'}"]
            environment["YOLO_CONFIG_DIR"] = str(folder / "config")  # where amplifiers are stored
            with (folder / "log.txt").open("w", encoding="utf-8") as log:
                running.append(subprocess.Popen(arguments, cwd=folder, env=environment, stdout=log, stderr=log))
        try:
            codes = [process.wait(timeout=TIMEOUT) for process in running]
        finally:
            for process in running:
                end(process)
        return codes, [(folder / "log.txt").read_text(encoding="utf-8") for folder in self.folders]


def end(agent: subprocess.Popen[bytes]) -> None:
    """End torchrun, if it has not ended, and every rank that it leaves behind."""
    if agent.poll() is not None:
        return
    ranks = psutil.Process(agent.pid).children(recursive=True)
    agent.terminate()
    try:
        agent.wait(timeout=60)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
    for rank in ranks:
        if rank.is_running():
            rank.kill()


@pytest.fixture
def machines(tmp_path: Path, checkpoint: Callable[..., Path]) -> Machines:
    """Two machines with the files that the documented command names, the data at different paths."""
    machines = Machines(tmp_path)
    teacher, student = checkpoint("yolov8s-obb.yaml", seed=50), checkpoint("yolov8n-obb.yaml", seed=51)
    for folder in machines.folders:
        data = write_tiny_data(folder / "mount" / folder.name, "obb", images=16, size=64)
        shutil.copytree(os.environ["YOLO_CONFIG_DIR"], folder / "config", ignore=shutil.ignore_patterns("ds2d2"))
        shutil.copy(data, folder / "my-data.yaml")
        shutil.copy(teacher, folder / "best-x.pt")
        shutil.copy(student, folder / "yolov8n-obb.pt")
    return machines


def check_trained(machines: Machines, logs: list[str]) -> None:
    """Assert that all ranks ended with one model, and that rank 0 alone has written a run."""
    seen: list[dict[str, Any]] = [torch.load(machines.root / f"rank{i}.pt", weights_only=False) for i in range(4)]
    check_same_state(seen)
    check_mean_gradients(seen)
    assert len({tuple(s["files"]) for s in seen}) == 4
    printed = "".join(logs)
    assert printed.count("DS2D2: training the high-frequency amplifier") == 1
    assert printed.count("pre-flight report:") == 1
    (run,) = machines.root.glob("*/runs/*")
    (amplifier,) = machines.root.glob("*/config/Ultralytics/ds2d2/amplifiers/*.safetensors")
    assert machines.folders[0] in amplifier.parents
    names = {p.name for p in run.iterdir()}
    assert names >= {"preflight.json", "preflight.txt", "amplifier.safetensors", "results.csv", "run.json"}
    rows = (run / "results.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]
    assert {p.name for p in (run / "weights").iterdir()} == {"last.pt", "best.pt"}
    saved = torch.load(run / "weights" / "last.pt", weights_only=False)
    assert saved["epoch"] == -1
    assert {Path(s["places"][0]) for s in seen if Path(s["places"][0]).exists()} == {run}, "others were temporary"


def test_torchrun_restarts_after_a_killed_rank(machines: Machines) -> None:
    codes, logs = machines.launch(documented(restarts=True), GLOO_COMMAND_KILL="3:1")
    assert codes == [0, 0], "".join(log[-3000:] for log in logs)
    assert (machines.root / "killed").exists()
    assert "".join(logs).count("DS2D2: torchrun has restarted the run") == 1
    check_trained(machines, logs)


def test_the_same_command_resumes_after_a_killed_rank(machines: Machines) -> None:
    codes, logs = machines.launch(documented(restarts=False), GLOO_COMMAND_KILL="2:1")
    assert 0 not in codes
    assert not list(machines.root.glob("rank*.pt"))
    codes, more = machines.launch([*documented(restarts=False), "resume"])
    assert codes == [0, 0], "".join(log[-3000:] for log in more)
    assert "Resuming training" in more[0]
    check_trained(machines, [*logs, *more])


@pytest.mark.parametrize("mistake", ["an image less", "no data", "another student"])
def test_different_machines_are_refused_by_all_ranks(mistake: str, machines: Machines) -> None:
    second = machines.folders[1]
    if mistake == "an image less":
        next(second.glob("mount/second/images/train/*")).unlink()
    elif mistake == "no data":
        (second / "my-data.yaml").unlink()
    else:
        (second / "yolov8n-obb.pt").write_bytes((second / "best-x.pt").read_bytes())
    reason = {
        "an image less": r"the machines differ in training images: 16 on machine 0 \(.*\), 15 on machine 1 \(.*\): g",
        "no data": r"(machine 1 \(.*\): )?data=my-data.yaml: .*my-data.yaml.* does not exist",
        "another student": r"the machines differ in student: \w{12} on machine 0 \(.*\), \w{12} on machine 1",
    }[mistake]
    codes, logs = machines.launch(documented(restarts=False))
    assert 0 not in codes
    for log in logs:
        (line, *others) = {line for line in log.splitlines() if line.startswith("ds2d2-yolo: ")}
        assert not others
        assert re.match(f"ds2d2-yolo: {reason}", line), line
        assert "pre-flight report" not in log
    assert not list(machines.root.rglob("run.json"))
