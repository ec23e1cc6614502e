"""The measured gradients: those of the training step, taken without touching it."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics import YOLO
from ultralytics.cfg import get_cfg

from ds2d2_yolo.bridge.distillation.batch import StudentInputs, TeacherOutputs
from ds2d2_yolo.bridge.distillation.gradients.levels import TASK
from ds2d2_yolo.bridge.distillation.gradients.norms import measure_gradients
from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.models.heads import dense_head

REPOSITORY = Path(__file__).resolve().parents[4]


def student(yaml: str) -> Any:
    torch.manual_seed(0)
    model = YOLO(yaml).model
    model.args = get_cfg(overrides={"epochs": 10})
    return model.train()


def batch_of(boxes: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "img": torch.rand(2, 3, 64, 64),
        "batch_idx": torch.arange(2).repeat_interleave(boxes).float(),
        "cls": torch.zeros(2 * boxes, 1),
        "bboxes": torch.rand(2 * boxes, 4) * 0.4 + 0.3,
    }


class Terms:
    """Stands in for a distiller: given terms of the neck features, over given levels."""

    def __init__(self, terms: Callable[[list[Tensor]], dict[str, Tensor]], levels: list[int]) -> None:
        self.terms = terms
        self.levels = levels

    def __call__(self, student: StudentInputs, _: TeacherOutputs) -> dict[str, Tensor]:
        return self.terms(student.features)


def measured(
    model: Any, criterion: Any, terms: Callable[[list[Tensor]], dict[str, Tensor]], features: list[Tensor],
    batch: dict[str, Tensor], levels: tuple[int, ...] = (0, 1, 2), optional: tuple[str, ...] = (),
) -> dict[str, float]:  # fmt: skip
    targets = Targets(torch.zeros(2, 1, 4), torch.zeros(2, 1, dtype=torch.bool))
    teacher = TeacherOutputs([], torch.ones(2, dtype=torch.bool), {}, None, None)
    inputs = StudentInputs(features, targets)
    distiller: Any = Terms(terms, list(levels))
    return measure_gradients(criterion, dense_head(model, "student"), distiller, inputs, teacher, batch, optional)


@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolo26n.yaml"])
def test_norms_are_those_of_the_training_graph(yaml: str) -> None:
    model, batch = student(yaml), batch_of(3)
    criterion = model.init_criterion()
    head = dense_head(model, "student")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    captured: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, args: captured.extend(args[0]))
    preds = model(batch["img"])
    handle.remove()
    after = {k: v.clone() for k, v in model.state_dict().items()}
    loss = criterion(preds, batch)[0].sum()
    term = captured[2].square().mean()
    # the coarsest level alone: in the graph of the step, finer ones feed it
    norms = measured(model, criterion, lambda f: {"term": f[2].square().mean()}, captured, batch, levels=(2,))
    for name, value in ((TASK, loss / 2), ("term", term)):  # the task loss of an image, of two
        (grad,) = torch.autograd.grad(value, captured[2], retain_graph=True)
        assert norms[name] == pytest.approx(float(grad.norm()), rel=1e-4)
    assert any(not torch.equal(before[k], after[k]) for k in before), "the forward pass itself moves the statistics"
    assert all(torch.equal(v, after[k]) for k, v in model.state_dict().items()), "the measurement moves nothing"
    loss.backward()  # and leaves the graph of the step whole


@pytest.mark.parametrize("levels", [(0, 1, 2), (0, 2)])
def test_levels_are_those_of_autograd_and_sum_to_the_norm(levels: tuple[int, ...]) -> None:
    model, batch = student("yolov8n.yaml"), batch_of(3)
    criterion, head = model.init_criterion(), dense_head(model, "student")
    features = [torch.rand(2, c, n, n) for c, n in ((64, 8), (128, 4), (256, 2))]
    weights = (3.0, 0.5, 7.0)

    def term(leaves: list[Tensor]) -> Tensor:
        return torch.stack([w * f.square().mean() for w, f in zip(weights, leaves, strict=True)]).sum()

    norms = measured(model, criterion, lambda f: {"term": term(f)}, features, batch, levels)
    leaves = [f.clone().requires_grad_() for f in features]
    task = criterion(copy.deepcopy(head)(list(leaves)), batch)[0].sum() / 2
    assert set(norms) == {k for name in (TASK, "term") for k in (name, *(f"{name}@{(8, 16, 32)[i]}" for i in levels))}
    for name, loss in ((TASK, task), ("term", term(leaves))):
        grads = torch.autograd.grad(loss, [leaves[i] for i in levels])
        parts = [norms[f"{name}@{(8, 16, 32)[i]}"] for i in levels]
        assert parts == pytest.approx([float(g.norm()) for g in grads], rel=1e-5)
        assert math.hypot(*parts) == pytest.approx(norms[name], rel=1e-6)
        total = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))
        # a process alone takes the mean of one logarithm
        assert norms[name] == math.exp(float(total.log())), "the norm over all levels does not depend on their keys"


def test_a_term_without_gradient_is_nan() -> None:
    model, batch = student("yolov8n.yaml"), batch_of(1)
    criterion = model.init_criterion()
    features = [torch.rand(2, c, n, n) for c, n in ((64, 8), (128, 4), (256, 2))]
    norms = measured(
        model,
        criterion,
        lambda f: {"zero": 0 * f[0].sum(), "none": torch.zeros((), requires_grad=True) * 1.0},
        features,
        batch,
    )
    assert norms[TASK] > 0
    assert [str(norms["zero"]), str(norms["none"])] == ["nan", "nan"]
    assert [str(norms[f"zero@{stride}"]) for stride in (8, 16, 32)] == ["nan"] * 3


def test_a_measurement_that_memory_does_not_suffice_for_stays_out_where_it_can() -> None:
    model, batch = student("yolov8n.yaml"), batch_of(1)
    criterion = model.init_criterion()
    features = [torch.rand(2, c, n, n) for c, n in ((64, 8), (128, 4), (256, 2))]

    def terms(*_: Any) -> dict[str, Tensor]:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        measured(model, criterion, terms, features, batch)
    assert measured(model, criterion, terms, features, batch, optional=("exlo", "exhi")) == {}


def test_gradients_that_are_not_finite_were_measured_all_the_same() -> None:
    model = student("yolov8n.yaml")
    features = [torch.rand(2, c, n, n) for c, n in ((64, 8), (128, 4), (256, 2))]

    class Criterion:
        def __call__(self, outputs: Any, _: Any) -> tuple[Tensor, dict[str, Tensor]]:
            return outputs["feats"][0].sum() * math.nan, {}

        def parse_output(self, outputs: Any) -> Any:
            return outputs

    terms = lambda f: {"exlo": f[0].sum() * math.nan}  # noqa: E731
    norms = measured(model, Criterion(), terms, features, batch_of(1), optional=("exlo",))
    assert [str(norms[name]) for name in (TASK, "exlo")] == ["nan", "nan"]


WORKER = """
import sys, torch, torch.distributed as dist
from ds2d2_yolo.bridge.distillation.gradients.norms import _mean_over_processes
rank, file = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
values = [[2.0, 1.0, float("nan"), 0.0], [8.0, float("nan"), float("inf"), 0.0]][rank]
print(*_mean_over_processes(torch.tensor(values)))
dist.destroy_process_group()
"""


def test_processes_agree(tmp_path: Path) -> None:
    """The geometric mean over the ranks, leaving out what is no positive number."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "GLOO_SOCKET_IFNAME": "lo"}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [run.communicate(timeout=600) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    lines = [out.strip().splitlines()[-1].split() for out, _ in outputs]
    assert lines[0] == lines[1]
    assert [float(x) for x in lines[0][:2]] == pytest.approx([4.0, 1.0])
    assert lines[0][2:] == ["nan", "nan"]


def test_bfloat16_features_are_measured_in_float32() -> None:
    model, batch = student("yolov8n.yaml"), batch_of(2)
    criterion = model.init_criterion()
    features = [torch.rand(2, c, n, n) for c, n in ((64, 8), (128, 4), (256, 2))]
    seen: list[torch.dtype] = []

    def terms(leaves: list[Tensor]) -> dict[str, Tensor]:
        seen.extend(f.dtype for f in leaves)
        return {"term": leaves[0].square().mean()}

    def run() -> dict[str, float]:
        return measured(model, criterion, terms, [f.bfloat16() for f in features], batch)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run()
    assert inside == run()
    assert set(seen) == {torch.float32}
