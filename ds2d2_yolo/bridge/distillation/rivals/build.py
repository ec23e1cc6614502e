"""Assembly of a rival from its settings, a student's head and a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from ds2d2_yolo.bridge.distillation.rivals.methods import FeatureRival, LocalizationRival, Rival, bins_of
from ds2d2_yolo.bridge.models.adapters import make_adapters
from ds2d2_yolo.bridge.models.heads import dense_head, is_rotated, level_channels, pair_levels, strides_of
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher, Teacher
from ds2d2_yolo.config.rivals import CWDOptions, LDOptions, PKDOptions, complete_settings, rival_options
from ds2d2_yolo.core.rivals.cwd import channel_wise_loss
from ds2d2_yolo.core.rivals.ld import localization_loss
from ds2d2_yolo.core.rivals.pkd import pearson_feature_loss
from ds2d2_yolo.errors import BadUseError

if TYPE_CHECKING:
    from ultralytics.nn.modules.head import Detect

LD_DIVISORS = {False: 4.0, True: 1.0}  # of `localization_loss` as published, by whether the boxes are oriented


def check_rival(name: str, student_head: Detect, teacher_head: Detect) -> None:
    """Refuse a rival that cannot compare two models.

    Args:
        name (str): Key of `RIVALS`.
        student_head (Detect): The student's head.
        teacher_head (Detect): The teacher's head.

    Raises:
        BadUseError: If the models share no level, or `ld` finds no distributions of one number of bins.
    """
    pair_levels(strides_of(student_head), strides_of(teacher_head))
    student, teacher = bins_of(student_head), bins_of(teacher_head)
    if name == "ld" and (student != teacher or student == 1):
        counts = f"the student predicts {student} bins an edge, the teacher {teacher}"
        raise BadUseError(f"ld compares box distributions of one number of bins above 1: {counts}; leave that arm out")


def build_rival(
    settings: Mapping[str, Any],
    student_head: Detect,
    teacher: Teacher,
    adapters: nn.ModuleList | None = None,
    seed: int = 0,
) -> Rival:
    """Pair the levels, make the adapters and freeze the teacher.

    Args:
        settings (Mapping[str, Any]): Method and settings, see `config.rivals.rival_settings`.
        student_head (Detect): The student's head, uncompiled.
        teacher (Teacher): Loaded teacher. Its model is folded in place: pass a copy to keep it.
        adapters (nn.ModuleList | None): Adapters of an earlier part of the run; None makes new ones.
        seed (int): Seed of new adapters.

    Returns:
        (Rival): On the device of the teacher.

    Raises:
        BadUseError: See `check_rival`.
    """
    teacher_head = dense_head(teacher.model, "the teacher")
    rotated = is_rotated(student_head)
    name, options = rival_options(complete_settings(settings, "obb" if rotated else "detect"))
    check_rival(name, student_head, teacher_head)
    teacher_channels = level_channels(teacher_head)
    frozen = FrozenTeacher(teacher, strides_of(student_head))
    if isinstance(options, LDOptions):
        assert options.temperature is not None
        assert options.weight is not None
        loss = partial(localization_loss, temperature=options.temperature, divisor=LD_DIVISORS[rotated])
        return LocalizationRival(frozen, bins_of(student_head), loss, options.weight)
    if adapters is None:
        student_channels = level_channels(student_head)
        widths = [(student_channels[s], teacher_channels[t]) for s, t in frozen.pairs]
        adapters = _make_needed_adapters(widths, seed)
    if isinstance(options, CWDOptions):
        return FeatureRival(frozen, adapters, partial(channel_wise_loss, tau=options.tau), options.weight)
    assert isinstance(options, PKDOptions)
    return FeatureRival(frozen, adapters, pearson_feature_loss, options.weight)


def _make_needed_adapters(widths: list[tuple[int, int]], seed: int) -> nn.ModuleList | None:
    """Return a 1 x 1 convolution for each level whose widths differ and identities elsewhere, None if none differ."""
    if all(student == teacher for student, teacher in widths):
        return None
    convolutions = make_adapters([student for student, _ in widths], [teacher for _, teacher in widths], seed)
    return nn.ModuleList(
        nn.Identity() if student == teacher else convolution
        for (student, teacher), convolution in zip(widths, convolutions, strict=True)
    )
