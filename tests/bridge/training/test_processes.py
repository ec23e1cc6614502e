"""Training in several processes, through the real trainer, over gloo on a CPU (see rank.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[3]


def train(ranks: int, settings: dict[str, Any], folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Train in that many processes; return what each saw and what they printed."""
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    common = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
              "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
    command = [sys.executable, "-m", "tests.bridge.training.rank", str(folder / "settings.json"), str(folder)]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        running = [
            subprocess.Popen(
                command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **common, "RANK": str(i), "LOCAL_RANK": str(i)},
            )
            for i in range(ranks)
        ]  # fmt: skip
        try:
            codes = [p.wait(timeout=400) for p in running]
        finally:
            for p in running:
                p.kill()
    said = (folder / "log.txt").read_text(encoding="utf-8")
    assert codes == [0] * ranks, said[-3000:]
    return [torch.load(folder / f"rank{i}.pt", weights_only=False) for i in range(ranks)], said


@pytest.mark.parametrize(
    ("ranks", "keys"),
    [(2, {}), *(pytest.param(*x, marks=pytest.mark.slow) for x in ((4, {}), (2, {"assign_epochs": 2})))],
)
def test_ranks_agree(
    ranks: int, keys: dict[str, Any], tiny_settings: dict[str, Any], checkpoint: Callable[..., Path],
    tiny_data: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    settings = {
        **tiny_settings, "teacher": str(checkpoint("yolov8s-obb.yaml", seed=40 + ranks)), "model": "yolov8n-obb.yaml",
        "data": str(tiny_data("obb")), "epochs": 3, "amplifier_epochs": 1, "batch": 4, "mosaic": 1.0, "exist_ok": False,
        "rect": True, **keys,
    }  # fmt: skip
    earlier = tmp_path / "runs" / "run" / "results.csv"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("an earlier run's")
    seen, said = train(ranks, settings, tmp_path)
    run = tmp_path / "runs" / "run-2"
    assert said.count("rect=True does not go with several processes") == 1
    assert [p.name for p in earlier.parent.iterdir()] == ["results.csv"]
    weights = [run / "weights" / name for name in ("last.pt", "best.pt")]
    assert all(s["places"] == [str(p) for p in (run, *weights, run / "results.csv", run)] for s in seen)

    first, *others = seen
    assert len({tuple(s["files"]) for s in seen}) == ranks, "every rank has images of its own"
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first["adapters"], other["adapters"], strict=True))
        assert first["amplifier"].keys() == other["amplifier"].keys() != set()
        assert all(torch.equal(v, other["amplifier"][k]) for k, v in first["amplifier"].items())
        assert first["gains"] == other["gains"]
        assert first["gains"]["frozen"]
        assert all(torch.equal(v, other["weights"][k]) for k, v in first["weights"].items() if "running" not in k)

    # each rank's loss is multiplied by their number, and DDP takes the mean: undone, it is the mean of the ranks' own
    moved = 0
    for i, together in enumerate(first["together"]):
        alone = [s["alone"][i] for s in seen]
        if together is None:
            assert all(g is None or not g.any() for g in alone)
            continue
        mean = torch.stack([torch.zeros_like(together) if g is None else g for g in alone]).mean(0)
        torch.testing.assert_close(together / ranks, mean, rtol=1e-4, atol=1e-5 * float(mean.abs().max()) + 1e-9)
        moved += bool(together.any())
    assert moved > 100

    assert said.count("DS2D2: training the high-frequency amplifier") == 1, said[-3000:]
    assert {p.name for p in run.iterdir()} >= {
        "preflight.json",
        "preflight.txt",
        "amplifier.safetensors",
        "results.csv",
    }
    assert len((run / "results.csv").read_text(encoding="utf-8").splitlines()) == 1 + 3
    assert {p.name for p in (run / "weights").iterdir()} == {"last.pt", "best.pt"}
