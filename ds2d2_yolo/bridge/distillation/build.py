"""Assembly of a distiller from a student's head, a teacher and the settings."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ds2d2_yolo.bridge.data.class_map import ClassMap
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.models.adapters import make_adapters
from ds2d2_yolo.bridge.models.amplifier import Amplifier, one_to_many
from ds2d2_yolo.bridge.models.heads import dense_head, level_channels, pair_levels, strides_of
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher, Teacher
from ds2d2_yolo.config.settings import Settings

if TYPE_CHECKING:
    from ultralytics.nn.modules.head import Detect


def build_distiller(
    student_head: Detect,
    teacher: Teacher,
    settings: Settings,
    *,
    class_map: ClassMap | None = None,
    amplifier_state: Mapping[str, Tensor] | None = None,
    adapters: nn.ModuleList | None = None,
    seed: int = 0,
    ratio: int = 1,
) -> Distiller:
    """Pair the levels, make the adapters, load the amplifier, freeze the teacher and bind them to the student's head.

    Args:
        student_head (Detect): The student's head, uncompiled.
        teacher (Teacher): Loaded teacher. Its model is folded in place: pass a copy to keep it.
        settings (Settings): DS2D2 settings with at least one active term.
        class_map (ClassMap | None): Classes of teacher and data; None for identical classes.
        amplifier_state (Mapping[str, Tensor] | None): Weights of the high-frequency amplifier's head. None takes the
            teacher's own, of the same size and cost.
        adapters (nn.ModuleList | None): Adapters of an earlier part of the run; None makes new ones.
        seed (int): Seed of new adapters.
        ratio (int): Side of the teacher's images over that of the student's, see `config.image_sizes.size_ratio`.

    Returns:
        (Distiller): On the device of the teacher.

    Raises:
        BadUseError: If the models share no level, or the amplifier's weights do not fit the teacher's head.
    """
    teacher_head = dense_head(teacher.model, "the teacher")
    student_strides, student_channels = strides_of(student_head), level_channels(student_head)
    pairs = pair_levels(student_strides, teacher.strides, settings.levels, ratio)
    teacher_channels = level_channels(teacher_head)
    amplifier = None
    if "imhi" in settings.active:  # before the teacher is folded: it copies the teacher's unfolded head
        state: Any = amplifier_state or one_to_many(copy.deepcopy(teacher_head)).state_dict()
        amplifier = Amplifier(teacher, state, [t for _, t in pairs], settings.wavelet)
    frozen = FrozenTeacher(teacher, student_strides, settings.levels, settings.teacher_bf16, ratio)
    if adapters is None:
        widths = [student_channels[s] for s, _ in pairs], [teacher_channels[t] for _, t in pairs]
        adapters = make_adapters(*widths, seed)
    teacher_columns, student_columns = class_map.compared_columns if class_map else (None, None)
    return Distiller(settings, frozen, adapters, amplifier, teacher_columns, student_columns)
