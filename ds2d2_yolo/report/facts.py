"""The facts of the pre-flight report, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class RunFacts:
    """How the run trains.

    Attributes:
        task (str): 'detect' or 'obb'.
        device (str): Device, with its name where it has one.
        imgsz (int): Image size in pixels, a multiple of the strides.
        batch (float): Images per step over all devices; below 1 Ultralytics' AutoBatch chooses.
        epochs (int): Epochs.
        amp (bool): Whether automatic mixed precision is asked for on a device that has it.
        resumed (bool): Whether the run goes on with an unfinished one.
    """

    task: str
    device: str
    imgsz: int
    batch: float
    epochs: int
    amp: bool
    resumed: bool = False


@dataclass(frozen=True)
class ModelFacts:
    """One of the two models.

    Attributes:
        source (str): Path of a checkpoint, or name of a model YAML.
        sha256 (str | None): Hash of the weights that it starts from, None where it starts from random ones.
        parameters (int): Number of parameters.
        gflops (float | None): GFLOPs of a forward pass on one image, None where they cannot be counted.
    """

    source: str
    sha256: str | None
    parameters: int
    gflops: float | None


@dataclass(frozen=True)
class Layer:
    """The layer whose output is tapped in a model.

    Attributes:
        index (int): Its index in the model.
        type (str): Its class.
        shape (tuple[int, int, int]): Channels, height and width of its output for one image.
    """

    index: int
    type: str
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class LevelFacts:
    """A pair of levels.

    Attributes:
        stride (float): Stride in pixels.
        student (Layer): What is tapped in the student.
        teacher (Layer): What is tapped in the teacher.
        adapter (tuple[int, int, int, int]): Shape of the adapter's weight: out, in, 1, 1.
    """

    stride: float
    student: Layer
    teacher: Layer
    adapter: tuple[int, int, int, int]


@dataclass(frozen=True)
class ClassFacts:
    """The classes of teacher and data.

    Attributes:
        teacher (int): Number of the teacher's.
        data (int): Number of the data's.
        found (str): How they match, in words.
        shared (tuple[str, ...]): Classes of both, as the data name them.
        meaning (str): What it means for the streams.
    """

    teacher: int
    data: int
    found: str
    shared: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class QualityFacts:
    """What the teacher reaches on the data before it teaches.

    Attributes:
        map50 (float | None): mAP50 on the shared classes, 0 to 1; None where it could not be measured.
        map50_95 (float | None): mAP50-95 likewise.
        images (int): Validation images that it was measured on, at most.
        floor (float): mAP50 below which the teacher does not look trained on these data.
    """

    map50: float | None
    map50_95: float | None
    images: int
    floor: float


@dataclass(frozen=True)
class AmplifierFacts:
    """The high-frequency amplifier.

    Attributes:
        state (str): 'given', 'kept' from an earlier run, 'to train' or 'not needed'.
        path (str | None): Its file, where it exists.
        epochs (int | None): Epochs of its training.
        map50 (float | None): Its mAP50 on high-frequency features, 0 to 1, where it was measured.
        map50_95 (float | None): Its mAP50-95 likewise.
        teacher_map50 (float | None): The teacher's mAP50 on the same images, where it was measured.
        teacher_map50_95 (float | None): The teacher's mAP50-95 likewise.
        share (float | None): Epochs of a training to come over the student's.
        reason (str): Why it is not needed, or why a kept one does not do.
    """

    state: Literal["given", "kept", "to train", "not needed"]
    path: str | None = None
    epochs: int | None = None
    map50: float | None = None
    map50_95: float | None = None
    teacher_map50: float | None = None
    teacher_map50_95: float | None = None
    share: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class GainFacts:
    """The gains of the terms.

    Attributes:
        shares (dict[str, float]): Share of the task loss's gradient by term whose gain is automatic.
        fixed (dict[str, float]): Gain by term that has a number.
        off (dict[str, str]): Why a term is off, by term.
        warmup (float): Epochs over which the gains rise from 0.
        schedule (str): 'constant', 'linear' or 'cosine'.
        final (float): Fraction of the gains that 'linear' and 'cosine' end at.
        last_epoch (int): Last epoch with distillation, counted from 1.
    """

    shares: dict[str, float]
    fixed: dict[str, float]
    off: dict[str, str]
    warmup: float
    schedule: str
    final: float
    last_epoch: int


@dataclass(frozen=True)
class ParameterFacts:
    """Numbers of parameters.

    Attributes:
        student (int): Of the student, trained.
        student_frozen (int): Of the student, frozen by `freeze=`.
        adapters (int): Of the adapters, trained.
        teacher (int): Of the teacher, frozen.
        amplifier (int): Of the amplifier, frozen.
    """

    student: int
    student_frozen: int
    adapters: int
    teacher: int
    amplifier: int


@dataclass(frozen=True)
class MemoryFacts:
    """Memory that a step is expected to need on one device, in bytes.

    Attributes:
        weights (int): Student and adapters, buffers included.
        gradients (int): Of what is trained.
        optimizer (int): State of the optimizer.
        ema (int): The averaged copy of the student.
        teacher (int): The teacher, folded.
        amplifier (int): The amplifier, folded.
        activations (int): What autograd keeps of one image for the backward pass.
        measuring (int): Head and task loss of one image once more, in batches whose gradients are measured.
        images (int | None): Images per step on one device, None where AutoBatch chooses.
        imgsz (int): Side of the largest images in pixels.
        halved (bool): Whether `activations` are halved for mixed precision, which was not measured.
    """

    weights: int
    gradients: int
    optimizer: int
    ema: int
    teacher: int
    amplifier: int
    activations: int
    measuring: int
    images: int | None
    imgsz: int
    halved: bool

    @property
    def fixed(self) -> int:
        """(int): What does not depend on the number of images."""
        return self.weights + self.gradients + self.optimizer + self.ema + self.teacher + self.amplifier

    @property
    def per_image(self) -> int:
        """(int): What each image adds."""
        return self.activations + self.measuring

    @property
    def total(self) -> int | None:
        """(int | None): All of it, None where the number of images is not known yet."""
        return None if self.images is None else self.fixed + self.images * self.per_image


@dataclass(frozen=True)
class Report:
    """What is known about a distillation before its first epoch; plain values throughout.

    Attributes:
        versions (dict[str, str]): Of ds2d2-yolo, ultralytics and torch.
        run (RunFacts): How it trains.
        teacher (ModelFacts): The teacher.
        student (ModelFacts): The student.
        levels (tuple[LevelFacts, ...]): Pairs of levels, finest first; none where no term is on.
        levels_off (tuple[str, ...]): Levels that are left out, each with the reason.
        classes (ClassFacts): The class map.
        quality (QualityFacts): Whether the teacher looks trained.
        amplifier (AmplifierFacts): The amplifier.
        gains (GainFacts): The gains.
        parameters (ParameterFacts): Trained and frozen parameters.
        memory (MemoryFacts | None): An estimate, None where it failed.
        warnings (tuple[str, ...]): What to look at before the run.
    """

    versions: dict[str, str]
    run: RunFacts
    teacher: ModelFacts
    student: ModelFacts
    levels: tuple[LevelFacts, ...]
    levels_off: tuple[str, ...]
    classes: ClassFacts
    quality: QualityFacts
    amplifier: AmplifierFacts
    gains: GainFacts
    parameters: ParameterFacts
    memory: MemoryFacts | None
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain values for JSON."""
        plain = asdict(self)
        if self.memory is not None:
            plain["memory"] |= {"per_image": self.memory.per_image, "total": self.memory.total}
        return plain
