"""The global random state: kept, put back, and packed into a file."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import init_seeds


@dataclass(frozen=True)
class RandomState:
    """The state of every global generator that a training draws from.

    Attributes:
        python (tuple[Any, ...]): Of `random`.
        numpy (tuple[Any, ...]): Of `numpy.random`.
        cpu (Tensor): Of torch on the CPU.
        cuda (tuple[Tensor, ...]): Of torch on each CUDA device.
    """

    python: tuple[Any, ...]
    numpy: tuple[Any, ...]
    cpu: Tensor
    cuda: tuple[Tensor, ...] = ()

    @classmethod
    def capture(cls, cuda: bool = True) -> RandomState:
        """Return the state as it is now, without CUDA's where a forked process must not touch it."""
        devices = torch.cuda.get_rng_state_all() if cuda and torch.cuda.is_available() else []
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), tuple(devices))  # type: ignore[arg-type]

    def apply(self) -> None:
        """Make this the state; that of a CUDA device which is not there is left out."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.cuda and torch.cuda.is_available() and len(self.cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(list(self.cuda))

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as tensors and JSON values."""
        version, words, gauss = self.python
        kind, keys, position, has_gauss, cached = self.numpy
        tensors = {
            "python": torch.tensor(words, dtype=torch.int64),
            "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "cpu": self.cpu.clone(),
            **{f"cuda{i}": t.clone() for i, t in enumerate(self.cuda)},
        }
        facts = {"python": [version, gauss], "numpy": [kind, int(position), int(has_gauss), float(cached)]}
        return tensors, facts

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> RandomState:
        """Return the state that `pack` took apart."""
        version, gauss = facts["python"]
        kind, position, has_gauss, cached = facts["numpy"]
        return cls(
            (version, tuple(tensors["python"].tolist()), gauss),
            (kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached),
            tensors["cpu"],
            tuple(tensors[f"cuda{i}"] for i in range(sum(k.startswith("cuda") for k in tensors))),
        )


@contextmanager
def preserve_rng() -> Iterator[None]:
    """Put the global random states back when the context ends."""
    state = RandomState.capture()
    try:
        yield
    finally:
        state.apply()


@contextmanager
def isolate_training_rng(seed: int, deterministic: bool) -> Iterator[None]:
    """Restore the random states and the determinism of a training when the context ends.

    A training inside a training (the amplifier's) seeds everything anew and switches determinism off at its end; the
    outer one would then no longer be the run that its seed stands for.

    Args:
        seed (int): The outer training's `seed`.
        deterministic (bool): Its `deterministic`.

    Yields:
        (None): While the context lasts, anything may draw random numbers.
    """
    with preserve_rng():
        try:
            yield
        finally:
            init_seeds(seed + 1 + RANK, deterministic=deterministic)
