"""The global random state, put back after work that must leave no trace in a run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import init_seeds


@contextmanager
def preserved_random_state(seed: int, deterministic: bool) -> Iterator[None]:
    """Restore the random states and the determinism of a training when the context ends.

    A training inside a training (the amplifier's) seeds everything anew and switches determinism off at its end; the
    outer one would then no longer be the run that its seed stands for.

    Args:
        seed (int): The outer training's `seed`.
        deterministic (bool): Its `deterministic`.

    Yields:
        (None): While the context lasts, anything may draw random numbers.
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        init_seeds(seed + 1 + RANK, deterministic=deterministic)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
