"""Every command of the pages and of the README is accepted by the command line, or says why it is not checked."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ultralytics.cfg import get_cfg

from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
from ds2d2_yolo.cli import main, parse
from ds2d2_yolo.cli.completion import DATASETS, keys_of
from ds2d2_yolo.cli.modes import MODES, load
from ds2d2_yolo.compare.options import CompareOptions
from ds2d2_yolo.compare.plan import ComparePlan
from ds2d2_yolo.config.options import check_keys
from ds2d2_yolo.config.recipes import resolve_settings
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
INLINE = re.compile(r"`(ds2d2-yolo \w[^`\n]*)`")
NO_SHELL = ("python", "yaml", "math", "text")  # languages of blocks without commands

# commands that this test does not check, by their beginning, each with what runs it or the reason why nothing does
ELSEWHERE = {
    "python3 -m venv": "tests run in such an environment; .ci/run types the README's",
    ".venv/bin/pip install": "likewise",
    ". .venv/bin/activate": "a command of the shell",
    **dict.fromkeys(
        ("pip install tensorboard", "pip install mlflow", "yolo settings ", "tensorboard --logdir", "mlflow ui"),
        "commands of the loggers and of Ultralytics; typed once, see the section about experiment loggers",
    ),
    ".venv/bin/pytest": "this is the command that runs the tests",
    "python tools/evidence.py": "tests/tools/test_evidence.py",
    "python tools/evidence_tables.py": "tests/tools/test_evidence_tables.py",
    "python tools/probe_terms.py": "tests/tools/test_probe_terms.py",
    "PYTHONPATH=. python tools/chaos.py": "tests/tools/test_chaos.py",
    "PYTHONPATH=. python tools/bench_cost.py": "tests/tools/test_bench_cost.py",
    "PYTHONPATH=. python tools/bench_train.py": "tests/tools/test_bench_train.py",
    "PYTHONPATH=. python tools/gpu_check.py": "tests/tools/test_gpu_check.py",
    "PYTHONPATH=. python tools/count_step.py": "tests/tools/test_count_step.py",
}
# a test that runs the mode for real, up to its result
REAL_RUNS = {
    "train": "tests/bridge/training/test_resume.py",
    "amplify": "tests/bridge/training/test_amplify.py",
    "check": "tests/bridge/preflight/test_collect.py",
    "val": "tests/evaluate/test_modes.py",
    "predict": "tests/predict/test_run.py",
    "export": "tests/deploy/test_exporting.py",
    "benchmark": "tests/deploy/benchmarks/test_benchmarking.py",
    "explain": "tests/bridge/inference/test_explain.py",
    "compare": "tests/compare/test_compare.py",
    "demo": "tests/demo/test_demo.py",
    "data": "tests/prepare/test_run.py",
}
PRINTING = ("help", "cfg", "version", "completion")  # modes that these tests run themselves


def blocks_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each code block of a page, fenced or indented."""
    fenced, language, before = False, "", ""
    lines: list[str] = []
    for line in [*text.splitlines(), "end"]:
        marker = re.match(r" *```(\w*)", line)
        if not marker and (fenced or line.startswith("    ") or not line):
            lines.append(line)
            continue
        if any(lines) and not before.startswith(("!!!", ":::")):  # which indented text belongs to
            yield language, "\n".join(lines)
        lines = []
        if marker:
            fenced, language = not fenced, "" if fenced else marker[1]
        before = line


def commands_of(text: str) -> list[str]:
    """Return the commands of a page, without comments, redirections and what follows a pipe."""
    lines = [
        part
        for language, block in blocks_of(text)
        if language not in NO_SHELL
        for line in block.replace("\\\n", " ").splitlines()
        for part in line.split(" && ")
    ]
    commands = [re.sub(r" [>|] .*|(^| +)#.*", "", line.strip()) for line in lines]
    return [command for command in dict.fromkeys(commands) if command]


COMMANDS = [
    pytest.param(command, id=f"{page.stem}: {command}"[:110])
    for page in PAGES
    for command in commands_of(page.read_text(encoding="utf-8"))
]
INLINE_COMMANDS = sorted({command for page in PAGES for command in INLINE.findall(page.read_text(encoding="utf-8"))})
NEEDED = {
    "train": ("teacher", "student", "data"), "check": ("teacher", "student", "data"), "amplify": ("teacher", "data"),
    "val": ("model",), "predict": ("model", "source"), "export": ("model",), "benchmark": ("model", "data"),
    "compare": ("teacher", "student", "data"),
}  # fmt: skip


def check(mode: str, words: list[str]) -> None:
    """Raise if the command line would refuse a command before it looks for its files."""
    if mode in PRINTING:
        assert main([mode, *words]) == 0
        return
    if mode == "data" and words:
        assert words[0] == "prepare"
        assert words[1] in DATASETS
        words = words[2:]
    keys = parse(words)
    kind: Any = load(MODES[mode].options)
    more = set(Settings.keys()) if mode == "compare" else set()
    check_keys(list(keys), {*keys_of(MODES[mode]), *more}, mode)
    options, others = kind.split(keys)
    made = resolve_settings(options) if kind is Settings else kind(**options)
    if isinstance(made, CompareOptions) and not made.results:
        others = ComparePlan.of(made, others).keys
    validate_ultralytics_args({key: value for key, value in others.items() if key != "student"})


def words_of(command: str) -> list[str]:
    """Return mode and arguments of a command of this package, nothing for another command."""
    words = [word for word in shlex.split(command) if not re.match("[A-Z_]+=", word)]  # variables of the environment
    if words[0].rpartition("/")[2] == "ds2d2-yolo":
        return words[1:]
    return words[words.index("ds2d2_yolo") + 1 :] if "ds2d2_yolo" in words else []


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_a_block(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if words := words_of(command):
        check(words[0], words[1:])
        keys = {word.partition("=")[0] for word in words}
        assert {"resume", "results"} & keys or set(NEEDED.get(words[0], ())) <= keys
    elif command.startswith("yolo ") and not command.startswith(tuple(ELSEWHERE)):
        _, mode, *settings = shlex.split(command)
        get_cfg(overrides={"mode": mode, **parse(settings)})
    else:
        assert command.startswith(tuple(ELSEWHERE)), "neither a command of this package nor in ELSEWHERE"


@pytest.mark.parametrize("command", INLINE_COMMANDS)
def test_command_in_a_sentence(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may leave out values, as 'key=...', and keys that a sentence does not need."""
    monkeypatch.chdir(tmp_path)
    mode, *words = shlex.split(command.partition(" > ")[0].replace("help MODE", "help train").partition("|")[0])[1:]
    words = [word.replace("=...", "=1") for word in words]
    absent = set(NEEDED.get(mode, ())) - {word.partition("=")[0] for word in words}
    check(mode, [*words, *(f"{key}=1" for key in sorted(absent))])


def test_a_wrong_command_is_found() -> None:
    wrong = "text\n\n    ds2d2-yolo train teacher=t.pt student=s.yaml data=d.yaml wavlet=db2 \\\n        exlo=1\n"
    (command,) = commands_of(wrong)
    assert command.endswith("exlo=1")
    with pytest.raises(BadUseError, match="did you mean 'wavelet'"):
        check("train", words_of(command)[1:])
    for words in ("exlo=-1", "epochs=many", "recipe=stride9"):
        with pytest.raises(BadUseError):
            check("train", [words])


def test_every_mode_that_pages_name_runs_for_real_in_a_test() -> None:
    commands = [str(param.values[0]) for param in COMMANDS]
    named = {words[0] for command in commands if (words := words_of(command))}
    assert named <= {*REAL_RUNS, *PRINTING}
    assert all((ROOT / file).is_file() for file in REAL_RUNS.values())
    assert all((ROOT / why).is_file() for why in ELSEWHERE.values() if why.startswith("tests/"))
    assert [start for start in ELSEWHERE if not any(c.startswith(start) for c in commands)] == []
