"""What a run is made of before it starts, and the facts that can be read off it without computing anything."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ds2d2_yolo.bridge.data.class_map import ClassMap
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.gains import gain_factor
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard, load_amplifier, stored_card, stored_file
from ds2d2_yolo.bridge.models.heads import dense_head, level_channels, strides_of, unpaired_levels
from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.config.settings import EXPLICIT, IMPLICIT, TERMS, Settings
from ds2d2_yolo.report.facts import AmplifierFacts, ClassFacts, GainFacts, Layer, LevelFacts, ParameterFacts, RunFacts


@dataclass(frozen=True)
class Plan:
    """What a run is made of, before anything of it has started. Nothing in it is changed.

    Attributes:
        student (Any): The student, not yet on its device.
        teacher (Teacher): The teacher, unfused.
        data (Mapping[str, Any]): The data set as `check_det_dataset` returns it.
        args (Namespace): Ultralytics' settings.
        settings (Settings): The DS2D2 settings.
        class_map (ClassMap): Classes of teacher and data.
        device (torch.device): The first device.
        devices (int): Devices that share a batch.
        amplifier (Path | None): The amplifier that is given.
        card (AmplifierCard | None): Origin of the amplifier that is otherwise kept or to train.
    """

    student: Any
    teacher: Teacher
    data: Mapping[str, Any]
    args: Namespace
    settings: Settings
    class_map: ClassMap
    device: torch.device
    devices: int = 1
    amplifier: Path | None = None
    card: AmplifierCard | None = None

    @property
    def imgsz(self) -> int:
        """(int): Side of the training images in pixels, made a multiple of the student's stride as Ultralytics does."""
        wanted = self.args.imgsz if isinstance(self.args.imgsz, int) else max(self.args.imgsz)
        stride = max(int(self.student.stride.max()), 32)
        return max(math.ceil(wanted / stride), 1) * stride

    @property
    def amp(self) -> bool:
        """(bool): Whether the run asks for mixed precision on a device that has it."""
        return self.device.type == "cuda" and self.args.amp not in {False, "fp32"}


def run_facts(plan: Plan) -> RunFacts:
    """Return how a run trains."""
    device = str(plan.device)
    if plan.device.type == "cuda":
        device = f"{plan.devices} x {torch.cuda.get_device_name(plan.device)}"
    return RunFacts(
        task=str(plan.args.task),
        device=device,
        imgsz=plan.imgsz,
        batch=plan.args.batch,
        epochs=int(plan.args.epochs),
        amp=plan.amp,
        resumed=bool(plan.args.resume),
    )


def level_facts(plan: Plan, pairs: list[tuple[int, int]]) -> tuple[LevelFacts, ...]:
    """Return the tapped layers and the adapter of each pair of levels (student index, teacher index)."""
    found = []
    for s, t in pairs:
        mine, theirs = _layer(plan.student, s, plan.imgsz), _layer(plan.teacher.model, t, plan.imgsz)
        adapter = (theirs.shape[0], mine.shape[0], 1, 1)
        found.append(LevelFacts(plan.teacher.strides[t], mine, theirs, adapter))
    return tuple(found)


def _layer(model: Any, level: int, imgsz: int) -> Layer:
    """Return the layer that feeds a level of a model's head."""
    head: Any = dense_head(model, "the model")
    index = head.f[level] if head.f[level] >= 0 else head.i + head.f[level]
    side = math.ceil(imgsz / strides_of(head)[level])
    return Layer(index, type(model.model[index]).__name__, (level_channels(head)[level], side, side))


def levels_off(plan: Plan) -> tuple[str, ...]:
    """Return the levels that are left out, each with the reason."""
    mine, theirs = strides_of(dense_head(plan.student, "the student")), plan.teacher.strides
    alone = zip(("student", "teacher"), unpaired_levels(mine, theirs), strict=True)
    off = [f"stride {s:g}: only the {who} has it" for who, strides in alone for s in strides]
    if (levels := plan.settings.levels) is not None:
        off += [f"stride {s:g}: not in levels={levels}" for s in mine if s in theirs and s not in levels]
    return tuple(off)


def class_facts(plan: Plan) -> ClassFacts:
    """Return how the classes match and what follows for the streams."""
    classes, shared = plan.class_map, plan.class_map.shared
    counts = len(classes.teacher), len(classes.data)
    if not shared:
        meaning = "the explicit stream alone can be distilled, it needs no classes"
    elif not set(plan.settings.active) & set(IMPLICIT):
        meaning = "the implicit stream is off, nothing compares them"
    elif len(shared) < max(counts):
        some = f"{len(shared)} class{'' if len(shared) == 1 else 'es'}"
        meaning = f"the implicit stream compares {some}, the explicit stream needs none"
    else:
        meaning = "the implicit stream compares all of them"
    return ClassFacts(*counts, classes.describe(), shared, meaning)


def amplifier_facts(plan: Plan) -> AmplifierFacts:
    """Return where the amplifier comes from.

    Raises:
        BadUseError: If the file that is given cannot be read.
    """
    if "imhi" not in plan.settings.active:
        return AmplifierFacts("not needed", reason=why_off(plan, "imhi"))
    if plan.amplifier is not None:
        return _amplifier("given", plan.amplifier, load_amplifier(plan.amplifier)[1])
    if plan.card is None:
        return AmplifierFacts("to train")
    kept = stored_card(plan.card)
    if kept is not None and kept.epochs >= plan.card.epochs:
        return _amplifier("kept", stored_file(plan.card), kept)
    reason = "" if kept is None else f"the kept one has {kept.epochs} epochs"
    share = None if plan.args.time else plan.card.epochs / plan.args.epochs
    return AmplifierFacts("to train", epochs=plan.card.epochs, share=share, reason=reason)


def _amplifier(state: Literal["given", "kept"], file: Path, card: AmplifierCard) -> AmplifierFacts:
    """Return what the card of an amplifier says."""
    measured = (card.map50, card.map50_95, card.teacher_map50, card.teacher_map50_95)
    mine, mine_95, theirs, theirs_95 = (m if m >= 0 else None for m in measured)
    return AmplifierFacts(state, str(file), card.epochs, mine, mine_95, theirs, theirs_95)


def gain_facts(plan: Plan) -> GainFacts:
    """Return the gains, and why terms are off."""
    settings, epochs = plan.settings, int(plan.args.epochs)
    return GainFacts(
        shares=settings.shares,
        fixed=settings.fixed,
        off={t: why_off(plan, t) for t in TERMS if t not in settings.active},
        warmup=settings.gain_warmup,
        schedule=settings.gain_schedule,
        final=settings.gain_final,
        last_epoch=max((e + 1 for e in range(epochs) if gain_factor(settings, e, epochs) > 0), default=0),
    )


def why_off(plan: Plan, term: str) -> str:
    """Return why a term is off."""
    stream = "explicit" if term in EXPLICIT else "implicit"
    if stream == "implicit" and not plan.class_map.shared:
        return "teacher and data share no class"
    if not getattr(plan.settings, stream):
        return f"{stream}=False"
    return f"{term}=0" if getattr(plan.settings, term) is not None else "gains=0"


def parameter_facts(student: nn.Module, teacher: Teacher, distiller: Distiller | None) -> ParameterFacts:
    """Return the numbers of trained and frozen parameters; of the student what `freeze=` names is frozen already."""
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    amplifier = distiller.amplifier if distiller else None
    return ParameterFacts(
        student=trained,
        student_frozen=count(student) - trained,
        adapters=count(distiller.adapters) if distiller else 0,
        teacher=count(teacher.model),
        amplifier=count(amplifier.head) if amplifier else 0,
    )


def count(model: nn.Module) -> int:
    """Return a model's number of parameters."""
    return sum(p.numel() for p in model.parameters())
