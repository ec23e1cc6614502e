"""The facts of the pre-flight report, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class UnlabelledFacts:
    """Images without labels that a run takes beside the labelled ones.

    Attributes:
        images (int): Number of images.
        broken (int): Images that cannot be read and are left out.
        duplicates (int): Images with the content of another one, left out too.
        share (float): Their share of a batch, above 0 and below 1.
        batch (tuple[int, int] | None): Labelled and unlabelled images of a batch over all devices; None if AutoBatch
            chooses.
        confidence (float): Confidence above which the teacher's detections are boxes of these images, 0 to 1.
    """

    images: int
    broken: int
    duplicates: int
    share: float
    batch: tuple[int, int] | None
    confidence: float


@dataclass(frozen=True)
class RunFacts:
    """Settings of the run.

    Attributes:
        task (str): 'detect' or 'obb'.
        device (str): Device, with its name where it has one.
        imgsz (int): Image size in pixels, a multiple of the strides.
        batch (float): Images per step over all devices; below 1 Ultralytics' AutoBatch chooses.
        epochs (int): Epochs.
        amp (bool): Whether automatic mixed precision is on and the device supports it.
        resumed (bool): Whether the run continues an unfinished one.
        teacher_imgsz (int | None): Size of the teacher's images in pixels, None if it is that of the student's.
        unlabelled (UnlabelledFacts | None): Images without labels; None if there are none.
        quantised (bool): Whether the student trains with INT8 fake quantisation.
    """

    task: str
    device: str
    imgsz: int
    batch: float
    epochs: int
    amp: bool
    resumed: bool = False
    teacher_imgsz: int | None = None
    unlabelled: UnlabelledFacts | None = None
    quantised: bool = False


@dataclass(frozen=True)
class ModelFacts:
    """Teacher or student.

    Attributes:
        source (str): Path of a checkpoint, or name of a model YAML.
        sha256 (str | None): Hash of the initial weights, None for random ones.
        parameters (int): Number of parameters.
        gflops (float | None): GFLOPs of a forward pass on one image, None if unknown.
    """

    source: str
    sha256: str | None
    parameters: int
    gflops: float | None


@dataclass(frozen=True)
class Layer:
    """The layer of a model whose output is captured.

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
    """A level of both models.

    Attributes:
        stride (float): Stride in pixels.
        student (Layer): Captured layer of the student.
        teacher (Layer): Captured layer of the teacher.
        adapter (tuple[int, int, int, int]): Shape of the adapter's weight: output and input channels, 1, 1.
    """

    stride: float
    student: Layer
    teacher: Layer
    adapter: tuple[int, int, int, int]


@dataclass(frozen=True)
class ClassFacts:
    """The classes of teacher and data.

    Attributes:
        teacher (int): Number of the teacher's classes.
        data (int): Number of the data's classes.
        found (str): How the classes match, in words.
        shared (tuple[str, ...]): Shared classes, with the data's names.
        meaning (str): Consequence for the streams, in words.
    """

    teacher: int
    data: int
    found: str
    shared: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class QualityFacts:
    """Accuracy of the teacher on the data before the distillation.

    Attributes:
        map50 (float | None): mAP50 on the shared classes, 0 to 1; None if it could not be measured.
        map50_95 (float | None): mAP50-95 on the shared classes, 0 to 1.
        images (int): Maximum number of validation images of the measurement.
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
        path (str | None): File of an existing amplifier.
        epochs (int | None): Epochs of its training.
        map50 (float | None): Its mAP50 on high-frequency features, 0 to 1; None if not measured.
        map50_95 (float | None): Its mAP50-95 on high-frequency features.
        teacher_map50 (float | None): The teacher's mAP50 on the same images; None if not measured.
        teacher_map50_95 (float | None): The teacher's mAP50-95 on the same images.
        share (float | None): Epochs of a coming training as a fraction of the student's.
        reason (str): Why no amplifier is needed, or why a stored one is not usable.
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
        shares (dict[str, float]): Gradient share of each term with an automatic gain.
        fixed (dict[str, float]): Gain of each term with a fixed gain.
        off (dict[str, str]): Reason for each term that is off.
        warmup (float): Epochs over which the gains rise from 0.
        schedule (str): 'constant', 'linear' or 'cosine'.
        final (float): Fraction of the gains at which 'linear' and 'cosine' end.
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
        student (int): Trained parameters of the student.
        student_frozen (int): Parameters of the student that `freeze=` freezes.
        adapters (int): Trained parameters of the adapters.
        adapter_init (str): Their start, 'random' or 'ridge'.
        teacher (int): Frozen parameters of the teacher.
        amplifier (int): Frozen parameters of the amplifier.
    """

    student: int
    student_frozen: int
    adapters: int
    adapter_init: str
    teacher: int
    amplifier: int


@dataclass(frozen=True)
class MemoryFacts:
    """Expected memory of a step on one device, in bytes.

    Attributes:
        weights (int): Student and adapters, buffers included.
        gradients (int): Gradients of the trained parameters.
        optimizer (int): Optimizer state.
        ema (int): Averaged copy of the student.
        teacher (int): Teacher, with folded batch norms.
        amplifier (int): Amplifier, with folded batch norms.
        copies (int): Copies of weights that autograd stores for the backward pass, whatever the images.
        activations (int): Activations of one image that autograd stores for the backward pass.
        measuring (int): More of them in batches that measure the gains: head, task loss and terms in float32, less the
            terms of the step.
        images (int | None): Images per step on one device, None if AutoBatch chooses.
        imgsz (int): Side of the largest images in pixels.
        amp (bool): Whether the activations are those of mixed precision.
    """

    weights: int
    gradients: int
    optimizer: int
    ema: int
    teacher: int
    amplifier: int
    copies: int
    activations: int
    measuring: int
    images: int | None
    imgsz: int
    amp: bool

    @property
    def fixed(self) -> int:
        """(int): Memory that does not depend on the number of images."""
        states = self.weights + self.gradients + self.optimizer + self.ema
        return states + self.teacher + self.amplifier + self.copies

    @property
    def per_image(self) -> int:
        """(int): Memory of each image."""
        return self.activations + self.measuring

    @property
    def total(self) -> int | None:
        """(int | None): Total memory, None if the number of images is not known yet."""
        return None if self.images is None else self.fixed + self.images * self.per_image


@dataclass(frozen=True)
class Report:
    """Facts about a distillation before its first epoch, as plain values.

    Attributes:
        versions (dict[str, str]): Versions of ds2d2-yolo, ultralytics and torch.
        run (RunFacts): Settings of the run.
        teacher (ModelFacts): The teacher.
        student (ModelFacts): The student.
        levels (tuple[LevelFacts, ...]): Distilled levels, finest first; empty if no term is on.
        levels_off (tuple[str, ...]): Omitted levels, each with the reason.
        classes (ClassFacts): The class map.
        quality (QualityFacts): Accuracy of the teacher.
        amplifier (AmplifierFacts): The amplifier.
        gains (GainFacts): The gains.
        parameters (ParameterFacts): Trained and frozen parameters.
        memory (MemoryFacts | None): An estimate, None if it failed.
        warnings (tuple[str, ...]): Warnings to read before the run.
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
