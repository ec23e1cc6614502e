"""The settings of DS2D2: one typed, validated object, the same names on the command line, in Python and in YAML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.options import Options, option

EXPLICIT = ("exlo", "exhi")
IMPLICIT = ("imfu", "imhi")
TERMS = (*EXPLICIT, *IMPLICIT)
SCHEDULES = ("constant", "linear", "cosine")


def _gain(about: str) -> Any:
    """Declare the gain of a term."""
    return option(None, ok.optional(ok.number(0)), f"{about}: 0 turns it off; unset, gains holds")


def _share(default: float) -> Any:
    """Declare the share of a term."""
    return option(default, ok.number(0, above=True), "its gradient over the task loss's where the gain is automatic")


@dataclass(frozen=True)
class Settings(Options):
    """Settings of a distillation, validated when made.

    Attributes:
        teacher (str | None): Trained Ultralytics checkpoint (.pt) of the student's task.
        recipe (str | None): Named settings under the ones given here: a file of `cfg/recipes` or a path of a YAML.
        gains (str | float): Gain of the terms that have none of their own: 'auto' chooses each so that the term's
            gradient in the student's neck is `*_share` times that of the task loss; a number holds for all.
        exlo (float | None): Gain of the explicit low-frequency term, 0 switches it off, None follows `gains`.
        exhi (float | None): Gain of the explicit high-frequency term.
        imfu (float | None): Gain of the implicit term through the full-frequency amplifier.
        imhi (float | None): Gain of the implicit term through the high-frequency amplifier.
        exlo_share (float): Share of `exlo` where its gain is automatic, above 0.
        exhi_share (float): Share of `exhi`.
        imfu_share (float): Share of `imfu`.
        imhi_share (float): Share of `imhi`.
        gain_warmup (float): Epochs over which the gains rise before they are whole, 0 is none.
        gain_schedule (str): How they go on: 'constant', 'linear' or 'cosine' to `gain_final` at the last epoch
            with distillation.
        gain_final (float): Fraction of the gains that 'linear' and 'cosine' end at, 0 to 1.
        gain_epochs (int | None): Epochs with distillation, counted from the first; None is all of them.
        explicit (bool): Whether the explicit stream is on.
        implicit (bool): Whether the implicit stream is on.
        levels (list[int] | None): Strides of the levels to distil, in pixels; None is all that both models have.
        feature_norm (str): 'none', or 'channel': divide features by the teacher's standard deviation per channel.
        robust (bool): Whether large coefficients of the explicit terms count linearly instead of squared.
        wavelet (str): Discrete wavelet of PyWavelets; Haar is the fast path.
        extent (str): Which cells a box holds in the DISW map, 'touched' or 'reference' (upright boxes only).
        disw (float): What each object adds to the DISW map of every level in all; 0 switches the map off.
        weight_map (str): What weighs the cells of the explicit terms: 'disw' (the method's map), 'score' (the teacher's
            class scores, each level by itself), or 'both', the product.
        imfu_head (str): Whose head reads the student's features in `imfu`: 'teacher' (the method's amplifier), 'own'
            (the student's), or 'both', the sum.
        implicit_fraction (float): Share of a batch's images whose predictions are distilled, above 0 to 1.
        teacher_channels (list[int] | None): The data's channels, from 0, that the teacher takes in its order; None is
            all.
        teacher_bf16 (bool): Whether the teacher's forward pass runs in bfloat16, for processors that compute in it.
        amplifier (str | None): High-frequency amplifier to use; None finds a kept one or trains it.
        amplifier_epochs (int | None): Epochs of its training; None is a quarter of the student's, at least 1.
        exact_resume (bool): Whether each epoch leaves a side file, so that a resumed run ends as an uninterrupted one.
        safe (bool): Whether checkpoints, model YAMLs and data sets that could run code are refused, see docs/safety.md.

    Raises:
        BadUseError: If any value is out of its range, or two contradict each other; all are named in one line.

    Examples:
        >>> Settings(teacher="teacher.pt", imhi=0).active
        ('exlo', 'exhi', 'imfu')
    """

    teacher: str | None = option(None, ok.optional(ok.path), "trained checkpoint (.pt) of the big model, needed")
    recipe: str | None = option(None, ok.optional(ok.path), "named settings under these: a recipe's name or a YAML")
    gains: float | Literal["auto"] = option(
        "auto", ok.either(ok.one_of("auto"), ok.number(0)), "of all terms without one of their own; auto measures them"
    )
    exlo: float | None = _gain("gain of the explicit low-frequency term")
    exhi: float | None = _gain("gain of the explicit high-frequency term")
    imfu: float | None = _gain("gain of the full-frequency amplifier's term")
    imhi: float | None = _gain("gain of the high-frequency amplifier's term")
    exlo_share: float = _share(0.05)
    exhi_share: float = _share(0.02)
    imfu_share: float = _share(0.5)
    imhi_share: float = _share(0.25)
    gain_warmup: float = option(0.0, ok.number(0), "epochs over which the gains rise before they are whole")
    gain_schedule: Literal["constant", "linear", "cosine"] = option(
        "constant", ok.one_of(*SCHEDULES), "linear and cosine go to gain_final at the last epoch with distillation"
    )
    gain_final: float = option(0.0, ok.number(0, 1), "fraction of the gains that linear and cosine end at")
    gain_epochs: int | None = option(
        None, ok.optional(ok.whole(1)), "epochs with distillation, from the first; all without it"
    )
    explicit: bool = option(True, ok.flag, "explicit stream on or off")
    implicit: bool = option(True, ok.flag, "implicit stream on or off")
    levels: list[int] | None = option(
        None,
        ok.optional(ok.many(ok.whole(1))),
        "strides of the levels to distil, such as [8,16]; all shared without it",
    )
    feature_norm: Literal["none", "channel"] = option(
        "none", ok.one_of("none", "channel"), "channel: features over the teacher's standard deviation per channel"
    )
    robust: bool = option(False, ok.flag, "large coefficients of the explicit terms count linearly")
    wavelet: str = option("haar", ok.wavelet, "discrete wavelet of PyWavelets, haar is the fast path")
    extent: Literal["touched", "reference"] = option(
        "touched",
        ok.one_of("touched", "reference"),
        "cells of a box in the DISW map; reference: as published, upright boxes only",
    )
    disw: float = option(1.0, ok.number(0), "what each object adds to the weight map; 0 weighs all cells alike")
    weight_map: Literal["disw", "score", "both"] = option(
        "disw",
        ok.one_of("disw", "score", "both"),
        "what weighs the explicit terms: DISW, the teacher's class scores, or their product",
    )
    imfu_head: Literal["teacher", "own", "both"] = option(
        "teacher",
        ok.one_of("teacher", "own", "both"),
        "whose head reads the student's features for imfu: own is the student's, both the sum of the two",
    )
    implicit_fraction: float = option(
        1.0,
        ok.number(0, 1, above=True),
        "share of a batch's images in the implicit terms: less is faster, and unbiased",
    )
    teacher_channels: list[int] | None = option(
        None, ok.optional(ok.many(ok.whole(0))), "the data's channels that the teacher takes, from 0; all without it"
    )
    teacher_bf16: bool = option(
        False, ok.flag, "the teacher's forward pass in bfloat16: faster on processors that compute in it"
    )
    amplifier: str | None = option(
        None, ok.optional(ok.path), "high-frequency amplifier (.safetensors); found or trained without it"
    )
    amplifier_epochs: int | None = option(
        None, ok.optional(ok.whole(1)), "epochs of its training, a quarter of epochs without it"
    )
    exact_resume: bool = option(
        True, ok.flag, "a side file per epoch (about 8 bytes a weight and the optimizer's) makes a resumed run exact"
    )
    safe: bool = option(False, ok.flag, ok.SAFE)

    def _contradictions(self) -> list[str]:
        """Return what two settings that are fine alone say against each other."""
        wrong = [
            f"{term}={getattr(self, term)} contradicts {stream}=False"
            for stream, terms in (("explicit", EXPLICIT), ("implicit", IMPLICIT))
            for term in terms
            if getattr(self, term) and not getattr(self, stream)
        ]
        if self.levels is not None and len(set(self.levels)) < len(self.levels):
            wrong.append(f"levels={self.levels} names a level twice")
        return wrong

    @property
    def fixed(self) -> dict[str, float]:
        """(dict[str, float]): The gain of each active term that has a number."""
        numbers = {term: self._gain_of(term) for term in self.active}
        return {term: float(gain) for term, gain in numbers.items() if gain != "auto"}

    @property
    def shares(self) -> dict[str, float]:
        """(dict[str, float]): The share of each active term whose gain is automatic."""
        return {t: float(getattr(self, f"{t}_share")) for t in self.active if t not in self.fixed}

    @property
    def active(self) -> tuple[str, ...]:
        """(tuple[str, ...]): The terms that are on: stream on, gain not 0."""
        on = (*(EXPLICIT if self.explicit else ()), *(IMPLICIT if self.implicit else ()))
        return tuple(term for term in on if self._gain_of(term) != 0)

    def _gain_of(self, term: str) -> float | Literal["auto"]:
        """Return the gain of a term: its own number, or what holds for all."""
        own: float | None = getattr(self, term)
        return self.gains if own is None else own
