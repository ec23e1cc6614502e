"""The gains of the terms: given or measured, and how they go over the epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ds2d2_yolo.config.settings import TERMS, Settings

TASK = "task"
SETTLING = 8  # batches whose gradients settle the gains
WATCHED = 3  # batches of every later epoch whose gradients are measured for the log: their median stands an outlier
LARGEST = 1e6  # a term whose gradient is next to nothing is not blown up without bound
DOMINANT = 3.0  # times the task's gradient, or times its share if that is above 1, at which a term dominates
VANISHING = 0.1  # fraction of the wanted share below which a term has vanished
IMAGES, BATCHES = "images", "batches"  # what was left out
FAINT = 1e-3  # share below which a term with a gain of the user's own has vanished


def gain_factor(settings: Settings, epoch: int, epochs: int) -> float:
    """Return what the gains are multiplied by in an epoch; a function of the epoch alone, so that a rerun repeats it.

    ``warm-up x schedule``: the warm-up rises as (epoch + 1) / (gain_warmup + 1); the schedule falls from 1 at the first
    epoch to `gain_final` at the last one with distillation, on a line or half a cosine.

    Args:
        settings (Settings): `gain_warmup`, `gain_schedule`, `gain_final` and `gain_epochs`.
        epoch (int): Epoch, from 0.
        epochs (int): Epochs of the run.

    Returns:
        (float): From 0 to 1; 0 from epoch `gain_epochs` on.
    """
    last = min(epochs, settings.gain_epochs or epochs) - 1
    if settings.gain_epochs is not None and epoch > last:
        return 0.0
    rise = min(1.0, (epoch + 1) / (settings.gain_warmup + 1))
    done = min(1.0, epoch / last) if last > 0 else 0.0
    left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[settings.gain_schedule]
    return rise * (settings.gain_final + (1 - settings.gain_final) * left)


class Gains:
    """The gain of each active term, from the gradients that terms and task loss send into the student's neck.

    An automatic gain is ``share x |gradient of the task loss| / |gradient of the term|``, the median over the first
    batches of an epoch. Before the end of the learning-rate warm-up adapters and student are still noise, so the gains
    are measured anew in each epoch until the first one after it settles them.

    Args:
        settings (Settings): Shares and given gains.
        state (Mapping[str, Any] | None): `state()` of an earlier part of the run.

    Attributes:
        factor (float): `gain_factor` of the running epoch.
        settled (bool): Whether the automatic gains are chosen for good.
    """

    def __init__(self, settings: Settings, state: Mapping[str, Any] | None = None) -> None:
        self.settings = settings
        self.chosen: dict[str, float] = dict(state["chosen"]) if state else {}
        self.settled = bool(state["settled"]) if state else not settings.shares
        self.factor = 1.0
        self._first = not self.chosen  # until a measurement is complete, every batch improves it
        self._warm = False
        self._needed = SETTLING
        self._norms: list[dict[str, float]] = []
        self._fading = 1.0
        self._epoch = 0
        self._left_out: dict[str, Tensor] = {}

    def start_epoch(self, epoch: int, epochs: int, batches: int, warm: bool) -> None:
        """Begin an epoch.

        Args:
            epoch (int): Epoch, from 0.
            epochs (int): Epochs of the run.
            batches (int): Batches of an epoch.
            warm (bool): Whether the learning-rate warm-up is over.
        """
        self.factor = gain_factor(self.settings, epoch, epochs)
        self._needed = min(SETTLING, batches)
        self._warm = warm
        self._norms = []
        self._epoch = epoch
        self._left_out = {}

    @property
    def due(self) -> bool:
        """(bool): Whether the next batch is to be measured; none of this epoch after one that could not be."""
        wanted = min(WATCHED, self._needed) if self.settled else self._needed
        return self.factor > 0 and all(self._norms) and len(self._norms) < wanted

    @property
    def known(self) -> bool:
        """(bool): Whether every automatic gain has been measured: what is still to come improves or shows it."""
        return self.settled or (not self._first and self.chosen.keys() >= self.settings.shares.keys())

    def record(self, norms: Mapping[str, float], fading: float) -> None:
        """Take the gradient norms of one batch and choose the gains that are still open.

        Args:
            norms (Mapping[str, float]): Norm of the task loss's gradient (`TASK`) and of each term's at gain 1; NaN or
                0 where there is none; empty if the batch could not be measured.
            fading (float): Weight of an end-to-end student's one-to-many branch over its first weight, 1 for others.
        """
        self._norms.append(dict(norms))
        self._fading = fading
        complete = all(self._norms) and len(self._norms) == self._needed
        if self.settled or not (complete or self._first):
            return
        ratios = {term: self._median_share(term) for term in self.settings.shares}
        for term, ratio in ratios.items():
            if ratio is not None:
                self.chosen[term] = min(LARGEST, self.settings.shares[term] / (ratio * fading))
        self._first = self._first and not complete
        # an epoch of NaN, which Ultralytics repeats, settles nothing
        self.settled = complete and self._warm and None not in ratios.values()

    def note_left_out(self, sound: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Count what a batch left out of the terms, without waiting for a GPU.

        Args:
            sound (Tensor): B bool, the images on which the teacher gave usable numbers.
            terms (Mapping[str, Tensor]): Scalar bools by term, whether it was left out.
        """
        whole = torch.stack(list(terms.values()))
        for key, value in ((IMAGES, (~sound).sum()), (BATCHES, whole.any()), *terms.items()):
            self._left_out[key] = self._left_out.get(key, 0) + value.long()

    def current(self, fading: float) -> dict[str, float]:
        """Return the gain of each active term for the next batch.

        Args:
            fading (float): As in `record`; the gains follow it, or they would grow against the task loss.

        Returns:
            (dict[str, float]): By term; a term that could not be measured yet has gain 0.
        """
        base = {**{str(term): 0.0 for term in self.settings.active}, **self.chosen, **self.settings.fixed}
        return {term: base[term] * self.factor * fading for term in self.settings.active}

    def forget(self) -> None:
        """Measure again: the batch size has changed."""
        self.settled = not self.settings.shares
        self._first = True
        self._norms = []

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, plain values."""
        return {"chosen": dict(self.chosen), "settled": self.settled}

    def _median_share(self, term: str) -> float | None:
        """Return the term's gradient at gain 1 over the task loss's, the median over this epoch's batches."""
        ratios = [n[term] / n[TASK] for n in self._norms if _usable(n.get(term)) and _usable(n.get(TASK))]
        return median(ratios) if ratios else None

    def shares(self) -> dict[str, float]:
        """Return the measured share of each active term at its gain in this epoch, NaN where none was measured."""
        gains = self.current(self._fading)
        return {t: math.nan if (m := self._median_share(t)) is None else gains[t] * m for t in gains}

    def row(self) -> dict[str, float]:
        """Return the columns of results.csv: the task loss's gradient, gain and share of every term, what was left out.

        `left_out/images` counts images on which the teacher had no usable answer, `left_out/batches` those in which a
        term was not finite; of the process that writes them.
        """
        gains, shares = self.current(self._fading), self.shares()
        task = [n[TASK] for n in self._norms if _usable(n.get(TASK))]
        columns = {f"grad/{TASK}": median(task) if task else math.nan}
        columns |= {f"gain/{t}": gains.get(t, 0.0) for t in TERMS}
        columns |= {f"share/{t}": shares.get(t, 0.0) for t in TERMS}
        return columns | {f"left_out/{k}": float(self._left_out.get(k, 0)) for k in (IMAGES, BATCHES)}

    def remarks(self) -> dict[str, str]:
        """Return what is wrong in this epoch: a term dominates the task loss, has vanished or was left out."""
        said = {}
        # with the epoch in the key: said in each one
        if images := int(self._left_out.get(IMAGES, 0)):
            said[f"{IMAGES} {self._epoch}"] = f"{images} images had no finite answer of the teacher and count nothing"
        if terms := [f"{t} in {n}" for t in TERMS if (n := int(self._left_out.get(t, 0)))]:
            said[f"{BATCHES} {self._epoch}"] = f"not finite, and left out of these batches: {', '.join(terms)}"
        if not all(self._norms):
            said["unmeasured"] = "the memory does not suffice to measure gradients: the gains stay as they are"
        for term, share in self.shares().items():
            wanted = self.settings.shares.get(term)
            floor = FAINT if wanted is None else VANISHING * wanted
            if math.isnan(share) and any(self._norms) and self.factor > 0:
                said[term] = f"{term} has vanished: no gradient of it could be measured"
            elif share > DOMINANT * max(1.0, wanted or 0.0):
                said[term] = f"{term} dominates: its gradient is {share:.3g} times that of the task loss, lower its "
                said[term] += f"gain or {term}_share"
            elif share < floor * self.factor:
                said[term] = f"{term} has vanished: its gradient is {share:.2g} times that of the task loss"
        return said


def _usable(norm: float | None) -> bool:
    """Return whether a norm was measured and is neither 0 nor infinite."""
    return norm is not None and math.isfinite(norm) and norm > 0
