"""Memory of tensors, followed from outside of the package."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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


class SavedPeak(saved_tensors_hooks):
    """Follows the bytes that autograd keeps for backward passes while the context lasts, freed graphs left out.

    Each storage counts once while a node keeps it. Parameters and buffers of `owners` do not count.
    """

    def __init__(self, *owners: nn.Module) -> None:
        super().__init__(self._pack, lambda saved: saved.tensor)
        self.now = self.peak = 0
        self.excluded = {t.untyped_storage()._cdata for m in owners for t in (*m.parameters(), *m.buffers())}
        self.users: Counter[int] = Counter()

    def _pack(self, tensor: Tensor) -> SavedTensor:
        # detached: a node that keeps its own output would never be freed
        saved, storage = SavedTensor(tensor.detach()), tensor.untyped_storage()
        if storage._cdata not in self.excluded:
            self.users[storage._cdata] += 1
            if self.users[storage._cdata] == 1:
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
            weakref.finalize(saved, self._drop, storage._cdata, storage.nbytes())
        return saved

    def _drop(self, key: int, size: int) -> None:
        self.users[key] -= 1
        if not self.users[key]:
            self.now -= size


class SavedTensor:
    """What autograd keeps in the place of a tensor: it dies with its node."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
