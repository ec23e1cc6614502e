"""The tool that kills commands: what it calls broken, and a few of its kills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = REPOSITORY / "tools" / "chaos.py"


def test_half_a_file_is_called_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(TOOL.parent))
    from chaos_pieces.files import complete_files, fault, left_over

    torch.save({"model": torch.zeros(9), "ema": None}, tmp_path / "last.pt")
    save_file({"a": torch.zeros(9)}, tmp_path / "a.safetensors")
    (tmp_path / "results.csv").write_text("epoch,loss\n1,0.5\n2,0.25\n", encoding="utf-8")
    (tmp_path / "facts.json").write_text(json.dumps({"a": [1, 2]}), encoding="utf-8")
    (tmp_path / "data.yaml").write_text("names: {0: a}\n", encoding="utf-8")
    (tmp_path / ".results.csv.tmp").write_text("half a", encoding="utf-8")
    files = list(complete_files([tmp_path]))
    assert len(files) == 5, "hidden files claim nothing"
    for file in files:
        assert fault(file) is None
        content = file.read_bytes()
        file.write_bytes(content[: len(content) - 3])
        assert fault(file) is not None, file.name
    assert left_over([tmp_path]) == [str(tmp_path / ".results.csv.tmp")]


def run_tool(work: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, str(TOOL), f"work={work}", *words], capture_output=True, text=True, env=env, check=False
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL")
@pytest.mark.slow
def test_a_few_kills(tmp_path: Path) -> None:
    done = run_tool(tmp_path / "work", "only=prepare", "prepare=4", "teach=0")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "| prepare | 4 |" in done.stdout
    assert done.stdout.strip().endswith("| 0 |")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL")
def test_kills_of_every_command(tmp_path: Path) -> None:
    kills = [f"{name}=2" for name in ("amplify", "val", "prepare", "export", "compare")]
    # taught: the check of an export fails where a model finds nothing
    done = run_tool(tmp_path / "work", "train=5", *kills)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
