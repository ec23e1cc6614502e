"""The expected memory: what autograd keeps is counted right, and a real step needs about what is estimated."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.preflight.collect import collect as preflight
from ds2d2_yolo.bridge.preflight.collect import plan_of
from ds2d2_yolo.bridge.preflight.memory_estimate import SavedBytes, expected_memory, kept_for_backward, sample_batch
from ds2d2_yolo.bridge.preflight.run_plan import Plan
from ds2d2_yolo.report.facts import MemoryFacts
from tests.bridge.conftest import OFF


@pytest.fixture
def plan(tiny_trainer: Callable[..., Any]) -> Callable[..., Plan]:
    return lambda task, **keys: plan_of(tiny_trainer(task, **keys))


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


class Live(TorchDispatchMode):
    """Follows the bytes of the tensors that operations make while the context lasts, apart from `SavedBytes`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for storage in (t.untyped_storage() for t in tree_leaves(out) if isinstance(t, Tensor)):
            key = storage._cdata
            if key not in self.seen:
                self.seen.add(key)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _free(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


@pytest.mark.parametrize("off", [(), ("imfu", "imhi")], ids=["all terms", "explicit only"])
def test_a_step_holds_what_is_counted(off: tuple[str, ...], plan: Callable[..., Plan]) -> None:
    """Two images through student, losses, terms and backward, against twice what one image keeps."""
    made = plan("obb", **dict.fromkeys(off, 0.0))
    distiller = preflight._distiller(made)
    assert distiller is not None
    student = preflight._as_trained(deepcopy(made.student), made.args)
    batch = sample_batch(dense_head(student, "the student"), 3, 192)
    kept, head = kept_for_backward(student, distiller, batch)
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
    from ds2d2_yolo.bridge.distillation.targets import tapped

    predictions = student(batch["img"])
    with tapped(criterion.assigner) as seen:
        loss, _ = criterion(predictions, batch)
    terms = distiller.terms(predictions["feats"], distiller.guide(batch["img"]), seen[0])
    (loss.sum() + sum(terms.values())).backward()


@pytest.fixture
def estimate(plan: Callable[..., Plan]) -> Callable[..., MemoryFacts]:
    """The estimate for a plan on the tiny data, as the report makes it."""

    def get(task: str = "obb", amp: bool = False, **keys: Any) -> MemoryFacts:
        made = plan(task, **keys)
        student = preflight._as_trained(deepcopy(made.student), made.args)
        return expected_memory(student, preflight._distiller(made), made.args, (1000, 100), 96, 1, amp)

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
    assert expected.teacher == state_of(trainer._distiller.teacher.model)
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
