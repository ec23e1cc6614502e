"""The expected memory: what autograd keeps is counted right, and a real step needs about what is estimated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ds2d2_yolo.bridge.distillation.batch import StudentInputs
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.preflight import collect
from ds2d2_yolo.bridge.preflight.memory_estimate import SavedBytes, expected_memory, sample_batch, saved_for_backward
from ds2d2_yolo.report.facts import MemoryFacts
from tests.helpers.memory import Live
from tests.helpers.runs import student_of
from tests.helpers.settings import OFF


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


@pytest.mark.parametrize("off", [(), ("imfu", "imhi")], ids=["all terms", "explicit only"])
def test_a_step_holds_what_is_counted(off: tuple[str, ...], tiny_trainer: Callable[..., Any]) -> None:
    """Two images through student, losses, terms and backward, against twice what one image keeps."""
    trainer = tiny_trainer("obb", **dict.fromkeys(off, 0.0))
    student = collect._trainable_copy(student_of(trainer), trainer.args)
    distiller = collect._build_copy(trainer.run, student)
    assert distiller is not None
    batch = sample_batch(dense_head(student, "the student"), 3, 192)
    kept, head = saved_for_backward(student, distiller, batch)
    assert 0 < head < kept / 2
    two = {k: torch.cat((v, v)) for k, v in batch.items()}
    two["batch_idx"][len(batch["batch_idx"]) :] = 1
    for p in (*student.parameters(), *distiller.adapters.parameters()):
        p.grad = torch.zeros_like(p)
    criterion = student.init_criterion()
    with Live() as live:
        step(student, criterion, distiller, two)
    assert 0.9 < live.peak / (2 * kept) < 1.25


def step(student: Any, criterion: Any, distiller: Any, batch: dict[str, Any]) -> None:
    from ds2d2_yolo.bridge.distillation.targets import capture_targets

    predictions = student(batch["img"])
    with capture_targets(criterion) as seen:
        loss, _ = criterion(predictions, batch)
    terms = distiller(StudentInputs(predictions["feats"], seen[0]), distiller.teacher_outputs(batch["img"]))
    (loss.sum() + sum(terms.values())).backward()


@pytest.fixture
def estimate(tiny_trainer: Callable[..., Any]) -> Callable[..., MemoryFacts]:
    """The estimate for a run on the tiny data, as the report makes it."""

    def get(task: str = "obb", amp: bool = False, **keys: Any) -> MemoryFacts:
        trainer = tiny_trainer(task, **keys)
        student = collect._trainable_copy(student_of(trainer), trainer.args)
        distiller = collect._build_copy(trainer.run, student)
        return expected_memory(student, distiller, trainer.args, (1000, 100), 96, 1, amp)

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
    found = estimate(batch=6)
    assert found.amplifier > 0
    fixed = found.weights + found.gradients + found.optimizer + found.ema + found.teacher + found.amplifier
    assert (found.activations, found.measuring, found.images) == (1000, 100, 6)
    assert found.total == fixed + 6 * 1100


def test_mixed_precision_halves_the_activations_alone(estimate: Any) -> None:
    single, mixed = estimate(), estimate(amp=True)
    assert mixed.halved
    assert mixed.activations == single.activations / 2
    assert (mixed.fixed, mixed.measuring) == (single.fixed, single.measuring)


def test_largest_images_of_multi_scale_count(estimate: Any) -> None:
    found = estimate(multi_scale=0.5)
    assert found.imgsz == 144
    assert found.activations == 2250


def test_without_terms_there_is_nothing_but_the_student(estimate: Any) -> None:
    found = estimate(**OFF)
    assert (found.teacher, found.amplifier, found.measuring) == (0, 0, 0)


def test_autobatch_leaves_the_total_open(estimate: Any) -> None:
    found = estimate(batch=-1)
    assert found.images is None
    assert found.total is None
