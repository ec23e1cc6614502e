"""The implicit terms on a part of a batch: without bias, and with a draw of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ds2d2_yolo.bridge.distillation.build import build_distiller
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.models.adapters import make_adapters
from ds2d2_yolo.bridge.models.heads import dense_head, level_channels
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.config.settings import IMPLICIT, Settings
from tests.helpers.distillation import inputs_of
from tests.helpers.terms import ACTIVE

BATCH = 4


def make_distiller(teacher: Path, fraction: float, seed: int = 0) -> Distiller:
    """A distiller whose amplifier is the teacher's own head, untuned."""
    loaded = load_teacher(str(teacher), "obb" if "obb" in teacher.name else "detect")
    head = copy.deepcopy(dense_head(loaded.model, "teacher"))
    widths = level_channels(head)
    settings = Settings(gains=1.0, implicit_fraction=fraction)
    adapters = make_adapters([8] * len(widths), list(widths), 0)
    return build_distiller(head, loaded, settings, adapters=adapters, seed=seed)


def make_batch(distiller: Distiller, size: int = 64) -> tuple[Tensor, list[Tensor], Targets]:
    """Images, features of a student with 8 channels a level, and one box in every image."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(BATCH, 3, size, size, generator=generator)
    features = [
        torch.randn(BATCH, 8, size // int(s), size // int(s), generator=generator).requires_grad_()
        for s in distiller.strides
    ]
    rotated = distiller.teacher.head.__class__.__name__ == "OBB"
    box = [30.0, 30.0, 20.0, 10.0, 0.3] if rotated else [20.0, 25.0, 40.0, 35.0]
    return images, features, Targets(torch.tensor([[box]] * BATCH), torch.ones(BATCH, 1, dtype=torch.bool))


def terms_and_gradients(
    distiller: Distiller, images: Tensor, features: list[Tensor], targets: Targets
) -> dict[str, list[Tensor]]:
    """Each term, then its gradients in the features and in the adapters."""
    terms = distiller(inputs_of(features, targets), distiller.teacher_outputs(images))
    wanted = [*features, *distiller.adapters.parameters()]
    return {
        term: [value.detach(), *torch.autograd.grad(value, wanted, retain_graph=True)] for term, value in terms.items()
    }


def all_subsets(distiller: Distiller, count: int, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Make the distiller take each subset of that many images once, one after the other."""
    subsets = [torch.tensor(s) for s in combinations(range(BATCH), count)]
    left = iter(subsets)
    monkeypatch.setattr(distiller, "_draw_images", lambda *_: next(left))
    return subsets


@pytest.mark.parametrize(
    ("yaml", "fraction"), [("yolov8n.yaml", 0.5), ("yolov8n-obb.yaml", 0.5), ("yolov8n.yaml", 0.25)]
)
def test_mean_over_all_subsets_is_the_whole_batch(
    yaml: str, fraction: float, checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    distiller = make_distiller(checkpoint(yaml), 1.0)
    # large enough that each level is composed or not (`adapted.composing_saves`) whatever the number of images: the two
    # ways differ in rounding, and it is the choice of images that must add nothing
    batch = make_batch(distiller, size=128)
    whole = terms_and_gradients(distiller, *batch)
    assert set(whole) == set(ACTIVE)
    distiller.settings = replace(distiller.settings, implicit_fraction=fraction)
    subsets = all_subsets(distiller, round(fraction * BATCH), monkeypatch)
    parts = [terms_and_gradients(distiller, *batch) for _ in subsets]
    for term in ACTIVE:
        assert len({float(part[term][0]) for part in parts}) == (len(subsets) if term in IMPLICIT else 1)
        for i, expected in enumerate(whole[term]):
            mean = torch.stack([part[term][i].double() for part in parts]).mean(0)
            scale = float(expected.abs().max())
            assert scale > 0
            assert float((mean - expected).abs().max()) < 1e-5 * scale, f"{term}: {i}"


def drawn(distiller: Distiller, images: Tensor, batches: int) -> list[list[int]]:
    """The images that the next batches choose."""
    chosen = [distiller.teacher_outputs(images).images for _ in range(batches)]
    return [c.tolist() for c in chosen if c is not None]


def test_draw_is_its_own_and_repeats_with_the_epoch(checkpoint: Callable[..., Path]) -> None:
    distiller = make_distiller(checkpoint("yolov8n.yaml"), 0.5)
    images = make_batch(distiller)[0]
    before = torch.get_rng_state()
    distiller.start_epoch(7)
    first = drawn(distiller, images, 20)
    assert torch.equal(torch.get_rng_state(), before)
    distiller.start_epoch(8)
    assert drawn(distiller, images, 20) != first
    torch.manual_seed(5)  # nor does the global state move the draw
    distiller.start_epoch(7)
    assert drawn(distiller, images, 20) == first


def test_every_image_comes_equally_often(checkpoint: Callable[..., Path]) -> None:
    distiller = make_distiller(checkpoint("yolov8n.yaml"), 0.5)
    draws = [distiller._draw_images(BATCH, torch.device("cpu")) for _ in range(3000)]
    counts = torch.zeros(BATCH)
    for draw in draws:
        assert draw is not None
        assert len(set(draw.tolist())) == 2
        counts[draw] += 1
    # 1500 each are expected, with a standard deviation of 27
    assert float((counts - 1500).abs().max()) < 5 * 27


@pytest.mark.parametrize(("fraction", "batch", "count"), [(0.01, 8, 1), (0.25, 8, 2), (0.5, 5, 2), (0.3, 1, None)])
def test_at_least_one_image_is_drawn(
    fraction: float, batch: int, count: int | None, checkpoint: Callable[..., Path]
) -> None:
    chosen = make_distiller(checkpoint("yolov8n.yaml"), fraction)._draw_images(batch, torch.device("cpu"))
    assert (None if chosen is None else len(chosen)) == count


def test_whole_takes_all_images_and_leaves_the_draw_as_it_was(checkpoint: Callable[..., Path]) -> None:
    distiller = make_distiller(checkpoint("yolov8n.yaml"), 0.5)
    images = make_batch(distiller)[0]
    distiller.start_epoch(7)
    first = drawn(distiller, images, 4)
    distiller.start_epoch(7)
    assert distiller.teacher_outputs(images, all_images=True).images is None
    assert drawn(distiller, images, 3) == first[1:]


def test_explicit_stream_alone_does_not_run_the_head(checkpoint: Callable[..., Path]) -> None:
    distiller = make_distiller(checkpoint("yolov8n.yaml"), 1.0)
    images = make_batch(distiller)[0]
    expected = distiller.teacher_outputs(images).features
    distiller.settings = replace(distiller.settings, implicit=False)
    distiller.teacher.head.forward = None  # type: ignore[method-assign,assignment]
    found = distiller.teacher_outputs(images)
    assert not found.predictions
    assert all(torch.equal(a, b) for a, b in zip(found.features, expected, strict=True))
