"""The random state around work that must leave no trace."""

from __future__ import annotations

import random

import numpy as np
import torch
from ultralytics.utils.torch_utils import init_seeds, unset_deterministic

from ds2d2_yolo.bridge.models.adapters import make_adapters
from ds2d2_yolo.bridge.upstream.rng_state import isolate_training_rng


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_state_and_determinism_come_back() -> None:
    init_seeds(5, deterministic=True)
    expected = draw()
    init_seeds(5, deterministic=True)
    with isolate_training_rng(5, deterministic=True):
        init_seeds(99)
        draw()
        unset_deterministic()
    assert draw() == expected
    assert torch.are_deterministic_algorithms_enabled()
    unset_deterministic()


def test_adapters_take_nothing_from_the_global_state() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = make_adapters([4, 8], [16, 16], seed=7)
    assert torch.equal(torch.rand(3), expected)
    second = make_adapters([4, 8], [16, 16], seed=7)
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(first, second, strict=True))
    assert [tuple(a.weight.shape) for a in first] == [(16, 4, 1, 1), (16, 8, 1, 1)]
