"""The command line: statuses, one line for each mistake, nothing trained before they are found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ds2d2_yolo import __version__
from ds2d2_yolo.cli import main, parse
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.settings import Settings


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_types_follow_ultralytics() -> None:
    got = parse(["epochs=3", "lr0", "=", "0.5", "plots=False", "name=007", "resume", "freeze=[1,", "2]"])
    assert got == {"epochs": 3, "lr0": 0.5, "plots": False, "name": "007", "resume": True, "freeze": [1, 2]}


@pytest.mark.parametrize("argument", ["epochs", "=3", "epochs=", "epochs=1 epochs=2"])
def test_arguments_that_are_no_settings(argument: str) -> None:
    with pytest.raises(BadUseError):
        parse(argument.split())


@pytest.mark.parametrize("mode", ["cfg", "help", "version"])
def test_modes_that_print(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(mode, capsys=capsys)
    assert (status, err) == (0, "")
    assert {"cfg": "gains: auto", "help": "ds2d2-yolo train", "version": __version__}[mode] in out


@pytest.mark.parametrize("mode", ["train", "demo"])
def test_help_of_a_mode_lists_its_settings(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    from ds2d2_yolo.demo.plan import DemoSettings

    keys = Settings.keys() if mode == "train" else set(DemoSettings.__dataclass_fields__) - {"verbose", "resume"}
    for arguments in (("help", mode), (mode, "--help")):
        status, out, _ = run(*arguments, capsys=capsys)
        assert status == 0
        assert set(keys) <= {line.split()[0] for line in out.splitlines() if line.startswith("  ")}


def test_mistakes_are_one_line_with_status_2(
    capsys: pytest.CaptureFixture[str],
    checkpoint: Callable[..., Path],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    teacher, detect, data = checkpoint("yolov8s-obb.yaml"), checkpoint("yolov8s.yaml"), tiny_data("obb")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not a checkpoint")
    student = "student=yolov8n-obb.yaml"
    good = [f"teacher={teacher}", student, f"data={data}", f"project={tmp_path / 'runs'}", "device=cpu"]
    cases = {
        ("trian",): "did you mean 'train'?",
        ("train",): "teacher=, student=, data= missing",
        ("train", *good, "epoch=3"): "'epoch' (did you mean 'epochs'?)",
        ("train", *good, "exlo=-1", "wavelet=har"): "of at least 0, or None; wavelet='har'",
        ("train", *good, "model=x.pt"): "model= is student= here",
        ("train", "teacher=nowhere.pt", *good[1:]): "nowhere.pt",
        ("train", f"teacher={broken}", *good[1:]): "cannot be read as an Ultralytics checkpoint",
        ("train", f"teacher={detect}", *good[1:]): "is a model for detect, the student one for obb",
        ("train", good[0], "student=nowhere.yaml", *good[2:]): "student=nowhere.yaml",
        ("train", *good[:2], "data=nowhere.yaml", *good[3:]): "nowhere.yaml",
        ("train", *good, "imgsz=abc"): "imgsz=abc must be",
        ("train", *good, "epochs=many"): "epochs",
        ("train", *good, "mosaic=3"): "mosaic",
        ("train", good[0], "student=rtdetr-l.yaml", *good[2:]): "student=rtdetr-l.yaml is an RT-DETR model",
        ("train", good[0], "student=yolov8n-seg.yaml", *good[2:]): "is a segmentation model",
        ("train", *good, "resume"): "start the same command again without 'resume'",
        ("train", *good, f"resume={broken}"): "cannot be read",
        ("train", *good, f"amplifier={broken}"): "amplifier=",
        ("train", *good, "amplifier=none.safetensors"): "does not exist",
        ("train", *good, "recipe=retina-dota"): "did you mean 'retinanet-dota'",
        ("train", *good, "levels=[8,12]"): "share the strides 8, 16, 32",
        ("check", *good, "resume"): "resume= has no meaning here",
        ("check", *good, "cfg=own.yaml"): "cfg= is read by a training only",
        ("check", *good[:2]): "data= missing: ds2d2-yolo check",
        ("amplify", good[0], good[2], "epoch=3"): "'epoch' (did you mean 'epochs'?)",
        ("amplify", good[0], good[2], "project=x"): "project= has no meaning for an amplifier",
        ("amplify", good[0]): "data= missing: ds2d2-yolo amplify",
    }
    for arguments, said in cases.items():
        status, _, err = run(*arguments, capsys=capsys)
        lines = [line for line in err.splitlines() if line.startswith("ds2d2-yolo: ")]
        assert len(lines) == 1, (arguments, err)
        assert said in lines[0], (arguments, lines)
        assert status == 2, (arguments, err)
        assert "Traceback" not in err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir()), "a mistake leaves no folder"


def test_console_command_runs() -> None:
    repository = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "ds2d2_yolo", "version"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(repository)}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


def test_importing_the_package_imports_neither_torch_nor_ultralytics() -> None:
    code = "import sys, ds2d2_yolo; print({'torch', 'ultralytics'} & set(sys.modules))"
    repository = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, check=True)
    assert done.stdout.strip() == "set()"
