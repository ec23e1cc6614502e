"""Position of a training loader: order of the images, random states of its workers, their mosaic buffers.

Ultralytics' loader (8.4.190) lives for an entire run. Its workers fetch ahead across the end of an epoch, each with
separate random states, and mosaics take images from those that the worker loaded last. The batches of an epoch
therefore depend on the epochs before it, and a loader that starts anew in the middle of a run yields other batches.
"""

from __future__ import annotations

import copy
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler, get_worker_info

from ds2d2_yolo.bridge.upstream.rng_state import RandomState

STATE_KEY = "ds2d2_worker"  # key of the worker's state in a batch


@dataclass(frozen=True)
class WorkerState:
    """State that determines a worker's next batch.

    Attributes:
        random (RandomState): Its random states.
        buffer (list[int]): Indices of the images for mosaics, the oldest first.
    """

    random: RandomState
    buffer: list[int]


@dataclass(frozen=True)
class LoaderState:
    """Position of a loader at the end of an epoch.

    Attributes:
        now (Tensor | None): State of the shuffling generator, after fetching ahead; None without shuffling.
        ahead (Tensor | None): Its state before it shuffled the next epoch.
        workers (list[WorkerState]): States for the workers of a loader that starts with the next batch, in the order of
            their turns. A loader without workers has one entry, whose random states do not count.
    """

    now: Tensor | None
    ahead: Tensor | None
    workers: list[WorkerState] = field(default_factory=list)


class StatefulCollate:
    """A data set's collate function whose batches carry the state of the worker that made them.

    Args:
        dataset (Any): Ultralytics data set, with `collate_fn`.
    """

    def __init__(self, dataset: Any) -> None:
        self._collate: Callable[[Sequence[Any]], dict[str, Any]] = dataset.collate_fn
        self._dataset = dataset

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        """Return a batch with the state as bytes, which pinning of memory does not touch."""
        batch = self._collate(samples)
        worker = get_worker_info()
        if worker is not None:
            state = WorkerState(RandomState.capture(cuda=False), list(buffer_of(self._dataset)))
            batch[STATE_KEY] = pickle.dumps((worker.id, state))
        return batch


class RestoredWorkers:
    """Initialises the workers of a loader with the states of earlier ones.

    Args:
        states (Sequence[WorkerState]): One for each worker.
        usual (Callable[[int], None]): The loader's usual initialisation of a worker.
    """

    def __init__(self, states: Sequence[WorkerState], usual: Callable[[int], None]) -> None:
        self._states = states
        self._usual = usual

    def __call__(self, worker: int) -> None:
        """Initialise one worker, inside it."""
        self._usual(worker)
        info = get_worker_info()
        if info is not None:
            fill_buffer(info.dataset, self._states[worker].buffer)
        self._states[worker].random.apply()


class RecordedSampler(Sampler[int]):
    """A shuffling sampler that remembers its generator's state before each epoch, and can begin with a given one.

    Args:
        sampler (Any): torch's `RandomSampler` with a generator.
    """

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self.generator: torch.Generator = sampler.generator
        self.first: Tensor | None = None  # state to begin the next epoch with, once
        self._states: list[Tensor] = []

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        """Shuffle an epoch."""
        if self.first is not None:
            self.generator.set_state(self.first)
            self.first = None
        self._states.append(self.generator.get_state())
        yield from self._sampler

    def forget(self) -> None:
        """Begin to count anew: the loader starts over."""
        self._states.clear()

    def ahead(self, epochs: int) -> Tensor:
        """Return the generator's state before the epoch that follows `epochs` complete ones.

        The loader may have shuffled it already. If not, the sampler may still have to draw what it draws at the end of
        an epoch, which a copy does here.

        Args:
            epochs (int): Number of complete epochs since the loader started.

        Returns:
            (Tensor): State of a `torch.Generator`, uint8.
        """
        if len(self._states) > epochs:
            return self._states[epochs]
        if not self._states:
            return self.generator.get_state()
        twin = copy.copy(self._sampler)
        twin.generator = torch.Generator()
        twin.generator.set_state(self._states[-1])
        deque(twin, maxlen=0)
        return twin.generator.get_state()


class LoaderRecord:
    """Records the position of a training loader, and restores that of another one.

    Args:
        loader (Any): Ultralytics' training loader, not iterated yet.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._batches = 0
        self._latest: dict[int, WorkerState] = {}
        self._usual_init = loader.worker_init_fn
        batches = loader.batch_sampler.sampler  # of torch, inside Ultralytics' endless one
        self._sampler = None
        if getattr(batches.sampler, "generator", None) is not None:
            self._sampler = batches.sampler = RecordedSampler(batches.sampler)

    def take(self, batch: dict[str, Any]) -> None:
        """Count a batch, and take what its worker wrote into it.

        Args:
            batch (dict[str, Any]): A batch of the loader. The entry `STATE_KEY` is removed from it.
        """
        self._batches += 1
        self._loader.worker_init_fn = self._usual_init
        packed = batch.pop(STATE_KEY, None)
        if packed is not None:
            worker, state = pickle.loads(packed)  # from a worker process of this very loader
            self._latest[worker] = state

    def forget(self) -> None:
        """Note that the loader starts over with new workers."""
        self._batches = 0
        self._latest.clear()
        if self._sampler is not None:
            self._sampler.forget()

    def state(self) -> LoaderState:
        """Return the loader's position; to be called at the end of an epoch."""
        workers = self._loader.num_workers
        if workers:
            turn = [(self._batches + i) % workers for i in range(workers)]
            states = [self._latest[w] for w in turn if w in self._latest]
        else:
            states = [WorkerState(RandomState.capture(), list(buffer_of(self._loader.dataset)))]
        if self._sampler is None:
            return LoaderState(None, None, states)
        epochs = self._batches // len(self._loader)
        return LoaderState(self._sampler.generator.get_state(), self._sampler.ahead(epochs), states)

    def restore(self, state: LoaderState, starts_over: bool) -> None:
        """Let the loader, not iterated yet, continue from the position of another one.

        Args:
            state (LoaderState): That position.
            starts_over (bool): Whether the other loader would start over with new workers now, as when mosaics end.
        """
        if self._sampler is not None and state.now is not None:
            if starts_over:
                self._sampler.generator.set_state(state.now)
            else:
                self._sampler.first = state.ahead
        if not self._loader.num_workers:
            fill_buffer(self._loader.dataset, state.workers[0].buffer)
        elif not starts_over:
            self._loader.worker_init_fn = RestoredWorkers(state.workers, self._usual_init)


def buffer_of(dataset: Any) -> list[int]:
    """Return the indices of the images that a data set holds for mosaics; the list is not a copy.

    Args:
        dataset (Any): Ultralytics data set with `buffer`.

    Returns:
        (list[int]): Indices, the oldest first.
    """
    buffer: list[int] = dataset.buffer
    return buffer


def fill_buffer(dataset: Any, images: Sequence[int]) -> None:
    """Load the images that a data set would hold for mosaics.

    Args:
        dataset (Any): Ultralytics data set with `load_image`.
        images (Sequence[int]): Indices of the images, the oldest first.
    """
    for image in images:
        dataset.load_image(image)


def pack_loader(state: LoaderState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a loader's state as tensors and JSON values.

    Args:
        state (LoaderState): The state.

    Returns:
        tensors (dict[str, Tensor]): Generator states by `now` and `ahead`, random states of worker i by `worker{i}.`
            and a name.
        facts (dict[str, Any]): The entry `workers` lists the random facts and the buffer of each worker.
    """
    tensors = {k: t.clone() for k, t in (("now", state.now), ("ahead", state.ahead)) if t is not None}
    facts: list[dict[str, Any]] = []
    for i, worker in enumerate(state.workers):
        random_tensors, random_facts = worker.random.pack()
        tensors |= {f"worker{i}.{k}": t for k, t in random_tensors.items()}
        facts.append({"random": random_facts, "buffer": worker.buffer})
    return tensors, {"workers": facts}


def unpack_loader(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> LoaderState:
    """Return the state that `pack_loader` took apart.

    Args:
        tensors (Mapping[str, Tensor]): Tensors by name, as `pack_loader` returns them.
        facts (Mapping[str, Any]): JSON values, as `pack_loader` returns them.

    Returns:
        (LoaderState): The state.
    """
    workers = []
    for i, worker in enumerate(facts["workers"]):
        prefix = f"worker{i}."
        random_tensors = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        random_state = RandomState.unpack(random_tensors, worker["random"])
        workers.append(WorkerState(random_state, [int(x) for x in worker["buffer"]]))
    return LoaderState(tensors.get("now"), tensors.get("ahead"), workers)
