"""A run that is cut off goes on as if it had not been: a side file beside last.pt holds what that one lacks.

last.pt holds the averaged weights in half precision and no random state (Ultralytics 8.4.190), so a run that goes on
from it alone is another run from there on. The side file has the live and the averaged weights and the optimizer's
state in full precision, gradients that wait for a step, random states and the loader's place. It is written before
last.pt and bears its epoch, so a kill between the two leaves a pair that fits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.training.hooks.loader_state import LoaderRecord, StatefulCollate, pack_loader, unpack_loader
from ds2d2_yolo.bridge.upstream.rng_state import RandomState
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.utils.atomic_files import replacing

FORMAT = "ds2d2-resume-1"


@dataclass(frozen=True)
class SideFile:
    """What a run needs besides last.pt to go on as if it had not been cut off.

    Attributes:
        tensors (dict[str, Tensor]): By part: `model.`, `ema.`, `optimizer.`, `gradient.`, `random.` and `loader.`.
        facts (dict[str, Any]): Everything else, as JSON keeps it.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a part by their own names."""
        return {k.removeprefix(f"{name}."): t for k, t in self.tensors.items() if k.startswith(f"{name}.")}

    def write(self, path: Path) -> None:
        """Write the file whole or not at all."""
        tensors = {k: t.detach().cpu().contiguous() for k, t in self.tensors.items()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"format": FORMAT, "facts": json.dumps(self.facts)})

    @classmethod
    def read(cls, path: Path) -> SideFile | None:
        """Return a side file, None where there is none that can be read."""
        try:
            with safe_open(path, framework="pt") as f:
                metadata = f.metadata() or {}
                if metadata.get("format") != FORMAT:
                    return None
                facts = json.loads(metadata["facts"])
                return cls({k: f.get_tensor(k) for k in f.keys()}, facts) if isinstance(facts, dict) else None  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, KeyError):
            return None


def side_file(weights: Path, epoch: int) -> Path:
    """Return the place of the side file of an epoch."""
    return weights / f"resume-{epoch}.safetensors"


def drop_side_files(weights: Path, but: Path | None = None) -> None:
    """Remove the side files of a run, and what a kill left of one, but for one of them."""
    # safetensors (0.8) writes into a temporary file of its own beside the one that it is given
    for file in (*weights.glob("resume-*.safetensors"), *weights.glob(".resume-*.tmp"), *weights.glob(".tmp??????")):
        if file != but and file.is_file():
            file.unlink(missing_ok=True)


class ExactResume(DetectionTrainer):
    """A trainer whose resumed runs end as uninterrupted ones, to the bit on a CPU; in one process, not under DDP.

    Attributes:
        settings (Settings): `exact_resume` switches it off.
    """

    settings: Settings
    accumulate: int
    metrics: dict[str, Any]
    _record: LoaderRecord | None = None
    _resumed: SideFile | None = None
    _since_step = 0  # batches since the optimizer's last step
    _own_cadence = False  # whether this decides when the optimizer steps, until it has done so once
    _nominal = 1

    @property
    def _exact(self) -> bool:
        """(bool): Whether a side file is kept."""
        return self.settings.exact_resume and RANK == -1

    # Following the run --------------------------------------------------------------------------------------------
    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Build a data set; the training batches carry the states of the workers that make them."""
        dataset = super().build_dataset(img_path, mode, batch)
        if mode == "train" and self._exact:
            dataset.collate_fn = StatefulCollate(dataset)
        return dataset

    def _build_train_pipeline(self) -> None:
        """Build the loaders and follow the training one; after an out-of-memory restart it is another one."""
        super()._build_train_pipeline()
        self._record = LoaderRecord(self.train_loader) if self._exact else None
        self._resumed, self._since_step, self._own_cadence = None, 0, False

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Count the batch. While the cadence of steps is ours, let Ultralytics ask for a step after each batch."""
        if self._record is not None:
            self._record.take(batch)
        self._since_step += 1
        if self._own_cadence:
            self._nominal, self.accumulate = self.accumulate, 1
        return super().preprocess_batch(batch)

    def optimizer_step(self) -> None:
        """Step, unless it is not yet due: Ultralytics steps after the first batch of a resumed run, whatever waits."""
        if self._own_cadence:
            self.accumulate = self._nominal
            if self._since_step < self.accumulate:
                return
            self._own_cadence = False
        self._since_step = 0
        super().optimizer_step()

    def _close_dataloader_mosaic(self) -> None:
        """End the mosaics; the loader starts over then."""
        super()._close_dataloader_mosaic()
        if self._record is not None:
            self._record.forget()

    # Writing ------------------------------------------------------------------------------------------------------
    def save_model(self) -> bool:
        """Save as usual, the side file of the same epoch first."""
        if not self._exact:
            return super().save_model()
        file = side_file(self.wdir, self.epoch)
        self._side().write(file)
        try:
            saved = super().save_model()
        except Exception:  # such as a full disk: last.pt is that of the epoch before
            file.unlink(missing_ok=True)
            raise
        drop_side_files(self.wdir, but=file)
        return saved

    def _side(self) -> SideFile:
        """Return the run's state at the end of an epoch."""
        model = unwrap_model(self.model)
        tensors = {f"model.{k}": t.clone() for k, t in model.state_dict().items()}
        tensors |= {f"ema.{k}": t.clone() for k, t in self.ema.ema.state_dict().items()}
        tensors |= {f"gradient.{k}": p.grad for k, p in model.named_parameters() if p.grad is not None}
        numbers: dict[str, dict[str, Any]] = {}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items() if isinstance(v, Tensor)}
            numbers[str(i)] = {k: v for k, v in state.items() if not isinstance(v, Tensor)}
        own, said = RandomState.capture().pack()
        tensors |= {f"random.{k}": t for k, t in own.items()}
        facts = {"random": said, "optimizer": numbers, "since_step": self._since_step, "shape": self._shape()}
        facts |= {"possible_stop": bool(self.stopper.possible_stop), "torch": torch.__version__}
        facts |= {"metrics": _numbers(self.metrics), "fitness": None if self.fitness is None else float(self.fitness)}
        if self._record is not None:
            own, facts["loader"] = pack_loader(self._record.state())
            tensors |= {f"loader.{k}": t for k, t in own.items()}
        return SideFile(tensors, facts)

    def _shape(self) -> list[int]:
        """Return what the loader's place means something for: images, batch size, workers and image size."""
        loader = self.train_loader
        return [len(loader.dataset), self.batch_size, loader.num_workers, int(self.args.imgsz)]

    # Going on -----------------------------------------------------------------------------------------------------
    def _setup_train(self) -> None:
        """Set up as usual; a resumed run takes weights and optimizer of its side file instead of last.pt's."""
        super()._setup_train()
        if not self.resume or not self._exact:
            return
        side = SideFile.read(side_file(self.wdir, self.start_epoch - 1))
        if side is None:
            LOGGER.warning(
                "DS2D2: no side file of this epoch beside last.pt: the run goes on from half-precision averaged weights"
            )
            return
        self._take_weights(side)
        self._resumed = side

    def _take_weights(self, side: SideFile) -> None:
        """Put weights, averages and the optimizer's state in their places."""
        unwrap_model(self.model).load_state_dict(side.part("model"))
        self.ema.ema.load_state_dict(side.part("ema"))
        state: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in side.facts["optimizer"].items()}
        for name, tensor in side.part("optimizer").items():
            i, _, key = name.partition(".")
            state[int(i)][key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.stopper.possible_stop = side.facts["possible_stop"]
        self.metrics = {**self.metrics, **side.facts["metrics"]}
        self.fitness = side.facts["fitness"]

    def _model_train(self) -> None:
        """Begin an epoch; the first of a resumed run with gradients, loader and random states as they were left."""
        super()._model_train()
        if self._resumed is None:
            return
        side, self._resumed = self._resumed, None
        if side.facts["shape"] != self._shape() or self._record is None:
            LOGGER.warning(
                "DS2D2: batch, imgsz, workers or images are not the run's own: the data come in another order"
            )
            return
        gradients = side.part("gradient")
        for name, parameter in unwrap_model(self.model).named_parameters():
            if name in gradients and parameter.requires_grad:  # a resumed run may have frozen more
                parameter.grad = gradients[name].to(parameter.device)
        self._since_step, self._own_cadence = side.facts["since_step"], True
        starts_over = bool(self.args.close_mosaic) and self.epoch == self.epochs - self.args.close_mosaic
        self._record.go_on(unpack_loader(side.part("loader"), side.facts["loader"]), starts_over)
        RandomState.unpack(side.part("random"), side.facts["random"]).apply()


def _numbers(values: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the finite numbers among metrics, as JSON keeps them."""
    return {k: float(v) for k, v in (values or {}).items() if math.isfinite(float(v))}
