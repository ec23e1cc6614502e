"""The expected memory: what autograd keeps is counted right, and a real step needs about what is estimated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.preflight import collect
from ds2d2_yolo.bridge.preflight.memory_estimate import (
    SavedBytes,
    StepBytes,
    expected_memory,
    fake_quantised,
    step_bytes,
)
from ds2d2_yolo.report.facts import MemoryFacts
from tests.helpers.memory import Live, SavedPeak
from tests.helpers.quantised import needs_modelopt
from tests.helpers.runs import student_of
from tests.helpers.settings import OFF

# bounds of docs/training.md, of what is measured over the estimate
SAVED = (0.95, 1.03)  # tensors that autograd saves
SAVED_MEASURING = (0.85, 1.03)  # the same in batches that measure the gains
LIVE = (0.95, 1.08)  # all tensors of forward and backward


@pytest.fixture
def tiny_trainer(tiny_trainer: Callable[..., Any], checkpoint: Callable[..., Path]) -> Callable[..., Any]:
    """The trainer with models of the sizes that are used: the bounds hold where layers have many channels."""

    def make(task: str = "obb", **keys: Any) -> Any:
        kind = "-obb" if task == "obb" else ""
        return tiny_trainer(task, teacher=str(checkpoint(f"yolov8s{kind}.yaml")), model=f"yolov8n{kind}.yaml", **keys)

    return make


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(t.nbytes for t in tensors)


def state_of(*modules: nn.Module) -> int:
    return sum(bytes_of((*m.parameters(), *m.buffers())) for m in modules)


def test_counts_a_small_model_as_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.SiLU())
    saved = SavedBytes(model)
    with saved:
        out = model(torch.ones(2, 3, 8, 8))
    image, feature, statistics = 2 * 3 * 64, 2 * 5 * 64, 5
    # input of the convolution; of the normalisation, its mean and deviation; of the activation
    assert saved.bytes == 4 * (image + feature + 2 * statistics + feature)
    assert out.requires_grad


def test_counts_a_storage_once() -> None:
    x = torch.ones(4, 6, requires_grad=True)
    saved = SavedBytes()
    with saved:
        y = x * 2
        z = (y * y.t().t()).sum() + y[:2].square().sum()
    assert saved.bytes == y.nbytes
    assert z.requires_grad


def test_copies_of_weights_are_counted_apart() -> None:
    layer = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    saved = SavedBytes(layer, images=2)
    with saved, torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.ones(2, 3, 8, 8))
    assert saved.copies == 2 * layer.weight.numel()
    assert saved.bytes == saved.copies + 2 * 2 * 3 * 64
    assert out.requires_grad


STEPS = [
    *(("obb", imgsz, batch, None) for imgsz in (192, 320) for batch in (2, 4)),
    *(("detect", imgsz, batch, None) for imgsz in (192, 320) for batch in (2, 4)),
    ("obb", 192, 2, 8),
]
FAST_STEPS = {("obb", 192, 2, None, True), ("detect", 192, 4, None, False), ("obb", 192, 2, 8, False)}
assert {step[:4] for step in FAST_STEPS} <= set(STEPS), "a fast step is none of the steps"


@pytest.mark.parametrize(
    ("task", "imgsz", "batch", "quantize", "amp"),
    [
        pytest.param(
            *step,
            amp,
            marks=[
                *([needs_modelopt] if step[3] else []),
                *([] if (*step, amp) in FAST_STEPS else [pytest.mark.slow]),
            ],
        )
        for step in STEPS
        for amp in (False, True)
    ],
)
def test_a_real_step_takes_what_is_estimated(
    task: str, imgsz: int, batch: int, quantize: int | None, amp: bool, tiny_trainer: Callable[..., Any]
) -> None:
    """The bounds that the report and docs/training.md state, on batches that measure the gains and on others."""
    trainer = tiny_trainer(task, imgsz=imgsz, batch=batch, quantize=quantize, imhi=0)
    student = collect._trainable_copy(student_of(trainer), trainer.args)
    distiller = collect._build_copy(trainer.run, student)
    student = fake_quantised(student, 3, imgsz) if quantize else student
    expected = step_bytes(student, distiller, 3, imgsz, amp)
    trainer._setup_train()
    trainer.epoch = trainer.start_epoch
    trainer._start_epoch()
    trainer.model.train()
    for p in trainer.model.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    images = trainer.preprocess_batch(next(iter(trainer.train_loader)))
    assert images["img"].shape == (batch, 3, imgsz, imgsz)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            loss = trainer.model(images)[0].sum()
        loss.backward()

    def peaks() -> tuple[float, float]:
        saved = SavedPeak(trainer.model, trainer.distiller.teacher.model)
        with saved:
            step()
        with Live() as live:
            step()
        return saved.peak, live.peak

    assert trainer.gains.calibrating
    measured = expected.copies + batch * (expected.activations + expected.measuring)
    if quantize and not amp:  # the estimate leaves out that a measurement runs the head, and rounds its weights, again
        measured += bytes_of(
            m.weight for m in dense_head(student, "student").modules() if hasattr(m, "weight_quantizer")
        )
    saved, live = peaks()
    assert SAVED_MEASURING[0] < saved / measured < SAVED_MEASURING[1]
    assert LIVE[0] < live / measured < LIVE[1]
    while trainer.gains.calibrating:
        trainer.gains.calibrate({}, 1.0, trainer.distiller.strides)
    other = expected.copies + batch * expected.activations
    saved, live = peaks()
    assert SAVED[0] < saved / other < SAVED[1]
    assert LIVE[0] < live / other < LIVE[1]


@pytest.fixture
def estimate(tiny_trainer: Callable[..., Any]) -> Callable[..., MemoryFacts]:
    """The estimate for a run on the tiny data, as the report makes it."""

    def get(task: str = "obb", amp: bool = False, **keys: Any) -> MemoryFacts:
        trainer = tiny_trainer(task, **keys)
        student = collect._trainable_copy(student_of(trainer), trainer.args)
        distiller = collect._build_copy(trainer.run, student)
        return expected_memory(student, distiller, trainer.args, StepBytes(1000, 100, 10), 96, 1, amp)

    return get


@pytest.mark.parametrize("optimizer", ["AdamW", pytest.param("SGD", marks=pytest.mark.slow)])
def test_parts_are_those_of_a_real_run(optimizer: str, estimate: Any, tiny_trainer: Callable[..., Any]) -> None:
    keys = {"optimizer": optimizer, "imhi": 0, "freeze": 3}
    expected = estimate(**keys)
    trainer = tiny_trainer("obb", **keys)
    trainer.train()
    state = [v for s in trainer.optimizer.state.values() for v in s.values() if isinstance(v, Tensor) and v.ndim]
    gradients = [p for p in trainer.model.parameters() if p.requires_grad]
    assert expected.weights == expected.ema == state_of(trainer.ema.ema)
    assert expected.gradients == bytes_of(gradients)
    assert expected.optimizer == bytes_of(state)
    assert expected.teacher == state_of(trainer.distiller.teacher.model)
    assert expected.amplifier == 0


def test_the_total_is_the_sum_of_its_parts(estimate: Any) -> None:
    memory = estimate(batch=6)
    assert memory.amplifier > 0
    fixed = memory.weights + memory.gradients + memory.optimizer + memory.ema + memory.teacher + memory.amplifier + 10
    assert (memory.activations, memory.measuring, memory.images) == (1000, 100, 6)
    assert memory.total == fixed + 6 * 1100


def test_mixed_precision_is_measured(tiny_trainer: Callable[..., Any]) -> None:
    trainer = tiny_trainer("obb", **{"imfu": 0, "imhi": 0})
    student = collect._trainable_copy(student_of(trainer), trainer.args)
    distiller = collect._build_copy(trainer.run, student)
    single, mixed = (step_bytes(student, distiller, 3, 192, amp) for amp in (False, True))
    assert 0.5 < mixed.activations / single.activations < 0.55, "the task loss keeps some float32"
    weights = [p for m in (student, distiller.adapters) for p in m.parameters() if p.ndim == 4]
    assert mixed.copies == pytest.approx(2 * sum(p.numel() for p in weights), rel=1e-3)
    assert mixed.measuring > single.measuring > 0
    assert single.copies == 0


def test_largest_images_of_multi_scale_count(estimate: Any) -> None:
    memory = estimate(multi_scale=0.5)
    assert memory.imgsz == 144
    assert memory.activations == 2250


def test_without_terms_there_is_nothing_but_the_student(tiny_trainer: Callable[..., Any]) -> None:
    trainer = tiny_trainer("obb", **OFF)
    student = collect._trainable_copy(student_of(trainer), trainer.args)
    memory = collect._memory(trainer.run, student, None, 96)
    assert (memory.teacher, memory.amplifier, memory.measuring) == (0, 0, 0)
    assert memory.activations > 0


def test_autobatch_leaves_the_total_open(estimate: Any) -> None:
    memory = estimate(batch=-1)
    assert memory.images is None
    assert memory.total is None
