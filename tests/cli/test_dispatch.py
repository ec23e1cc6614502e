"""The command line: statuses, one line for each mistake, nothing trained before they are found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ds2d2_yolo import __version__
from ds2d2_yolo.cli import main, parse
from ds2d2_yolo.cli.dispatch import _drop_verbose, quoted
from ds2d2_yolo.cli.modes import MODES, load
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_types_follow_ultralytics() -> None:
    got = parse(["epochs=3", "lr0", "=", "0.5", "plots=False", "name=007", "resume", "freeze=[1,", "2]"])
    assert got == {"epochs": 3, "lr0": 0.5, "plots": False, "name": "007", "resume": True, "freeze": [1, 2]}


def test_none_is_none_where_text_is_wanted_too() -> None:
    assert parse(["out=None", "data=none", "name=None", "epochs=None"]) == dict.fromkeys(
        ("out", "data", "name", "epochs")
    )
    assert parse(["save_dir=123", "name=nonesuch"]) == {"save_dir": "123", "name": "nonesuch"}


def test_words_in_brackets_are_a_list() -> None:
    assert parse(["formats=[onnx,", "engine]", "empty=[]"]) == {"formats": ["onnx", "engine"], "empty": []}
    assert parse(["model=[a.pt, b:7,]", "name=[8,16]"]) == {"model": ["a.pt", "b:7"], "name": "[8,16]"}


@pytest.mark.parametrize("argument", ["epochs", "=3", "epochs=", "epochs=1 epochs=2"])
def test_arguments_that_are_no_settings(argument: str) -> None:
    with pytest.raises(BadUseError):
        parse(argument.split())


def test_verbose_asks_for_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run("data", "prepare", "dota", "verbose=True", capsys=capsys)
    assert status == 2
    assert "Traceback" in err
    assert "ds2d2-yolo: source= missing" in err


@pytest.mark.parametrize("mode", [mode for mode in MODES if MODES[mode].ultralytics_keys])
def test_verbose_reaches_a_mode_that_passes_it_on(mode: str) -> None:
    assert "verbose" in load(MODES[mode].ultralytics_keys)
    assert _drop_verbose(mode, ["model=a.pt", "verbose=True"]) == ["model=a.pt", "verbose=True"]


def test_short_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-v", capsys=capsys) == (0, f"{__version__}\n", "")
    assert run("-h", capsys=capsys)[1] == run("help", capsys=capsys)[1]


@pytest.mark.parametrize("mode", ["cfg", "help", "version"])
def test_modes_that_print(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(mode, capsys=capsys)
    assert (status, err) == (0, "")
    assert {"cfg": "gains: auto", "help": "ds2d2-yolo train", "version": __version__}[mode] in out


@pytest.mark.parametrize("mode", MODES)
def test_help_of_a_mode_lists_its_keys_with_default_and_range(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("help", mode), (mode, "--help")):
        status, out, _ = run(*arguments, capsys=capsys)
        assert status == 0
        assert MODES[mode].example in out
        listed = {line.split()[0].partition("=")[0] for line in out.splitlines() if line.startswith("  ")}
        assert {f.name for f in MODES[mode].option_fields()} <= listed
        assert set(MODES[mode].required) <= listed
    if mode == "train":
        assert {"teacher", "student", "data"} <= listed
        assert "  gain_schedule=constant  constant | linear | cosine  " in out
        assert set(Settings.keys()) <= listed


@pytest.mark.parametrize("mode", ["train", "check", "amplify"])
def test_help_lists_the_experimental_settings_after_the_others(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    main_part, heading, experimental = run("help", mode, capsys=capsys)[1].partition("\nExperimental settings:\n")
    assert heading
    listed = [{line.split()[0].partition("=")[0] for line in part.splitlines() if line.startswith("  ")}
              for part in (main_part, experimental)]  # fmt: skip
    for f in MODES[mode].option_fields():
        assert [f.name in names for names in listed] == [not f.metadata["experimental"], f.metadata["experimental"]]
    assert set(MODES[mode].required) <= listed[0]


def test_a_mode_without_experimental_settings_has_no_such_heading(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Experimental" not in run("help", "val", capsys=capsys)[1]


def test_help_of_data_prepare_is_that_of_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("help", "data", "prepare", capsys=capsys) == run("help", "data", capsys=capsys)


def test_the_command_that_goes_on_is_quoted_as_its_shell_wants_it() -> None:
    typed = ["ds2d2-yolo", "train", r"teacher=C:\my runs\best.pt", "epochs=3"]
    assert quoted(typed, windows=True) == r'ds2d2-yolo train "teacher=C:\my runs\best.pt" epochs=3'
    assert quoted(typed, windows=False) == r"ds2d2-yolo train 'teacher=C:\my runs\best.pt' epochs=3"


def test_help_names_every_mode(capsys: pytest.CaptureFixture[str]) -> None:
    out = run("help", capsys=capsys)[1]
    expected_modes = "train amplify check val predict export benchmark compare demo data cfg help version"
    assert set(expected_modes.split()) <= {line.split()[0] for line in out.splitlines() if line.startswith("  ")}


def test_help_loads_neither_torch_nor_ultralytics() -> None:
    code = """import sys; from ds2d2_yolo.cli import main
for mode in [[], *([m] for m in __import__('ds2d2_yolo.cli.modes').cli.modes.MODES)]: assert main(['help', *mode]) == 0
print({'torch', 'ultralytics', 'matplotlib', 'cv2'} & set(sys.modules), file=sys.stderr)"""
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, check=True)
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize(
    ("arguments", "saved", "goes_on"),
    [
        (["train", "data=my data.yaml"], True, "ds2d2-yolo train 'data=my data.yaml' resume"),
        (["train", "data=my data.yaml"], False, "ds2d2-yolo train 'data=my data.yaml'"),
        (["train", "resume"], True, "ds2d2-yolo train resume"),
        (["amplify", "data=d.yaml"], False, "ds2d2-yolo amplify data=d.yaml"),
    ],
)
def test_ctrl_c_says_how_to_go_on(
    arguments: list[str], saved: bool, goes_on: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt(*["resume"] * saved)

    monkeypatch.setattr("ds2d2_yolo.cli.dispatch.load", interrupt)
    status, _, err = run(*arguments, capsys=capsys)
    assert (status, err.strip()) == (130, f"ds2d2-yolo: interrupted; go on with: {goes_on}")


@pytest.mark.parametrize(
    ("words", "later"), [([], ", with 'resume' behind it once an epoch is saved"), (["resume"], "")]
)
def test_a_rank_of_torchrun_names_its_command(
    words: list[str], later: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr("ds2d2_yolo.cli.dispatch.load", interrupt)
    status, _, err = run("train", *words, capsys=capsys)
    assert (status, err.strip()) == (130, f"ds2d2-yolo: interrupted; go on with: the same torchrun command{later}")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process at once")
def test_sigterm_ends_like_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wait(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("ds2d2_yolo.cli.dispatch.load", wait)
    status, _, err = run("amplify", "data=d.yaml", capsys=capsys)
    assert (status, err.strip()) == (143, "ds2d2-yolo: terminated; go on with: ds2d2-yolo amplify data=d.yaml")
    assert signal.getsignal(signal.SIGTERM) is before


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
        ("tune", "data=x.yaml"): "compare settings with 'ds2d2-yolo compare'",
        ("track",): "yolo track model=best.pt",
        ("obb", "predict", "model=best.pt"): "leave 'obb' out, the model says its task: ds2d2-yolo predict",
        ("train", *good, "classes=red"): "classes=red must be numbers of classes",
        ("help", "trian"): "did you mean 'train'?",
        ("checks", "foo=1"): "'foo': checks takes no settings",
        ("cfg", "recipe=score"): "'recipe=score': cfg takes no words",
        ("version", "foo"): "'foo': version takes no words",
        ("completion", "bash", "zsh"): "'zsh': completion takes 1 word: ds2d2-yolo completion bash",
        ("data", "perpare", "dota"): "say 'ds2d2-yolo data', or",
        ("completion", "fish"): "the shells are bash, zsh",
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
    for arguments, message in cases.items():
        status, _, err = run(*arguments, capsys=capsys)
        lines = [line for line in err.splitlines() if line.startswith("ds2d2-yolo: ")]
        assert len(lines) == 1, (arguments, err)
        assert message in lines[0], (arguments, lines)
        assert status == 2, (arguments, err)
        assert "Traceback" not in err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir()), "a mistake leaves no folder"


def test_console_command_runs() -> None:
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "ds2d2_yolo", "version"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(repository)}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


def test_importing_the_package_imports_neither_torch_nor_ultralytics() -> None:
    code = "import sys, ds2d2_yolo; print({'torch', 'ultralytics'} & set(sys.modules))"
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, check=True)
    assert done.stdout.strip() == "set()"


def test_predict_under_the_installed_name(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Ultralytics looks at the command's name, and takes one that ends in 'yolo' for its own."""
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    command = ["/usr/bin/ds2d2-yolo", "predict", f"model={checkpoint('yolov8n-obb.yaml')}", f"source={tmp_path}",
               "imgsz=64", "device=cpu", f"project={tmp_path}", "name=run", "formats=csv"]  # fmt: skip
    code = f"import sys; sys.argv = {command!r}; from ds2d2_yolo.cli import entrypoint; entrypoint()"
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "detections.csv").is_file()
