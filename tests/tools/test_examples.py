"""The torchvision examples run, and each of their terms reaches the student and nothing else."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

torchvision = pytest.importorskip("torchvision", reason="the examples need torchvision")
if not torchvision.extension._has_ops():
    pytest.skip("the examples need a torchvision with its compiled operators", allow_module_level=True)

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "tools" / "examples").glob("distil_*.py"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < 60
    torch.manual_seed(0)
    student, adapters, teacher, terms = runpy.run_path(str(file))["main"](size=96, steps=2)
    assert capsys.readouterr().out.count("detection") == 2
    assert terms.shape == (4,)
    assert torch.isfinite(terms).all()
    assert (terms > 0).all()
    for module in (student, adapters):
        gradients = [p.grad for p in module.parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert all(adapter.weight.grad.abs().max() > 0 for adapter in adapters.children())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_both_detectors_have_an_example() -> None:
    assert [file.stem for file in EXAMPLES] == ["distil_faster_rcnn", "distil_retinanet"]
