"""Exact resume: a file beside last.pt holds the state that last.pt lacks. A resumed run equals an uninterrupted one.

last.pt holds the averaged weights in half precision and no random state (Ultralytics 8.4.190). A run resumed from it
only is another run from there on. The resume file holds the live and the averaged weights and the optimizer's state in
full precision, pending gradients, random states and the loader's position. It is written before last.pt and named after
its epoch, so a kill between the two leaves a matching pair.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.training.hooks.loader_state import LoaderRecord, StatefulCollate, pack_loader, unpack_loader
from ds2d2_yolo.bridge.upstream.rng_state import RandomState
from ds2d2_yolo.utils.atomic_files import replacing

FORMAT = "ds2d2-resume-1"


@dataclass(frozen=True)
class ResumeState:
    """The state that a run needs besides last.pt to continue exactly.

    Attributes:
        tensors (dict[str, Tensor]): By part: `model.`, `ema.`, `optimizer.`, `gradient.`, `random.` and `loader.`.
        facts (dict[str, Any]): All other values, as JSON.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a part, by their names within it.

        Args:
            name (str): The part without its dot, such as 'model'.

        Returns:
            (dict[str, Tensor]): Name to tensor. It is empty if the state lacks the part.
        """
        return {k.removeprefix(f"{name}."): t for k, t in self.tensors.items() if k.startswith(f"{name}.")}

    def write(self, path: Path) -> None:
        """Write the file atomically.

        Args:
            path (Path): The file. An existing one is replaced.
        """
        tensors = {k: t.detach().cpu().contiguous() for k, t in self.tensors.items()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"format": FORMAT, "facts": json.dumps(self.facts)})

    @classmethod
    def read(cls, path: Path) -> ResumeState | None:
        """Return the state in a file, None if there is no readable one.

        Args:
            path (Path): The file.

        Returns:
            (ResumeState | None): The state, its tensors on the CPU.
        """
        try:
            with safe_open(path, framework="pt") as f:
                metadata = f.metadata() or {}
                if metadata.get("format") != FORMAT:
                    return None
                facts = json.loads(metadata["facts"])
                return cls({k: f.get_tensor(k) for k in f.keys()}, facts) if isinstance(facts, dict) else None  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, KeyError):
            return None


def resume_file(weights: Path, epoch: int) -> Path:
    """Return the path of the resume file of an epoch.

    Args:
        weights (Path): The run's `weights` folder.
        epoch (int): The epoch, counted from 0.

    Returns:
        (Path): The path. The file need not exist.
    """
    return weights / f"resume-{epoch}.safetensors"


def remove_resume_files(weights: Path, keep: Path | None = None) -> None:
    """Remove the resume files of a run, incomplete ones included.

    Args:
        weights (Path): The run's `weights` folder.
        keep (Path | None): A file that stays.
    """
    # safetensors (0.8) writes into a temporary file beside the one that it is given
    for file in (*weights.glob("resume-*.safetensors"), *weights.glob(".resume-*.tmp"), *weights.glob(".tmp??????")):
        if file != keep and file.is_file():
            file.unlink(missing_ok=True)


class ExactResume:
    """Lets a trainer's resumed runs end as uninterrupted ones, to the bit on a CPU; in one process, not under DDP.

    Args:
        trainer (Any): The trainer.
        enabled (bool): Whether resume files are written and read.
    """

    def __init__(self, trainer: Any, enabled: bool) -> None:
        self._trainer = trainer
        self.enabled = enabled and RANK == -1
        self._record: LoaderRecord | None = None
        self._restored: ResumeState | None = None
        self._batches_since_step = 0
        self._controls_steps = False  # whether this decides when the optimizer steps, until it has done so once
        self._nominal_accumulate = 1

    # Following the run --------------------------------------------------------------------------------------------
    def prepare_dataset(self, dataset: Any) -> Any:
        """Let the training batches carry the states of the workers that make them, and return the data set.

        Args:
            dataset (Any): Ultralytics data set with `collate_fn`, which is replaced.

        Returns:
            (Any): The same data set. It is unchanged if resume files are off.
        """
        if self.enabled:
            dataset.collate_fn = StatefulCollate(dataset)
        return dataset

    def follow_loader(self) -> None:
        """Follow the training loader; to be called when it was built, also after an out-of-memory restart."""
        self._record = LoaderRecord(self._trainer.train_loader) if self.enabled else None
        self._restored, self._batches_since_step, self._controls_steps = None, 0, False

    def restart_loader(self) -> None:
        """Note that the loader starts over, as at the end of the mosaics."""
        if self._record is not None:
            self._record.forget()

    def count_batch(self, batch: dict[str, Any]) -> None:
        """Count a batch. While this controls the steps, Ultralytics is made to ask for one after each batch.

        Args:
            batch (dict[str, Any]): A batch of the training loader. The worker's state is removed from it.
        """
        trainer = self._trainer
        if self._record is not None:
            self._record.take(batch)
        self._batches_since_step += 1
        if self._controls_steps:
            self._nominal_accumulate, trainer.accumulate = trainer.accumulate, 1

    def step_due(self) -> bool:
        """Return whether the optimizer is to step now.

        Ultralytics steps after the first batch of a resumed run, however many batches are to be accumulated.
        """
        trainer = self._trainer
        if self._controls_steps:
            trainer.accumulate = self._nominal_accumulate
            if self._batches_since_step < trainer.accumulate:
                return False
            self._controls_steps = False
        self._batches_since_step = 0
        return True

    # Writing ------------------------------------------------------------------------------------------------------
    def save(self, save_model: Callable[[], bool]) -> bool:
        """Write the resume file of the epoch, then save the checkpoints, then remove older resume files.

        Args:
            save_model (Callable[[], bool]): Saves the checkpoints.

        Returns:
            (bool): Its result.
        """
        if not self.enabled:
            return save_model()
        trainer = self._trainer
        file = resume_file(trainer.wdir, trainer.epoch)
        self._state().write(file)
        try:
            saved = save_model()
        except Exception:  # such as a full disk: last.pt is that of the epoch before
            file.unlink(missing_ok=True)
            raise
        remove_resume_files(trainer.wdir, keep=file)
        return saved

    def _state(self) -> ResumeState:
        """Return the run's state at the end of an epoch."""
        trainer = self._trainer
        model = unwrap_model(trainer.model)
        tensors = {f"model.{k}": t.clone() for k, t in model.state_dict().items()}
        tensors |= {f"ema.{k}": t.clone() for k, t in trainer.ema.ema.state_dict().items()}
        tensors |= {f"gradient.{k}": p.grad for k, p in model.named_parameters() if p.grad is not None}
        numbers: dict[str, dict[str, Any]] = {}
        for i, state in trainer.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
            numbers[str(i)] = {k: v for k, v in state.items() if not isinstance(v, Tensor)}
        random_tensors, random_facts = RandomState.capture().pack()
        tensors |= {f"random.{k}": t for k, t in random_tensors.items()}
        facts = {"random": random_facts, "optimizer": numbers, "since_step": self._batches_since_step}
        facts |= {"shape": self._shape(), "possible_stop": bool(trainer.stopper.possible_stop)}
        facts |= {"torch": torch.__version__, "metrics": _finite_numbers(trainer.metrics)}
        facts["fitness"] = None if trainer.fitness is None else float(trainer.fitness)
        if self._record is not None:
            loader_tensors, facts["loader"] = pack_loader(self._record.state())
            tensors |= {f"loader.{k}": t for k, t in loader_tensors.items()}
        return ResumeState(tensors, facts)

    def _shape(self) -> list[int]:
        """Return the conditions under which the loader's position is valid: images, batch size, workers, image size."""
        trainer = self._trainer
        loader = trainer.train_loader
        second = trainer.second_images
        beside = [] if second is None else [second.number, second.parts.unlabelled]
        return [len(loader.dataset), trainer.batch_size, loader.num_workers, int(trainer.args.imgsz), *beside]

    # Continuing ---------------------------------------------------------------------------------------------------
    def restore_weights(self) -> None:
        """Restore weights and optimizer of a resumed run from its resume file instead of last.pt."""
        trainer = self._trainer
        if not trainer.resume or not self.enabled:
            return
        state = ResumeState.read(resume_file(trainer.wdir, trainer.start_epoch - 1))
        if state is None:
            LOGGER.warning(
                "DS2D2: no side file of this epoch beside last.pt: the run goes on from half-precision averaged weights"
            )
            return
        unwrap_model(trainer.model).load_state_dict(state.part("model"))
        trainer.ema.ema.load_state_dict(state.part("ema"))
        optimizer: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in state.facts["optimizer"].items()}
        for name, tensor in state.part("optimizer").items():
            i, _, key = name.partition(".")
            optimizer[int(i)][key] = tensor
        trainer.optimizer.load_state_dict({**trainer.optimizer.state_dict(), "state": optimizer})
        trainer.stopper.possible_stop = state.facts["possible_stop"]
        trainer.metrics = {**trainer.metrics, **state.facts["metrics"]}
        trainer.fitness = state.facts["fitness"]
        self._restored = state

    def start_epoch(self) -> None:
        """Restore gradients, loader and random states at the start of a resumed run's first epoch."""
        if self._restored is None:
            return
        trainer = self._trainer
        state, self._restored = self._restored, None
        if state.facts["shape"] != self._shape() or self._record is None:
            LOGGER.warning(
                "DS2D2: batch, imgsz, workers or images are not the run's own: the data come in another order"
            )
            return
        gradients = state.part("gradient")
        for name, parameter in unwrap_model(trainer.model).named_parameters():
            if name in gradients and parameter.requires_grad:  # a resumed run may have frozen more
                parameter.grad = gradients[name].to(parameter.device)
        self._batches_since_step, self._controls_steps = state.facts["since_step"], True
        closes_mosaic = trainer.args.close_mosaic
        starts_over = bool(closes_mosaic) and trainer.epoch == trainer.epochs - closes_mosaic
        self._record.restore(unpack_loader(state.part("loader"), state.facts["loader"]), starts_over)
        RandomState.unpack(state.part("random"), state.facts["random"]).apply()


def _finite_numbers(values: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the finite numbers among metrics, as JSON values."""
    return {k: float(v) for k, v in (values or {}).items() if math.isfinite(float(v))}
