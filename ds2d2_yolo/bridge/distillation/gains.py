"""The gains of the terms: given or calibrated, and their schedule over the epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ds2d2_yolo.bridge.distillation.gradients.levels import (
    TASK,
    balancing_weights,
    is_positive,
    level_key,
    weighted_norms,
)
from ds2d2_yolo.config.settings import EXPLICIT, TERMS, Settings

CALIBRATION_BATCHES = 8  # batches whose gradients determine the gains
MONITOR_BATCHES = 3  # measured batches of every later epoch, for the log; their median is robust to one outlier
MAX_GAIN = 1e6  # bound for a term whose gradient is close to 0
DOMINANT = 3.0  # a term dominates above this multiple of the task's gradient, or of its share if that is above 1
VANISHING = 0.1  # a term has vanished below this fraction of its share
MIN_MANUAL_SHARE = 1e-3  # likewise for a term whose gain the user set
IMAGES, BATCHES = "images", "batches"  # what was left out


def gain_factor(settings: Settings, epoch: int, epochs: int) -> float:
    """Return the factor of all gains in an epoch. It depends on the epoch only, so that a rerun repeats it.

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
    batches of an epoch. Until the end of the learning-rate warm-up adapters and student are close to noise. The gains
    are therefore measured anew in each epoch, and frozen in the first epoch after the warm-up.

    With `level_balance` 'measured' the same batches give each explicit term its weights of the levels, whether its gain
    is automatic or given: see `balancing_weights`. They are measured and frozen with the automatic gains.

    Args:
        settings (Settings): Shares and manual gains.
        state (Mapping[str, Any] | None): `state()` of an earlier part of the run.

    Attributes:
        factor (float): `gain_factor` of the current epoch.
        automatic (dict[str, float]): The automatic gains measured so far, by term.
        level_weights (dict[str, list[float]]): The weights of the levels measured so far, by term.
        new_weights (dict[str, list[float]]): Those of them that this epoch measured.
        frozen (bool): Whether gains and weights stay as they are.
        measured (list[dict[str, float]]): Gradient norms of each batch of the last epoch with a measurement, those of
            the terms with the weights of the levels.
    """

    def __init__(self, settings: Settings, state: Mapping[str, Any] | None = None) -> None:
        self.settings = settings
        self.automatic: dict[str, float] = dict(state["automatic"]) if state else {}
        self.level_weights: dict[str, list[float]] = dict(state.get("level_weights", {})) if state else {}
        self._balanced = [t.value for t in settings.active if t in EXPLICIT and settings.level_balance == "measured"]
        self._nothing_to_choose = not (settings.shares or self._balanced)
        self.frozen = bool(state["frozen"]) if state else self._nothing_to_choose
        self.new_weights: dict[str, list[float]] = {}
        self.factor = 1.0
        self.measured: list[dict[str, float]] = []
        # until a measurement is complete, every batch improves it
        self._first = not (self.automatic or self.level_weights)
        self._warm = False
        self._batches = CALIBRATION_BATCHES
        self._norms: list[dict[str, float]] = []  # all levels at weight 1
        self._weighted: list[dict[str, float]] = []
        self._one2many_weight = 1.0
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
        self._batches = min(CALIBRATION_BATCHES, batches)
        self._warm = warm
        self._norms, self._weighted = [], []
        self.new_weights = {}
        self._epoch = epoch
        self._left_out = {}

    @property
    def calibrating(self) -> bool:
        """(bool): Whether the next batch is to be measured. After a batch that failed, none of the epoch is."""
        batch_count = min(MONITOR_BATCHES, self._batches) if self.frozen else self._batches
        return self.factor > 0 and all(self._norms) and len(self._norms) < batch_count

    @property
    def calibrated(self) -> bool:
        """(bool): Whether all automatic gains and weights have been measured; later measurements refine or log them."""
        chosen = self.automatic.keys() >= self.settings.shares.keys() and self.level_weights.keys() >= {*self._balanced}
        return self.frozen or (not self._first and chosen)

    def current_weights(self, strides: Sequence[float]) -> dict[str, list[float]]:
        """Return the measured weights of the levels.

        Args:
            strides (Sequence[float]): Strides of the distilled levels.

        Returns:
            (dict[str, list[float]]): By explicit term, zeros until it has been measured. Empty unless
                `level_balance` is 'measured'.
        """
        return {term: self.level_weights.get(term, [0.0] * len(strides)) for term in self._balanced}

    def calibrate(self, norms: Mapping[str, float], one2many_weight: float, strides: Sequence[float]) -> None:
        """Take the gradient norms of one batch, and update the automatic gains and weights that are not frozen.

        Args:
            norms (Mapping[str, float]): Norm of the task loss's gradient (`TASK`) and of each term's at gain 1 and a
                weight of 1 for each level. NaN or 0 where there is none; empty if the batch could not be measured.
            one2many_weight (float): Weight of an end-to-end student's one-to-many branch over its initial weight, 1 for
                other students.
            strides (Sequence[float]): Strides of the distilled levels.
        """
        self._norms.append(dict(norms))
        self._one2many_weight = one2many_weight
        complete = all(self._norms) and len(self._norms) == self._batches
        choose = not self.frozen and (complete or self._first)
        for term in self._balanced if choose else ():
            if weights := balancing_weights(self._norms, term, strides):
                self.level_weights[term] = self.new_weights[term] = weights
        by_term = self.current_weights(strides)
        self.measured = self._weighted = [weighted_norms(n, by_term, strides) for n in self._norms]
        if not choose:
            return
        ratios = {term: self._gradient_ratio(term) for term in {**self.settings.shares, **by_term}}
        for term, share in self.settings.shares.items():
            if (ratio := ratios[term]) is not None:
                self.automatic[term] = min(MAX_GAIN, share / (ratio * one2many_weight))
        self._first = self._first and not complete
        # an epoch of NaN, which Ultralytics repeats, freezes nothing
        self.frozen = complete and self._warm and None not in ratios.values()

    def count_left_out(self, valid: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Count the images and terms that a batch left out, without waiting for a GPU.

        Args:
            valid (Tensor): B bool, images with finite outputs of the teacher.
            terms (Mapping[str, Tensor]): Scalar bools by term, whether it was left out.
        """
        any_term = torch.stack(list(terms.values())).any()
        for key, value in ((IMAGES, (~valid).sum()), (BATCHES, any_term), *terms.items()):
            self._left_out[key] = self._left_out.get(key, 0) + value.long()

    def current(self, one2many_weight: float) -> dict[str, float]:
        """Return the gain of each active term for the next batch.

        Args:
            one2many_weight (float): As in `calibrate`. The gains follow it, or they would grow against the task loss.

        Returns:
            (dict[str, float]): By term; 0 for a term that could not be measured yet.
        """
        base = {**{str(term): 0.0 for term in self.settings.active}, **self.automatic, **self.settings.fixed}
        return {term: base[term] * self.factor * one2many_weight for term in self.settings.active}

    def recalibrate(self) -> None:
        """Measure again from the next batch on; called when the batch size changes."""
        self.frozen = self._nothing_to_choose
        self._first = True
        self._norms, self._weighted = [], []

    def state(self) -> dict[str, Any]:
        """Return the state that a resumed run needs, as JSON values."""
        return {
            "automatic": dict(self.automatic),
            "level_weights": dict(self.level_weights),
            "frozen": self.frozen,
        }

    def shares(self, stride: float | None = None) -> dict[str, float]:
        """Return the measured share of each active term at its gain in this epoch.

        Args:
            stride (float | None): Level on which both gradients are taken; None takes all distilled levels together.

        Returns:
            (dict[str, float]): By term, NaN where none was measured.
        """
        gains = self.current(self._one2many_weight)
        return {t: math.nan if (m := self._gradient_ratio(t, stride)) is None else gains[t] * m for t in gains}

    def columns(self, strides: Sequence[float] = ()) -> dict[str, float]:
        """Return the columns of results.csv: gradient of the task loss, gain and share of each term, counts left out.

        `left_out/images` counts images without finite outputs of the teacher. `left_out/batches` counts batches with a
        term that is not finite. Both are those of the process that writes them.

        Args:
            strides (Sequence[float]): Levels with columns of their own, such as `grad/task@8` and `share/exlo@8`: both
                gradients are those on the level.

        Returns:
            (dict[str, float]): The same columns in every epoch: NaN if nothing was measured, 0 for a term that is off.
        """
        gains, shares = self.current(self._one2many_weight), self.shares()
        columns = {f"grad/{TASK}": self._task_gradient()}
        columns |= {f"gain/{t}": gains.get(t, 0.0) for t in TERMS}
        columns |= {f"share/{t}": shares.get(t, 0.0) for t in TERMS}
        for term, weights in self.current_weights(strides).items():
            columns |= {f"weight/{level_key(term, s)}": w for s, w in zip(strides, weights, strict=True)}
        columns |= {f"grad/{level_key(TASK, s)}": self._task_gradient(s) for s in strides}
        for stride in strides:
            shares = self.shares(stride)
            columns |= {f"share/{level_key(t, stride)}": shares.get(t, 0.0) for t in TERMS}
        return columns | {f"left_out/{k}": float(self._left_out.get(k, 0)) for k in (IMAGES, BATCHES)}

    def warnings(self) -> dict[str, str]:
        """Return the warnings of this epoch by key: a term dominates the task loss, has vanished or was left out."""
        messages = {}
        # the epoch in the key repeats the message in every epoch
        if images := int(self._left_out.get(IMAGES, 0)):
            messages[f"{IMAGES} {self._epoch}"] = (
                f"{images} images had no finite answer of the teacher and count nothing"
            )
        if terms := [f"{t} in {n}" for t in TERMS if (n := int(self._left_out.get(t, 0)))]:
            messages[f"{BATCHES} {self._epoch}"] = f"not finite, and left out of these batches: {', '.join(terms)}"
        if not all(self._norms):
            messages["unmeasured"] = "the memory does not suffice to measure gradients: the gains stay as they are"
        for term, share in self.shares().items():
            if message := self._share_warning(term, share):
                messages[term] = message
        return messages

    def _share_warning(self, term: str, share: float) -> str | None:
        """Return the warning about a term's measured share, None if the share is in order."""
        target_share = self.settings.shares.get(term)
        minimum = MIN_MANUAL_SHARE if target_share is None else VANISHING * target_share
        if math.isnan(share) and any(self._norms) and self.factor > 0:
            return f"{term} has vanished: no gradient of it could be measured"
        if share > DOMINANT * max(1.0, target_share or 0.0):
            return (
                f"{term} dominates: its gradient is {share:.3g} times that of the task loss, lower its gain or "
                f"{term}_share"
            )
        if share < minimum * self.factor:
            return f"{term} has vanished: its gradient is {share:.2g} times that of the task loss"
        return None

    def _task_gradient(self, stride: float | None = None) -> float:
        """Return the norm of the task loss's gradient, the median over the measured batches, NaN for none."""
        norms = [norm for n in self._weighted if is_positive(norm := n.get(level_key(TASK, stride)))]
        return median(norms) if norms else math.nan

    def _gradient_ratio(self, term: str, stride: float | None = None) -> float | None:
        """Return the term's gradient at gain 1 over the task loss's, the median over the measured batches."""
        key, task = level_key(term, stride), level_key(TASK, stride)
        ratios = [n[key] / n[task] for n in self._weighted if is_positive(n.get(key)) and is_positive(n.get(task))]
        return median(ratios) if ratios else None
