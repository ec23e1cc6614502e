"""Files that try to run code, and names that try to be commands."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.data.utils import check_det_dataset, load_dataset_cache_file
from ultralytics.nn import tasks

from ds2d2_yolo import distill
from ds2d2_yolo.bridge.data.security import FLAG, refuse_code_in_data, safe_loading, safe_loading_active
from ds2d2_yolo.cli import main
from ds2d2_yolo.config.resources import resource_dir
from ds2d2_yolo.errors import BadUseError
from tests.helpers.data import write_tiny_data

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit")  # of a file that is no TorchScript
PACKAGE = Path(__file__).resolve().parents[1] / "ds2d2_yolo"
TINY = """nc: 2
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
head:
  - [[2, 3, 4], 1, OBB, [nc, 1]]
"""
NAMES = [
    "with space", "it's", 'say "hi"', "semi;colon", "a&b|c", "$(touch victim)", "`touch victim`", "-dash", "--help",
    "ünï目", "per%cent", "[brackets]", "{braces}", "star*", "x=y", "#hash",
]  # fmt: skip


class Payload:
    """Creates a file when it is unpickled.

    Args:
        victim (Path): The file, under a test's own folder.
    """

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.victim), "w")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[..., Path]) -> dict[str, Path]:
    """A model YAML that is built at once, an untrained checkpoint of it, and oriented data."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny-obb.yaml").write_text(TINY, encoding="utf-8")
    data = write_tiny_data(folder / "data", "obb", images=2, size=64)
    return {"yaml": folder / "tiny-obb.yaml", "pt": checkpoint(str(folder / "tiny-obb.yaml")), "data": data,
            "image": data.parent / "images" / "val" / "0.png"}  # fmt: skip


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """The file that must not come to be."""
    return tmp_path / "victim"


def one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command and return its status and its one line."""
    status = main(arguments)
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("ds2d2-yolo: ")]
    assert len(lines) == (status != 0), lines
    assert "verbose=True" not in "".join(lines)
    return status, "".join(lines)


def commands(tiny: dict[str, Path], folder: Path, **changed: Path) -> dict[str, list[str]]:
    """Return a good command of every mode that loads a checkpoint or data; `changed` names other files for keys."""
    files = {"teacher": tiny["pt"], "student": tiny["yaml"], "model": tiny["pt"], "data": tiny["data"], **changed}
    run = [f"project={folder / 'runs'}", "device=cpu", "imgsz=64", "workers=0"]
    pair = [f"{k}={files[k]}" for k in ("teacher", "student", "data")]
    model = [f"{k}={files[k]}" for k in ("model", "data")]
    return {
        "train": ["train", *pair, *run, "epochs=1", "plots=False"],
        "check": ["check", *pair, *run],
        "amplify": ["amplify", pair[0], pair[2], "device=cpu", "imgsz=64", "workers=0", "epochs=1"],
        "compare": ["compare", *pair, *run, "seeds=0"],
        "val": ["val", *model, *run, "plots=False"],
        "predict": ["predict", model[0], f"source={tiny['image']}", *run[:3]],
        "export": ["export", *model, "imgsz=64", "format=torchscript"],
        "benchmark": ["benchmark", *model, "imgsz=64", f"out={folder / 'runs'}", "formats=pt"],
        "explain": ["explain", pair[0], f"student={files.get('explained', tiny['pt'])}", pair[2], *run[:3]],
    }


# Checkpoints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["train", "check", "amplify", "compare", "val", "predict", "export", "benchmark", "explain"]
)
def test_safe_runs_nothing_of_a_checkpoint(
    mode: str, tiny: dict[str, Path], victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = tmp_path / "evil.pt"
    torch.save({**torch.load(tiny["pt"], weights_only=False), "extra": Payload(victim)}, evil)
    pairs = {
        "explain": ("teacher", "explained"),
        **dict.fromkeys(("train", "check", "compare"), ("teacher", "student")),
    }
    for key in pairs.get(mode, ("teacher", "model")):
        command = commands(tiny, tmp_path, **{key: evil})[mode]
        if not any(str(evil) in word for word in command):
            continue
        status, line = one_line([*command, "safe=True"], capsys)
        assert (status, victim.exists()) == (2, False), line
        assert str(evil) in line
        assert "outside the supported Ultralytics checkpoint format" in line
    assert not (tmp_path / "runs").exists()
    assert not safe_loading_active(), "it ends with the command"


def test_safe_resumes_nothing_of_a_stranger(
    tiny: dict[str, Path], victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = tmp_path / "last.pt"
    torch.save({"model": None, "train_args": {}, "epoch": 0, "extra": Payload(victim)}, evil)
    status, line = one_line(["train", f"resume={evil}", "safe=True"], capsys)
    assert (status, victim.exists()) == (2, False), line
    status, line = one_line(["train", f"resume={evil}"], capsys)
    assert victim.exists(), "this is what a .pt of a stranger can do: docs/safety.md says so"


def test_what_a_checkpoint_can_do_without_it(
    tiny: dict[str, Path], victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = tmp_path / "evil.pt"
    torch.save({"model": None, "extra": Payload(victim)}, evil)
    assert one_line(commands(tiny, tmp_path, model=evil)["val"], capsys)[0] == 2
    assert victim.exists(), "docs/safety.md says so"


def test_the_environment_alone_restricts_checkpoints(tiny: dict[str, Path], victim: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.pt"
    torch.save({"model": None, "extra": Payload(victim)}, evil)
    command = [sys.executable, "-m", "ds2d2_yolo", *commands(tiny, tmp_path, model=evil)["val"]]
    env = {**os.environ, FLAG: "1", "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, victim.exists()) == (2, False), done.stderr


def test_processes_that_are_started_meanwhile_are_restricted_too() -> None:
    code = "from ultralytics.nn import tasks; print(tasks._SafeLoad.restricted())"
    assert FLAG not in os.environ
    with safe_loading(True):
        assert safe_loading_active()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
    assert FLAG not in os.environ
    assert not tasks.SAFE_LOAD


def test_no_process_is_started_with_an_environment_without_it() -> None:
    """Every `env=` of the package is made of `os.environ`: DDP, compare, benchmark, torchrun."""
    for file, tree in trees():
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            for keyword in (k for k in call.keywords if k.arg == "env"):
                text = ast.unparse(keyword.value)
                made = [ast.unparse(n.value) for n in ast.walk(tree) if isinstance(n, ast.Assign)
                        and ast.unparse(n.targets[0]) == text]  # fmt: skip
                assert any("os.environ" in t for t in [text, *made]), f"{file}: env={text}"


def test_an_old_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks._SafeLoad, "SUPPORTED", False)
    with pytest.raises(BadUseError, match=r"safe=True needs torch 2\.6"), safe_loading(True):
        pass


def test_sound_files_work_safely(tiny: dict[str, Path], tmp_path: Path, tiny_settings: dict[str, Any]) -> None:
    keys = {**tiny_settings, "imgsz": 64, "amplifier_epochs": 1, "safe": True}
    distill(tiny["pt"], tiny["yaml"], tiny["data"], **keys)
    best = tmp_path / "runs" / "run" / "weights" / "best.pt"
    assert main(commands(tiny, tmp_path, model=best)["predict"] + ["safe=True"]) == 0
    refuse_code_in_data(str(tiny["data"]))  # with the label caches that Ultralytics wrote
    assert list(tiny["data"].parent.rglob("*.cache"))


@pytest.mark.parametrize("name", ["model.torchscript", "model.engine", "model.mlpackage", "model_openvino_model/"])
@pytest.mark.parametrize("mode", ["val", "predict"])
def test_safe_takes_no_programs(
    mode: str, name: str, tiny: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    file.mkdir() if name.endswith("/") else file.write_bytes(b"program")
    status, line = one_line([*commands(tiny, tmp_path, model=file)[mode], "safe=True"], capsys)
    assert (status, "may hold a program" in line) == (2, True), line
    with safe_loading(True):  # as under the environment alone, which is about checkpoints
        assert "may hold a program" not in one_line(commands(tiny, tmp_path, model=file)[mode], capsys)[1]


# Model YAMLs ---------------------------------------------------------------------------------------------------------


def test_a_model_yaml_is_evaluated_and_safe_refuses_it(
    tiny: dict[str, Path], victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = tmp_path / "evil-obb.yaml"
    activation = f"torch.nn.SiLU() if open({str(victim)!r}, 'w') else None"
    evil.write_text(f"{TINY}activation: {activation!r}\n", encoding="utf-8")
    command = commands(tiny, tmp_path, student=evil)["check"]
    status, line = one_line([*command, "safe=True"], capsys)
    assert (status, victim.exists()) == (2, False), line
    assert "unsupported activation" in line
    assert main(command) == 0
    assert victim.exists(), "docs/safety.md says so"


def test_safe_takes_layers_alone_from_a_model_yaml(
    tiny: dict[str, Path], victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(Payload(victim), tmp_path / "evil.pt")
    evil = tmp_path / "evil-obb.yaml"
    layer = f"  - [-1, 1, torch_safe_load, [{str(tmp_path / 'evil.pt')!r}]]\nhead:"
    evil.write_text(TINY.replace("head:", layer), encoding="utf-8")
    command = commands(tiny, tmp_path, student=evil)["check"]
    status, line = one_line([*command, "safe=True"], capsys)
    assert (status, victim.exists()) == (2, False), line
    assert "not a permitted model layer" in line


def test_the_yaml_in_a_checkpoint_counts_too(
    tiny: dict[str, Path], victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = torch.load(tiny["pt"], weights_only=False)
    stored["model"].yaml["activation"] = f"torch.nn.SiLU() if open({str(victim)!r}, 'w') else None"
    torch.save(stored, tmp_path / "evil.pt")
    command = commands(tiny, tmp_path, student=tmp_path / "evil.pt")["check"]
    status, line = one_line([*command, "safe=True"], capsys)
    assert (status, victim.exists()) == (2, False), line
    assert "which is run as code" in line
    tame = torch.nn.LeakyReLU.__name__
    stored["model"].yaml["activation"] = f"nn.{tame}(0.1)"
    torch.save(stored, tmp_path / "tame.pt")
    assert main([*commands(tiny, tmp_path, student=tmp_path / "tame.pt")["check"], "safe=True"]) == 0


# Data ----------------------------------------------------------------------------------------------------------------


def with_download(tiny: dict[str, Path], file: Path, download: str) -> Path:
    """Write the tiny data's YAML with a `download:`, its validation images missing."""
    text = tiny["data"].read_text(encoding="utf-8").replace("val: images/val", "val: images/nowhere")
    file.write_text(f"{text}download: |\n  {download}\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("mode", ["train", "check", "amplify", "compare", "val", "export", "benchmark", "explain"])
@pytest.mark.parametrize("kind", ["code", "archive"])
def test_safe_takes_no_download(
    mode: str, kind: str, tiny: dict[str, Path], victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = {"code": f"open({str(victim)!r}, 'w')", "archive": "https://example.invalid/data.zip"}[kind]
    evil = with_download(tiny, tmp_path / "evil.yaml", code)
    status, line = one_line([*commands(tiny, tmp_path, data=evil)[mode], "safe=True"], capsys)
    assert (status, victim.exists()) == (2, False), line
    assert f"data={evil} has a 'download:'" in line
    assert not (tmp_path / "runs").exists()


def test_what_a_data_yaml_can_do_without_it(tiny: dict[str, Path], victim: Path, tmp_path: Path) -> None:
    check_det_dataset(with_download(tiny, tmp_path / "evil.yaml", f"open({str(victim)!r}, 'w')"))
    assert victim.exists(), "docs/safety.md says so"


def test_the_data_that_a_checkpoint_names_counts_too(
    tiny: dict[str, Path], victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = with_download(tiny, tmp_path / "evil.yaml", f"open({str(victim)!r}, 'w')")
    stored = torch.load(tiny["pt"], weights_only=False)
    torch.save({**stored, "train_args": {**stored["train_args"], "data": str(evil)}}, tmp_path / "best.pt")
    command = [w for w in commands(tiny, tmp_path, model=tmp_path / "best.pt")["val"] if not w.startswith("data=")]
    status, line = one_line([*command, "safe=True"], capsys)
    assert (status, victim.exists()) == (2, False), line
    assert "has a 'download:'" in line


def test_packaged_yamls_may_have_code_and_copies_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_code_in_data("aerial-scenes.yaml")
    refuse_code_in_data("aerial-scenes")
    refuse_code_in_data("dota.yaml")
    copy = shutil.copyfile(resource_dir("data") / "aerial-scenes.yaml", tmp_path / "aerial-scenes.yaml")
    with pytest.raises(BadUseError, match="has a 'download:'"):
        refuse_code_in_data(str(copy))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadUseError, match="has a 'download:'"):
        refuse_code_in_data("aerial-scenes.yaml")  # the working directory's own comes first


@pytest.mark.parametrize(
    "name", ["https://example.invalid/data.yaml", "https://example.invalid/data.zip", "data.zip", "data.ndjson",
             "folder", "nowhere.yaml", "coco8.yaml"],
)  # fmt: skip
def test_safe_wants_a_yaml_on_this_machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "data.ndjson").write_text("{}", encoding="utf-8")
    with pytest.raises(BadUseError, match="is no data YAML on this machine"):
        refuse_code_in_data(name)


def test_an_archive_with_the_name_of_a_yaml(tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_text("train: a\nval: b\n", encoding="utf-8")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("data.yaml", "download: 'x'\n")
    with pytest.raises(BadUseError, match="is an archive with the name of a YAML"):
        refuse_code_in_data(str(file))


@pytest.mark.parametrize("how", ["array", "pickle"])
def test_label_caches_are_pickles(how: str, victim: Path, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data", "obb", images=1, size=64)
    cache = data.parent / "labels" / "train.cache"
    with cache.open("wb") as file:  # a name of its own, np.save would add its suffix
        if how == "array":
            np.save(file, np.array({"labels": Payload(victim)}), allow_pickle=True)
        else:
            torch.save(Payload(victim), file, _use_new_zipfile_serialization=False)
    with pytest.raises(BadUseError, match=r"train\.cache is no label cache of Ultralytics .*: remove it"):
        refuse_code_in_data(str(data))
    assert not victim.exists()
    if how == "array":
        load_dataset_cache_file(cache)
        assert victim.exists(), "docs/safety.md says so"


@pytest.mark.parametrize("where", ["no val split", "linked folder", "dot file"])
def test_no_label_cache_is_unpickled_wherever_it_lies(
    where: str, tiny: dict[str, Path], victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_tiny_data(tmp_path / "data", "obb", images=2, size=64)
    root, split = data.parent, "test" if where == "no val split" else "val"
    images = root / "images" / "val"
    cache = root / "labels" / "val.cache"
    if where == "no val split":
        data.write_text(data.read_text().replace("val: images/val", "val: images/none\ntest: images/val"))
    elif where == "linked folder":  # whose first image decides which cache is read
        shutil.copytree(images, tmp_path / "store")
        (images / "-").symlink_to(tmp_path / "store", target_is_directory=True)
        shutil.copytree(root / "labels" / "val", root / "labels" / "val" / "-")
        cache = root / "labels" / "val" / "-.cache"
    else:
        for kind, name in (("images", ".png"), ("labels", ".txt")):
            first = next((root / kind / "val").glob("*.*"))
            (root / kind / "val" / "-").mkdir()
            shutil.copy(first, root / kind / "val" / "-" / name)
        entry, cache = "images/list.txt", root / "labels" / "val" / "-.cache"
        (root / entry).write_text("\n".join(["./val/-/.png", *(f"./val/{x.name}" for x in images.glob("*.png"))]))
        data.write_text(data.read_text().replace("val: images/val", f"val: {entry}"))
    with cache.open("wb") as file:
        np.save(file, np.array({"labels": Payload(victim)}), allow_pickle=True)
    command = ["val", f"model={tiny['pt']}", f"data={data}", f"split={split}", "imgsz=64", "batch=2", "workers=0"]
    main([*command, "device=cpu", "plots=False", f"project={tmp_path / 'runs'}", "safe=True"])
    assert not victim.exists(), capsys.readouterr()


# Other YAMLs and names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "key"), [("train", "recipe"), ("train", "cfg"), ("train", "data"), ("train", "student"),
                      ("compare", "arms"), ("val", "data")],
)  # fmt: skip
def test_tags_of_yaml_make_nothing(
    mode: str, key: str, tiny: dict[str, Path], victim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = tmp_path / "evil.yaml"
    evil.write_text(f"!!python/object/apply:builtins.open [{str(victim)!r}, w]\n", encoding="utf-8")
    command = [w for w in commands(tiny, tmp_path)[mode] if not w.startswith(f"{key}=")]
    status, line = one_line([*command, f"{key}={evil}"], capsys)
    assert (status, victim.exists()) == (2, False), line


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_names(
    name: str,
    tiny: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.pt").write_bytes(tiny["pt"].read_bytes())
    Path(f"{name}.yaml").write_bytes(tiny["data"].read_bytes())
    Path(f"{name}-obb.yaml").write_text(TINY, encoding="utf-8")
    Path(f"{name}.png").write_bytes(tiny["image"].read_bytes())
    keys = {k: Path(f"{name}{s}") for k, s in (("teacher", ".pt"), ("student", "-obb.yaml"), ("data", ".yaml"))}
    before = sorted(tmp_path.iterdir())
    made = commands(tiny, tmp_path, **keys, model=keys["teacher"])
    for mode in ("check", "predict"):
        command = [f"source={name}.png" if w.startswith("source=") else w for w in made[mode]]
        status, line = one_line([*command, *(["save=False"] if mode == "predict" else [])], capsys)
        assert status in (0, 2), line
        assert status == 0 or name in line, line
    assert [f for f in sorted(tmp_path.iterdir()) if f.name != "runs"] == before, "no name was a command"


@pytest.mark.parametrize("name", ["a\nb", "a\r", "\n", "a\0b", "a\u2028b", " "])
@pytest.mark.parametrize("key", ["teacher", "student", "data", "recipe", "amplifier"])
def test_a_path_is_one_line(
    key: str, name: str, tiny: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [w for w in commands(tiny, tmp_path)["train"] if not w.startswith(f"{key}=")]
    status, line = one_line([*command, f"{key}={name}"], capsys)
    assert status == 2
    assert f"{key}={name!r} must be" in line


def trees() -> list[tuple[Path, ast.Module]]:
    """Return the package's modules, parsed."""
    return [(f, ast.parse(f.read_text(encoding="utf-8"))) for f in sorted(PACKAGE.rglob("*.py"))]


def test_no_shell_and_no_evaluation_in_the_package() -> None:
    banned = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.startfile", "subprocess.getoutput",
              "subprocess.getstatusoutput", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "pickle.load",
              "torch.load"}  # fmt: skip
    violations = []
    for file, tree in trees():
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            name = ast.unparse(call.func)
            shell = any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in call.keywords)
            if name in banned or name.startswith(("os.spawn", "os.exec")) or shell:
                violations.append(f"{file.name}:{call.lineno} {name}")
            if name == "pickle.loads" and file.name != "loader_state.py":  # between a loader and its own workers
                violations.append(f"{file.name}:{call.lineno} {name}")
            if name.startswith("subprocess.") and call.args and isinstance(call.args[0], (ast.Constant, ast.JoinedStr)):
                violations.append(f"{file.name}:{call.lineno} a command in one text")
    assert not violations
