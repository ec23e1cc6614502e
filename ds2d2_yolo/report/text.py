"""The text of the pre-flight report; imports neither torch nor Ultralytics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from textwrap import wrap

from ds2d2_yolo.report.facts import (
    AmplifierFacts,
    ClassFacts,
    GainFacts,
    LevelFacts,
    MemoryFacts,
    QualityFacts,
    Report,
    RunFacts,
    UnlabelledFacts,
)

WIDTH = 100  # maximum columns of a line
LABEL_WIDTH = 12  # columns of the labels on the left
MAX_FILE_NAME = 30  # letters
MAX_CLASSES = 12  # names in a list
# measured as docs/training.md says
MEMORY_ERROR = "on a CPU, tensors took 0.95 to 1.08 times it, processes 1.2 to 1.5 times; not measured on a GPU"


def render(report: Report) -> str:
    """Return a report as aligned plain text.

    Args:
        report (Report): The facts.

    Returns:
        (str): Lines of at most `WIDTH` columns; longer paths are not broken.
    """
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [
        *_row("DS2D2", f"pre-flight report: {versions}"),
        *_row("run", _run(report.run)),
        *_row("unlabelled", _unlabelled(report.run.unlabelled)),
        "",
        *_models(report),
        "",
        *_levels(report.levels),
        *(line for off in report.levels_off for line in _row("", f"{off}, left out")),
        "",
        *_classes(report.classes),
        *_row("teacher", _quality(report.quality)),
        *_row("amplifier", _amplifier(report.amplifier)),
        *_gains(report.gains),
        "",
        *_parameters(report),
        *_memory(report.memory),
        "",
        *_warnings(report.warnings),
    ]
    return "\n".join(lines)


def _row(label: str, text: str) -> list[str]:
    """Return a label and a wrapped text beside it; no lines for an empty text."""
    parts = wrap(text, WIDTH - LABEL_WIDTH, break_long_words=False, break_on_hyphens=False)
    return [f"{label if i == 0 else '':{LABEL_WIDTH}}{part}" for i, part in enumerate(parts)]


def _table(label: str, rows: Sequence[Sequence[str]], left: Iterable[int]) -> list[str]:
    """Return a label and rows in aligned columns; the columns with indices in `left` are left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{x:{'<' if i in left else '>'}{w}}" for i, (x, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return [f"{label if i == 0 else '':{LABEL_WIDTH}}{line}".rstrip() for i, line in enumerate(lines)]


def _run(run: RunFacts) -> str:
    """Return the settings of the run."""
    batch = f"batch {run.batch:g}" if run.batch >= 1 else "batch chosen by AutoBatch"
    parts = [run.task, _image_size(run), batch, f"{run.epochs} epochs", run.device, "AMP" if run.amp else "no AMP"]
    parts += ["the student trains with INT8 fake quantisation"] if run.quantised else []
    return ", ".join(parts) + (", resumed" if run.resumed else "")


def _image_size(run: RunFacts) -> str:
    """Return the size of the images, with that of the teacher's where they are larger."""
    larger = "" if run.teacher_imgsz is None else f" (the teacher {run.teacher_imgsz} px)"
    return f"{run.imgsz} px{larger}"


def _unlabelled(images: UnlabelledFacts | None) -> str:
    """Return the unlabelled images and the composition of a batch; empty if there are none."""
    if images is None:
        return ""
    batch = f"{images.share:g} of a batch"
    if images.batch is not None:
        batch = "{} labelled and {} unlabelled in a batch".format(*images.batch)
    left_out = images.broken + images.duplicates
    parts = [f"{images.images} unlabelled images", batch, f"boxes of the teacher above {images.confidence:g}"]
    return ", ".join([*parts, f"{left_out} left out"] if left_out else parts)


def _models(report: Report) -> list[str]:
    """Return the table of the two models, and below it the sources that are longer than a file name."""
    rows: list[tuple[str, ...]] = [("", "file", "SHA-256", "parameters", f"GFLOPs at {_image_size(report.run)}")]
    sources: list[str] = []
    for role, model in (("teacher", report.teacher), ("student", report.student)):
        name = PurePath(model.source).name
        short = name if len(name) <= MAX_FILE_NAME else f"{name[: MAX_FILE_NAME - 3]}..."
        gflops = "-" if model.gflops is None else f"{model.gflops:.1f}"
        rows.append((role, short, (model.sha256 or "-")[:12], _millions(model.parameters), gflops))
        sources += _row("", f"{role}: {model.source}") if short != model.source else []
    return [*_table("models", rows, (0, 1, 2)), *sources]


def _levels(levels: Sequence[LevelFacts]) -> list[str]:
    """Return the table of the tapped layers."""
    if not levels:
        return _row("levels", "nothing is tapped")
    rows: list[tuple[str, ...]] = [("stride", "student layer", "output", "teacher layer", "output", "adapter")]
    for pair in levels:
        layers = [t for x in (pair.student, pair.teacher) for t in (f"{x.index} {x.type}", _by(x.shape))]
        rows.append((f"{pair.stride:g}", *layers, _by(pair.adapter)))
    return _table("levels", rows, (1, 3))


def _classes(classes: ClassFacts) -> list[str]:
    """Return how the classes match, and the shared names if all classes are shared."""
    lines, shared = _row("classes", classes.found), classes.shared
    if len(shared) == max(classes.teacher, classes.data):
        more = len(shared) - MAX_CLASSES
        lines += _row("", ", ".join(shared[:MAX_CLASSES]) + (f" and {more} more" if more > 0 else ""))
    return lines + _row("", classes.meaning)


def _quality(quality: QualityFacts) -> str:
    """Return the teacher's mAP on the data."""
    if quality.map50 is None:
        return "its mAP on these data is not known"
    looks = "looks trained" if quality.map50 >= quality.floor else "does not look trained"
    maps = _maps(quality.map50, quality.map50_95)
    return f"{looks}: {maps} on up to {quality.images} validation images; the floor is mAP50 {quality.floor:g}"


def _amplifier(amplifier: AmplifierFacts) -> str:
    """Return the origin and the mAP of the amplifier."""
    if amplifier.state == "not needed":
        return f"not needed: {amplifier.reason}"
    if amplifier.state == "to train":
        epochs = "" if amplifier.epochs is None else f": {amplifier.epochs} epochs"
        share = "" if amplifier.share is None else f", {amplifier.share:.0%} of the student's"
        return f"to be trained first{epochs}{share}" + (f"; {amplifier.reason}" if amplifier.reason else "")
    origin = "given" if amplifier.state == "given" else "kept from an earlier run"
    maps = _maps(amplifier.map50, amplifier.map50_95) or "its mAP was not measured"
    teacher_maps = _maps(amplifier.teacher_map50, amplifier.teacher_map50_95)
    comparison = f" (the teacher's {teacher_maps})" if teacher_maps else ""
    return f"{origin}: {amplifier.epochs} epochs, {maps}{comparison}; {amplifier.path}"


def _maps(map50: float | None, map50_95: float | None) -> str:
    """Return mAP50 and mAP50-95, an empty text if they are unknown."""
    return "" if map50 is None or map50_95 is None else f"mAP50 {map50:.3f}, mAP50-95 {map50_95:.3f}"


def _gains(gains: GainFacts) -> list[str]:
    """Return the gains, their course over the epochs and the terms that are off."""
    auto = ", ".join(f"{term} {share:g}" for term, share in gains.shares.items())
    numbers = ", ".join(f"{term} {gain:g}" for term, gain in gains.fixed.items())
    off = ", ".join(f"{term} ({why})" for term, why in gains.off.items())
    parts = [
        f"automatic, share of the task loss's gradient: {auto}" if auto else "",
        f"given: {numbers}" if numbers else "",
        f"off: {off}" if off else "",
    ]
    lines = [line for part in parts for line in _row("", part)]
    if auto or numbers:
        course = gains.schedule if gains.schedule == "constant" else f"{gains.schedule} to {gains.final:g} of them"
        warmup = f"rising over {gains.warmup:g} epochs, then " if gains.warmup else ""
        lines += _row("", f"{warmup}{course}, last epoch {gains.last_epoch}")
    return [f"{'gains':{LABEL_WIDTH}}{lines[0][LABEL_WIDTH:]}", *lines[1:]]


def _parameters(report: Report) -> list[str]:
    """Return the numbers of parameters."""
    n = report.parameters
    frozen = n.student_frozen if n.student_frozen > 1000 else 0  # more than the 16 weights that are never trained
    trained = _parts({"student": n.student, "adapters": n.adapters}, _millions)
    fixed = _parts({"teacher": n.teacher, "amplifier": n.amplifier, "student": frozen}, _millions)
    start = "; the adapters start by ridge regression" if n.adapter_init == "ridge" else ""
    return _row("parameters", f"trained: {trained}{start}; frozen: {fixed}")


def _memory(memory: MemoryFacts | None) -> list[str]:
    """Return the expected memory and its parts."""
    if memory is None:
        return _row("memory", "not known")
    names = ("weights", "gradients", "optimizer", "EMA", "teacher", "amplifier")
    parts = {name: getattr(memory, name.lower()) for name in names}
    fixed = _parts({**parts, "copies of weights": memory.copies}, _size)
    images = f"{'' if memory.images is None else f'{memory.images} x '}{_size(memory.per_image)} for each image"
    total = "batch not known yet" if memory.total is None else f"about {_size(memory.total)} on each device"
    amp = ", with AMP" if memory.amp else ""
    return [
        *_row("memory", f"{total}: {images} of {memory.imgsz} px{amp}"),
        *_row("", fixed),
        *_row("", f"an estimate: {MEMORY_ERROR}"),
    ]


def _warnings(warnings: Sequence[str]) -> list[str]:
    """Return the warnings, each on separate lines."""
    if not warnings:
        return _row("warnings", "none")
    lines = [line for text in warnings for line in _row("", f"! {text}")]
    return [f"{'warnings':{LABEL_WIDTH}}{lines[0][LABEL_WIDTH:]}", *lines[1:]]


def _parts(parts: Mapping[str, int], format_count: Callable[[int], str]) -> str:
    """Return the parts that are not 0, with their names."""
    return ", ".join(f"{name} {format_count(count)}" for name, count in parts.items() if count)


def _millions(count: int) -> str:
    """Format a number of parameters in millions."""
    return f"{count / 1e6:.2f} M"


def _by(shape: Iterable[int]) -> str:
    """Format a shape."""
    return "x".join(map(str, shape))


def _size(count: int) -> str:
    """Format a number of bytes."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
