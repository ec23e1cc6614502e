"""Facts of a report that follow from a prepared run without computing anything."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.gains import gain_factor
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard, load_amplifier, stored_card, stored_file
from ds2d2_yolo.bridge.models.heads import dense_head, level_channels, strides_of, unpaired_levels
from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.bridge.preflight.prepared_run import PreparedRun
from ds2d2_yolo.config.batch_parts import BatchParts
from ds2d2_yolo.config.settings import IMPLICIT, TERMS, Term
from ds2d2_yolo.report.facts import (
    AmplifierFacts,
    ClassFacts,
    GainFacts,
    Layer,
    LevelFacts,
    ParameterFacts,
    RunFacts,
    UnlabelledFacts,
)


def run_facts(run: PreparedRun, student: Any) -> RunFacts:
    """Return the schedule of a run and its device.

    Args:
        run (PreparedRun): The run.
        student (Any): The student.

    Returns:
        (RunFacts): Task, device, image sizes in pixels, batch size, epochs, mixed precision, whether the run is
            resumed, and whether the student is quantised.
    """
    device = str(run.device)
    if run.device.type == "cuda":
        device = f"{run.devices} x {torch.cuda.get_device_name(run.device)}"
    return RunFacts(
        task=str(run.args.task),
        device=device,
        imgsz=run.imgsz(student),
        batch=run.args.batch,
        epochs=int(run.args.epochs),
        amp=run.amp,
        resumed=bool(run.args.resume),
        teacher_imgsz=run.settings.teacher_imgsz,
        unlabelled=unlabelled_facts(run),
        quantised=run.args.quantize == 8,
    )


def unlabelled_facts(run: PreparedRun) -> UnlabelledFacts | None:
    """Return the unlabelled images of a run and its batch.

    Args:
        run (PreparedRun): The run.

    Returns:
        (UnlabelledFacts | None): None for a run without them.
    """
    if run.unlabelled is None:
        return None
    settings, batch = run.settings, None
    if run.args.batch >= 1:
        parts = BatchParts.of(int(run.args.batch), settings.unlabelled_share, run.devices)
        batch = parts.labelled * run.devices, parts.unlabelled * run.devices
    images = run.unlabelled
    numbers = len(images.images), len(images.broken), len(images.duplicates)
    return UnlabelledFacts(*numbers, settings.unlabelled_share, batch, settings.unlabelled_conf)


def level_facts(run: PreparedRun, student: Any, pairs: list[tuple[int, int]]) -> tuple[LevelFacts, ...]:
    """Return the layers that are compared, and the adapter, of each pair of levels.

    Args:
        run (PreparedRun): The run.
        student (Any): The student.
        pairs (list[tuple[int, int]]): Student index and teacher index of each pair.

    Returns:
        (tuple[LevelFacts, ...]): One per pair.
    """
    facts, imgsz, ratio = [], run.imgsz(student), run.size_ratio
    for s, t in pairs:
        student_layer, teacher_layer = _layer(student, s, imgsz), _layer(run.teacher.model, t, ratio * imgsz)
        adapter = (teacher_layer.shape[0], student_layer.shape[0], 1, 1)
        facts.append(LevelFacts(run.teacher.strides[t] / ratio, student_layer, teacher_layer, adapter))
    return tuple(facts)


def _layer(model: Any, level: int, imgsz: int) -> Layer:
    """Return the layer that feeds a level of a model's head."""
    head: Any = dense_head(model, "the model")
    index = head.f[level] if head.f[level] >= 0 else head.i + head.f[level]
    side = math.ceil(imgsz / strides_of(head)[level])
    return Layer(index, type(model.model[index]).__name__, (level_channels(head)[level], side, side))


def levels_left_out(run: PreparedRun, student: Any) -> tuple[str, ...]:
    """Return the levels that are not distilled, each with the reason.

    Args:
        run (PreparedRun): The run.
        student (Any): The student.

    Returns:
        (tuple[str, ...]): One line per level, such as 'stride 64: only the teacher has it'. It is empty if all are
            distilled.
    """
    student_strides = strides_of(dense_head(student, "the student"))
    ratio = run.size_ratio
    student_only, teacher_only = unpaired_levels(student_strides, run.teacher.strides, ratio)
    if ratio == 1:
        reasons = [f"stride {s:g}: only the student has it" for s in student_only]
        reasons += [f"stride {s:g}: only the teacher has it" for s in teacher_only]
    else:
        reasons = [f"stride {s:g}: no level of the teacher has its grid" for s in student_only]
        reasons += [f"the teacher's stride {s:g}: no level of the student has its grid" for s in teacher_only]
    if (levels := run.settings.levels) is not None:
        shared = [s for s in student_strides if s not in student_only]
        reasons += [f"stride {s:g}: not in levels={levels}" for s in shared if s not in levels]
    return tuple(reasons)


def class_facts(run: PreparedRun) -> ClassFacts:
    """Return how the classes match, and the consequence for the streams.

    Args:
        run (PreparedRun): The run.

    Returns:
        (ClassFacts): Numbers of classes, the match in words, the shared classes and the consequence.
    """
    classes, shared = run.class_map, run.class_map.shared
    counts = len(classes.teacher), len(classes.data)
    if not shared:
        consequence = "the explicit stream alone can be distilled, it needs no classes"
    elif not set(run.settings.active) & set(IMPLICIT):
        consequence = "the implicit stream is off, nothing compares them"
    elif len(shared) < max(counts):
        some = f"{len(shared)} class{'' if len(shared) == 1 else 'es'}"
        consequence = f"the implicit stream compares {some}, the explicit stream needs none"
    else:
        consequence = "the implicit stream compares all of them"
    return ClassFacts(*counts, classes.describe(), shared, consequence)


def amplifier_facts(run: PreparedRun) -> AmplifierFacts:
    """Return the source of the amplifier.

    Args:
        run (PreparedRun): The run.

    Returns:
        (AmplifierFacts): Given, stored, to train or not needed.

    Raises:
        BadUseError: If the file that is given cannot be read.
    """
    if "imhi" not in run.settings.active:
        return AmplifierFacts("not needed", reason=why_off(run, Term.IMHI))
    if run.amplifier_path is not None:
        return _trained_amplifier("given", run.amplifier_path, load_amplifier(run.amplifier_path)[1])
    if run.amplifier_card is None:
        return AmplifierFacts("to train")
    card = run.amplifier_card
    stored = stored_card(card)
    if stored is not None and stored.epochs >= card.epochs:
        return _trained_amplifier("kept", stored_file(card), stored)
    reason = "" if stored is None else f"the kept one has {stored.epochs} epochs"
    share = None if run.args.time else card.epochs / run.args.epochs
    return AmplifierFacts("to train", epochs=card.epochs, share=share, reason=reason)


def _trained_amplifier(state: Literal["given", "kept"], file: Path, card: AmplifierCard) -> AmplifierFacts:
    """Return the facts on an amplifier's card."""
    measured = (card.map50, card.map50_95, card.teacher_map50, card.teacher_map50_95)
    map50, map50_95, teacher_map50, teacher_map50_95 = (m if m >= 0 else None for m in measured)
    return AmplifierFacts(state, str(file), card.epochs, map50, map50_95, teacher_map50, teacher_map50_95)


def gain_facts(run: PreparedRun) -> GainFacts:
    """Return the gains, their schedule, and why terms are off.

    Args:
        run (PreparedRun): The run.

    Returns:
        (GainFacts): Gains as shares or fixed numbers. The last epoch with a gain above 0 counts from 1, and 0 means
            none.
    """
    settings, epochs = run.settings, int(run.args.epochs)
    return GainFacts(
        shares=settings.shares,
        fixed=settings.fixed,
        off={t: why_off(run, t) for t in TERMS if t not in settings.active},
        warmup=settings.gain_warmup,
        schedule=settings.gain_schedule,
        final=settings.gain_final,
        last_epoch=max((e + 1 for e in range(epochs) if gain_factor(settings, e, epochs) > 0), default=0),
    )


def why_off(run: PreparedRun, term: Term) -> str:
    """Return why a term is off.

    Args:
        run (PreparedRun): The run.
        term (Term): A term that is not active.

    Returns:
        (str): The reason, such as 'imhi=0'.
    """
    if term.stream == "implicit" and not run.class_map.shared:
        return "teacher and data share no class"
    if not getattr(run.settings, term.stream):
        return f"{term.stream}=False"
    return f"{term}=0" if getattr(run.settings, term) is not None else "gains=0"


def parameter_facts(student: nn.Module, teacher: Teacher, distiller: Distiller | None) -> ParameterFacts:
    """Return the numbers of trained and frozen parameters.

    Args:
        student (nn.Module): The student; the layers that `freeze=` names are frozen already.
        teacher (Teacher): The teacher.
        distiller (Distiller | None): The distillation, None where no term is on.

    Returns:
        (ParameterFacts): Counts.
    """
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    amplifier = distiller.amplifier if distiller else None
    return ParameterFacts(
        student=trained,
        student_frozen=count_parameters(student) - trained,
        adapters=count_parameters(distiller.adapters) if distiller else 0,
        adapter_init=distiller.settings.adapter_init if distiller else "random",
        teacher=count_parameters(teacher.model),
        amplifier=count_parameters(amplifier.head) if amplifier else 0,
    )


def count_parameters(model: nn.Module) -> int:
    """Return a model's number of parameters.

    Args:
        model (nn.Module): The model.

    Returns:
        (int): Trained and frozen parameters together.
    """
    return sum(p.numel() for p in model.parameters())
