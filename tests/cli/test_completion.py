"""Completion, asked of real shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ds2d2_yolo.cli.completion import SHELLS, keys_of, script, ultralytics_keys
from ds2d2_yolo.cli.modes import MODES

CASES = [
    ("", {"train", "predict", "compare", "completion"}, {"teacher="}),
    ("pre", {"predict"}, {"train"}),
    ("train te", {"teacher=", "teacher_channels="}, {"exlo="}),
    ("train epo", {"epochs="}, set()),
    ("train gain_schedule=", {"constant", "linear", "cosine"}, {"gains="}),
    ("train gain_schedule=co", {"constant", "cosine"}, {"linear"}),
    ("train wavelet=sym", {"sym4", "sym20"}, {"haar"}),
    ("train explicit=T", {"True"}, {"False"}),
    ("train cos_lr=", {"True", "False"}, set()),
    ("amplify ", {"teacher=", "wavelet="}, {"exlo="}),
    ("data p", {"prepare"}, set()),
    ("data prepare dio", {"dior", "dior-r"}, {"dota"}),
    ("help com", {"compare", "completion"}, {"train"}),
    ("train ext", set(), {"extent="}),
    ("train data=", {"d.yaml"}, {"True"}),
]


def bash(line: str, folder: Path) -> set[str]:
    """What bash offers for a line."""
    words = line.split()
    inner = " ".join(f"'{w}'" for w in ["ds2d2-yolo", *words])
    place = len(words) if line and not line.endswith(" ") else len(words) + 1
    code = f"""source script.bash
COMP_LINE='ds2d2-yolo {line}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({inner}); COMP_CWORD={place}
compopt() {{ :; }}
_ds2d2_yolo; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def zsh(line: str, folder: Path) -> set[str]:
    """What zsh offers for a line, its completion system replaced by one that prints."""
    words = line.split()
    if not line or line.endswith(" "):
        words.append("")
    quoted = " ".join(f"'{w}'" for w in words)
    code = f"""compdef() {{ :; }}
_files() {{ print -l *(N) }}
compset() {{ PREFIX=${{PREFIX#*=}} }}
compadd() {{
    local suffix=
    [[ $1 == -S ]] && {{ suffix=$2; shift 2 }}
    shift
    local word; for word in "$@"; do [[ $word == "$PREFIX"* ]] && print -r -- "$word$suffix"; done
}}
source ./script.zsh
words=(ds2d2-yolo {quoted}); CURRENT={len(words) + 1}; PREFIX='{words[-1]}'
_ds2d2_yolo"""
    done = subprocess.run(["zsh", "-f", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and a file that a path may complete to."""
    made = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        (made / f"script.{shell}").write_text(script(shell), encoding="utf-8")
    (made / "d.yaml").touch()
    return made


@pytest.mark.parametrize(("line", "offered", "not_offered"), CASES)
@pytest.mark.parametrize("shell", SHELLS)
def test_offers(shell: str, line: str, offered: set[str], not_offered: set[str], folder: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    completions = (bash if shell == "bash" else zsh)(line, folder)
    assert offered <= completions
    assert not not_offered & completions


def test_keys_are_those_that_a_mode_takes() -> None:
    assert {"teacher", "student", "epochs", "lr0", "conf"} <= set(keys_of(MODES["train"]))
    assert "lr0" not in keys_of(MODES["predict"])
    assert not {"half", "split"} & set(keys_of(MODES["benchmark"])), "benchmark passes no Ultralytics keys on"
    assert {"nms", "opset"} <= set(keys_of(MODES["export"]))
    assert "exist_ok" not in keys_of(MODES["export"])
    assert ultralytics_keys(()) == {}
    assert ultralytics_keys(("Export",))["dynamic"] == ("True", "False")
    assert {"model", "imgsz"} <= set(ultralytics_keys(("Export",)))
