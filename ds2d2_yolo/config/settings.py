"""The settings of DS2D2: one typed, validated object, the same names on the command line, in Python and in YAML."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.options import Options, option


class Term(str, Enum):
    """A distillation term, by its stream. Each member is its settings key as text.

    Within a stream, columns and reports list the terms in the order of this table.

    Attributes:
        stream (str): Stream of the term, 'explicit' or 'implicit'.

    Examples:
        >>> f"{Term.EXLO}_share", Term.IMHI.stream, Term.IMFU == "imfu"
        ('exlo_share', 'implicit', True)
    """

    EXLO = "exlo", "explicit"
    EXHI = "exhi", "explicit"
    IMFU = "imfu", "implicit"
    IMHI = "imhi", "implicit"

    stream: Literal["explicit", "implicit"]

    def __new__(cls, key: str, stream: Literal["explicit", "implicit"]) -> Term:
        """Make the member of a row of the table."""
        term = str.__new__(cls, key)
        term._value_, term.stream = key, stream
        return term

    def __str__(self) -> str:
        """Return the key."""
        return str(self.value)

    def __format__(self, spec: str) -> str:
        """Format the key as text."""
        return format(str(self), spec)

    def __repr__(self) -> str:
        """Return the representation of the key, so that messages and dictionaries print as with plain text."""
        return repr(str(self))

    def __reduce_ex__(self, protocol: Any) -> tuple[type[str], tuple[str]]:
        """Pickle the key as plain text: checkpoints load without this package."""
        return str, (str(self),)


EXPLICIT = tuple(term for term in Term if term.stream == "explicit")
IMPLICIT = tuple(term for term in Term if term.stream == "implicit")
TERMS = (*EXPLICIT, *IMPLICIT)
SCHEDULES = ("constant", "linear", "cosine")


def _gain(about: str) -> Any:
    """Declare the gain of a term."""
    return option(None, ok.optional(ok.number(0)), f"{about}; 0 is off; unset, gains holds")


def _share(term: Term, default: float) -> Any:
    """Declare the gradient share of a term."""
    return _experimental(
        default, ok.number(0, above=True), f"gradient of {term} over the task loss's, where its gain is automatic"
    )


def _experimental(default: Any, check: ok.Check, about: str) -> Any:
    """Declare an experimental setting."""
    return option(default, check, about, experimental=True)


@dataclass(frozen=True)
class Settings(Options):
    """Settings of a distillation, validated when made. The experimental ones come last.

    Attributes:
        teacher (str | None): Trained Ultralytics checkpoint (.pt) of the student's task.
        recipe (str | None): Settings below the given ones: the name of a file in `cfg/recipes`, or the path of a YAML.
        gains (str | float): Gain of every term without an individual gain. 'auto' chooses each gain so that the term's
            gradient in the student's neck is `*_share` times that of the task loss. A number holds for all terms.
        exlo (float | None): Gain of the explicit low-frequency term, 0 switches it off, None follows `gains`.
        exhi (float | None): Gain of the explicit high-frequency term.
        imfu (float | None): Gain of the implicit term through the full-frequency amplifier.
        imhi (float | None): Gain of the implicit term through the high-frequency amplifier.
        levels (list[int] | None): Strides of the distilled levels in pixels of the student's images; None takes all
            levels of both models.
        amplifier (str | None): High-frequency amplifier file; None finds a stored one or trains one.
        amplifier_epochs (int | None): Epochs of its training; None is a quarter of the student's, at least 1.
        teacher_imgsz (int | None): Side of the teacher's images in pixels, the student's times 2, 4 or 8; None is the
            student's. Not part of the published method.
        teacher_channels (list[int] | None): Channels of the data, from 0, in the order of the teacher's input; None
            takes all.
        exact_resume (bool): Whether each epoch writes a resume file; a resumed run then ends as an uninterrupted one.
        safe (bool): Whether checkpoints, model YAMLs and data sets that could run code are refused, see docs/safety.md.
        unlabelled (str | list[str] | bool | None): Images without labels that the terms see beside the labelled ones: a
            folder, an image, a glob, a .txt list, 'rest' (the training images that `fraction` leaves out), or a list of
            those. None takes the key `unlabelled` of the data YAML if there is one, True needs that key, False takes
            none. Not part of the published method.
        unlabelled_share (float): Share of the unlabelled images in a batch, above 0 and below 1.
        unlabelled_conf (float): Confidence above which the teacher's detections are the boxes of DISW on unlabelled
            images, 0 to 1.
        exlo_share (float): Gradient share of `exlo` where its gain is automatic, above 0.
        exhi_share (float): Gradient share of `exhi`.
        imfu_share (float): Gradient share of `imfu`.
        imhi_share (float): Gradient share of `imhi`.
        gain_warmup (float): Epochs over which the gains rise to their full value, 0 is none.
        gain_schedule (str): Course of the gains after the warm-up: 'constant', or 'linear' or 'cosine' to `gain_final`
            at the last epoch with distillation.
        gain_final (float): Fraction of the gains at which 'linear' and 'cosine' end, 0 to 1.
        gain_epochs (int | None): Epochs with distillation, counted from the first; None is all of them.
        explicit (bool): Whether the explicit stream is on.
        implicit (bool): Whether the implicit stream is on.
        feature_norm (str): 'none', or 'standard': standardise student and teacher per channel, each by its own mean and
            deviation.
        wavelet (str): Discrete wavelet of PyWavelets; Haar is the fast path.
        disw (float): Sum of the weights that each object adds to the DISW map of a level; 0 switches the map off.
        weight_map (str): Weight of the cells in the explicit terms: 'disw' (the method's map), 'score' (the teacher's
            class scores, each level by itself), or 'both', the product.
        level_balance (str): Weight of the levels in the explicit terms: 'none' (1, the method's) or 'measured': for
            each term, in the batches that the automatic gains are measured in, so that the term's gradient is spread
            over the levels as the task loss's is. Not part of the published method.
        adapter_init (str): Start of the adapters: 'random' is the method's, 'ridge' sets them in the first batches by
            ridge regression of the teacher's features on the student's, and 'auto' does so where the student starts
            from a checkpoint. Not part of the published method.
        box_distance (str): Distance of the boxes in the implicit terms: 'iou' is the method's, 1 - GIoU of upright and
            1 - ProbIoU of oriented boxes; 'kfiou' is for oriented boxes. Not part of the published method.
        teacher_bf16 (bool): Whether the teacher's forward pass runs in bfloat16, for processors that compute in it.
        fused_explicit (bool): Whether one Triton kernel for each direction computes the explicit terms on a GPU. It is
            for Haar; with other wavelets it has no effect. Not measured on a GPU yet.

    Raises:
        BadUseError: If any value is invalid, or two contradict each other; one line names all of them.

    Examples:
        >>> Settings(teacher="teacher.pt", imhi=0).active
        ('exlo', 'exhi', 'imfu')
    """

    teacher: str | None = option(None, ok.optional(ok.path), "trained checkpoint (.pt) of the big model, needed")
    recipe: str | None = option(None, ok.optional(ok.path), "settings below the given ones: a recipe's name or a YAML")
    gains: float | Literal["auto"] = option(
        "auto",
        ok.either(ok.one_of("auto"), ok.number(0)),
        "gain of all terms without one; auto measures them",
    )
    exlo: float | None = _gain("gain of the explicit low-frequency term")
    exhi: float | None = _gain("gain of the explicit high-frequency term")
    imfu: float | None = _gain("gain of the full-frequency amplifier's term")
    imhi: float | None = _gain("gain of the high-frequency amplifier's term")
    levels: list[int] | None = option(
        None, ok.optional(ok.many(ok.integer(1))), "strides of the distilled levels, such as [8,16]; unset, all shared"
    )
    amplifier: str | None = option(
        None, ok.optional(ok.path), "high-frequency amplifier (.safetensors); unset, a stored one or a new training"
    )
    amplifier_epochs: int | None = option(
        None, ok.optional(ok.integer(1)), "epochs of the amplifier's training; unset, a quarter of epochs"
    )
    teacher_imgsz: int | None = option(
        None, ok.optional(ok.integer(1)), "side of the teacher's images, imgsz times 2, 4 or 8; unset, imgsz"
    )
    teacher_channels: list[int] | None = option(
        None, ok.optional(ok.many(ok.integer(0))), "channels of the data that the teacher takes, from 0; unset, all"
    )
    exact_resume: bool = option(
        True, ok.flag, "a resume file per epoch (about 8 bytes a weight and the optimizer's) makes a resumed run exact"
    )
    safe: bool = option(False, ok.flag, ok.SAFE)
    unlabelled: str | list[str] | bool | None = option(
        None,
        ok.optional(ok.either(ok.flag, ok.either(ok.path, ok.many(ok.path)))),
        "images without labels: folder, glob, .txt list, several, or rest; unset, the key of the data YAML",
    )
    unlabelled_share: float = option(0.5, ok.between(0, 1), "share of the unlabelled images in a batch")
    unlabelled_conf: float = option(
        0.25, ok.number(0, 1), "confidence above which the teacher's detections are boxes of unlabelled images"
    )
    exlo_share: float = _share(Term.EXLO, 0.05)
    exhi_share: float = _share(Term.EXHI, 0.02)
    imfu_share: float = _share(Term.IMFU, 0.5)
    imhi_share: float = _share(Term.IMHI, 0.25)
    gain_warmup: float = _experimental(0.0, ok.number(0), "epochs over which the gains rise to their full value")
    gain_schedule: Literal["constant", "linear", "cosine"] = _experimental(
        "constant", ok.one_of(*SCHEDULES), "linear and cosine reach gain_final at the last epoch with distillation"
    )
    gain_final: float = _experimental(0.0, ok.number(0, 1), "fraction of the gains at which linear and cosine end")
    gain_epochs: int | None = _experimental(
        None, ok.optional(ok.integer(1)), "epochs with distillation, from the first; unset, all"
    )
    explicit: bool = _experimental(True, ok.flag, "explicit stream on or off")
    implicit: bool = _experimental(True, ok.flag, "implicit stream on or off")
    feature_norm: Literal["none", "standard"] = _experimental(
        "none",
        ok.one_of("none", "standard"),
        "standard: features of student and teacher by their own mean and deviation per channel",
    )
    wavelet: str = _experimental("haar", ok.wavelet, "discrete wavelet of PyWavelets, haar is the fast path")
    disw: float = _experimental(1.0, ok.number(0), "weight that each object adds to the map; 0 weighs all cells alike")
    weight_map: Literal["disw", "score", "both"] = _experimental(
        "disw",
        ok.one_of("disw", "score", "both"),
        "weight of the explicit terms: DISW, the teacher's class scores, or their product",
    )
    level_balance: Literal["none", "measured"] = _experimental(
        "none",
        ok.one_of("none", "measured"),
        "weight of the levels in the explicit terms: equal, or measured so that their gradients spread over the levels "
        "as the task loss's does",
    )
    adapter_init: Literal["random", "ridge", "auto"] = _experimental(
        "random",
        ok.one_of("random", "ridge", "auto"),
        "start of the adapters; ridge: the first batches set them by ridge regression; auto: ridge where the student "
        "starts from a checkpoint",
    )
    box_distance: Literal["iou", "kfiou"] = _experimental(
        "iou",
        ok.one_of("iou", "kfiou"),
        "distance of the boxes in the implicit terms: GIoU or, for obb, ProbIoU; kfiou, for obb only",
    )
    teacher_bf16: bool = _experimental(
        False, ok.flag, "the teacher's forward pass in bfloat16: faster on processors that compute in it"
    )
    fused_explicit: bool = _experimental(
        False, ok.flag, "explicit terms in one Triton kernel for each direction on a GPU, not measured on one yet"
    )

    def _contradictions(self) -> list[str]:
        """Return the contradictions between settings, and levels that come twice."""
        errors = [
            f"{term}={getattr(self, term)} contradicts {term.stream}=False"
            for term in TERMS
            if getattr(self, term) and not getattr(self, term.stream)
        ]
        if self.levels is not None and len(set(self.levels)) < len(self.levels):
            errors.append(f"levels={self.levels} names a level twice")
        return errors

    @property
    def fixed(self) -> dict[str, float]:
        """(dict[str, float]): Gain of each active term that has a number, by the term's key as plain text."""
        numbers = {term: self._gain_of(term) for term in self.active}
        return {term.value: float(gain) for term, gain in numbers.items() if gain != "auto"}

    @property
    def shares(self) -> dict[str, float]:
        """(dict[str, float]): Gradient share of each active term with an automatic gain, keyed as in `fixed`."""
        return {t.value: float(getattr(self, f"{t}_share")) for t in self.active if t not in self.fixed}

    @property
    def active(self) -> tuple[Term, ...]:
        """(tuple[Term, ...]): The terms that are on: stream on, gain not 0."""
        return tuple(term for term in TERMS if getattr(self, term.stream) and self._gain_of(term) != 0)

    def _gain_of(self, term: Term) -> float | Literal["auto"]:
        """Return the gain of a term: its number, else `gains`."""
        gain: float | None = getattr(self, term)
        return self.gains if gain is None else gain
