"""Adapters from ridge regression, the gate of the explicit terms and the aligned scale of imfu."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from ds2d2_yolo.bridge.distillation.adapter_fit import DECAY, AdapterFit
from ds2d2_yolo.bridge.models.adapters import make_adapters
from ds2d2_yolo.core.ridge import ridge_map, second_moments
from tests.helpers.distillation import batch_of, build

Batch = tuple[list[Tensor], list[Tensor], Tensor]
WIDTHS = [3, 5], [7, 4]


def new_adapters() -> nn.ModuleList:
    return make_adapters(*WIDTHS, seed=0)


def weights_of(adapters: nn.ModuleList) -> list[Tensor]:
    return [p.detach().clone() for p in adapters.parameters()]


def batches(number: int, images: int = 4, seed: int = 0) -> list[Batch]:
    """Features of two levels, all images valid."""
    rng = torch.Generator().manual_seed(seed)

    def level(channels: int, size: int) -> Tensor:
        return torch.randn(images, channels, size, size, generator=rng)

    valid = torch.ones(images, dtype=torch.bool)
    return [([level(3, 4), level(5, 2)], [level(7, 4), level(4, 2)], valid) for _ in range(number)]


def fitting() -> AdapterFit:
    fit = AdapterFit(1)
    fit.start_epoch(0)
    return fit


def test_active_in_its_epochs_only() -> None:
    fit, adapters = AdapterFit(2), new_adapters()
    before = weights_of(adapters)
    fit.update(adapters, *batches(1)[0])  # outside a training, as where the memory is measured
    assert not fit.active
    assert all(map(torch.equal, weights_of(adapters), before))
    for epoch, active in enumerate([True, True, False]):
        fit.start_epoch(epoch)
        assert fit.active is active
        fit.update(adapters, *batches(1)[0])
        assert bool(fit.state()) is active


def test_a_repeated_epoch_begins_with_the_sums_of_its_first_start() -> None:
    """Ultralytics repeats an epoch that ended in NaN: what it had summed would dominate the adapters for long."""
    good, (student, teacher, valid) = batches(1)[0], batches(1, seed=1)[0]
    bad = [1e6 * x for x in student], teacher, valid
    fit, once = AdapterFit(2), AdapterFit(2)
    adapters, wanted = new_adapters(), new_adapters()
    for epoch in range(2):
        for f in (fit, once):
            f.start_epoch(epoch)
        fit.update(adapters, *bad)
        fit.start_epoch(epoch)  # again
        fit.update(adapters, *good)
        once.update(wanted, *good)
    assert all(map(torch.equal, weights_of(adapters), weights_of(wanted)))


def test_equals_ridge_regression_on_fading_sums() -> None:
    fit, adapters, made = fitting(), new_adapters(), batches(3)
    for batch in made:
        fit.update(adapters, *batch)
    for level, weight in enumerate(weights_of(adapters)):
        sums = [second_moments(s[level].double(), t[level].double()) for s, t, _ in made]
        faded = [sum(DECAY ** (2 - i) * pair[j] for i, pair in enumerate(sums)) for j in range(2)]
        torch.testing.assert_close(weight.flatten(1).double(), ridge_map(*faded), rtol=1e-5, atol=1e-6)
    assert all(p.requires_grad for p in adapters.parameters())


def test_images_without_finite_features_do_not_count() -> None:
    (student, teacher, valid), *_ = batches(1)
    expected = new_adapters()
    fitting().update(expected, [s[2:] for s in student], [t[2:] for t in teacher], valid[2:])
    student[0][0, 0, 0, 0] = torch.nan
    valid[1] = False
    adapters = new_adapters()
    fitting().update(adapters, student, teacher, valid)
    torch.testing.assert_close(weights_of(adapters), weights_of(expected), rtol=1e-5, atol=1e-6)


def test_without_a_valid_image_the_weights_stay() -> None:
    (student, teacher, valid), *_ = batches(1)
    adapters = new_adapters()
    before = weights_of(adapters)
    fitting().update(adapters, student, teacher, ~valid)
    assert all(map(torch.equal, weights_of(adapters), before))


def test_restored_sums_continue_to_the_bit() -> None:
    made = batches(4)
    fit, adapters = fitting(), new_adapters()
    for batch in made[:2]:
        fit.update(adapters, *batch)
    resumed, others = AdapterFit(1), new_adapters()
    resumed.restore(fit.state(), torch.device("cpu"))
    resumed.start_epoch(0)
    for batch in made[2:]:
        fit.update(adapters, *batch)
        resumed.update(others, *batch)
    assert all(map(torch.equal, weights_of(adapters), weights_of(others)))


def _fit_in_rank(rank: int, meeting: str, folder: str) -> None:
    """Fit on the images of one rank; level with a start of its own, to see that rank 0 decides."""
    dist.init_process_group("gloo", meeting, timedelta(seconds=120), 2, rank)
    fit, adapters = fitting(), make_adapters(*WIDTHS, seed=rank)
    for student, teacher, valid in batches(2):
        share = slice(2 * rank, 2 * rank + 2)
        fit.update(adapters, [s[share] for s in student], [t[share] for t in teacher], valid[share])
    torch.save(weights_of(adapters), Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def test_processes_fit_on_the_images_of_all(tmp_path: Path) -> None:
    mp.start_processes(_fit_in_rank, (f"file://{tmp_path}/meeting", str(tmp_path)), 2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(map(torch.equal, first, second))
    fit, adapters = fitting(), new_adapters()
    for batch in batches(2):
        fit.update(adapters, *batch)
    torch.testing.assert_close(first, weights_of(adapters), rtol=1e-5, atol=1e-6)


# In the criterion ---------------------------------------------------------------------------------------------------
def terms(checkpoint: Callable[..., Path], fit: bool = False, **keys: Any) -> dict[str, float]:
    """The columns of a batch."""
    model, criterion = build("yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), imhi=0, **keys)
    assert criterion.distiller is not None
    if fit:
        criterion.distiller.adapter_fit.start_epoch(0)
    batch = batch_of(rotated=True)
    loss, items = criterion(model(batch["img"]), batch)
    loss.sum().backward()
    assert all(p.grad is not None for p in criterion.distiller.adapters.parameters())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    return {k.removesuffix("_loss"): float(v) for k, v in items.items()}


def test_the_fit_precedes_the_terms_of_its_batch(checkpoint: Callable[..., Path]) -> None:
    random, fitted = terms(checkpoint), terms(checkpoint, fit=True, adapter_fit_epochs=1)
    assert fitted["exlo"] < 0.5 * random["exlo"]


def test_the_gate_closes_levels_that_explain_nothing(checkpoint: Callable[..., Path]) -> None:
    """Random adapters explain nothing on any level; an adapter with more inputs than cells explains its batch."""
    assert all(terms(checkpoint)[t] > 0 for t in ("exlo", "exhi", "imfu"))
    closed = terms(checkpoint, adapter_gate=True, adapter_fit_epochs=1)  # before its first epoch
    assert (closed["exlo"], closed["exhi"]) == (0, 0)
    assert closed["imfu"] == terms(checkpoint)["imfu"]
    fitted = {"fit": True, "adapter_fit_epochs": 1, "levels": [32]}
    assert terms(checkpoint, **fitted, adapter_gate=True) == terms(checkpoint, **fitted)


def test_aligned_features_do_not_depend_on_the_scale_of_the_adapters(checkpoint: Callable[..., Path]) -> None:
    values: dict[str, list[float]] = {"none": [], "aligned": []}
    for scale, found in values.items():
        for explicit in (True, False):
            for factor in (1.0, 3.0):
                model, criterion = build(
                    "yolov8n-obb.yaml", checkpoint("yolov8s-obb.yaml"), imhi=0, explicit=explicit, adapter_scale=scale
                )
                assert criterion.distiller is not None
                with torch.no_grad():
                    for weight in criterion.distiller.adapters.parameters():
                        weight.mul_(factor)
                batch = batch_of(rotated=True)
                found.append(float(criterion(model(batch["img"]), batch)[1]["imfu_loss"]))
    assert values["aligned"] == pytest.approx([values["aligned"][0]] * 4, rel=1e-3)
    assert values["none"][0] != pytest.approx(values["none"][1], rel=1e-3)
