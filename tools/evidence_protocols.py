"""Training schedules of the comparisons of docs/evidence.md."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ds2d2_yolo.errors import BadUseError

TEACHER, STUDENT = "yolov8s-obb.yaml", "yolov8n-obb.yaml"
SCENES = "aerial-scenes.yaml"


@dataclass(frozen=True)
class Protocol:
    """Training schedules of teacher and students for one regime.

    Attributes:
        name (str): Name of the regime, and of its folder.
        schedule (dict[str, Any]): Ultralytics training settings of the students.
        teacher_schedule (dict[str, Any]): Settings in which the teacher's training differs.
        teacher (str): Model YAML of the teacher.
        student_weights (str): Checkpoint that the students start from, in the folder of `--pretrained`; empty for
            none. The teacher's is `pretrained` of its schedule.
        compared (dict[str, Any]): Settings of the comparison that the teacher's training does not have.
        arms (str): Arms of the comparison if the command names none.
    """

    name: str
    schedule: dict[str, Any]
    teacher_schedule: dict[str, Any]
    teacher: str = TEACHER
    student_weights: str = ""
    compared: dict[str, Any] = field(default_factory=dict)
    arms: str = "teacher,plain,ds2d2,distill_model,explicit,implicit"


PHOTOGRAPHS = Protocol(
    "photographs",
    {
        "imgsz": 320, "fraction": 0.5, "epochs": 20, "batch": 8, "optimizer": "AdamW", "lr0": 0.001, "nbs": 8,
        "warmup_epochs": 1, "close_mosaic": 5, "workers": 1, "device": "cpu", "plots": False,
    },
    teacher_schedule={},
)  # fmt: skip


SCENES_PROTOCOL = Protocol(
    "scenes",
    {
        "imgsz": 320, "epochs": 4, "batch": 4, "optimizer": "AdamW", "lr0": 0.002, "nbs": 4, "warmup_epochs": 1.0,
        "mosaic": 0.0, "scale": 0.2, "val": False, "plots": False, "conf": 0.03, "workers": 1, "device": "cpu",
    },
    teacher_schedule={"epochs": 8},
)  # fmt: skip

# 80 epochs by the rule of docs/evidence-runs.md: a plain student of 40 lies 0.023 mAP50-95 below one of 80 (seed 0).
# The checkpoints were fine-tuned from COCO's. They are in the wheels ship-detector-mcp 0.1.0 (YOLO11s) and
# smartrail-obstacle-detector 0.1.1 (YOLOv8n) of PyPI.
PRETRAINED = Protocol(
    "pretrained",
    {**PHOTOGRAPHS.schedule, "epochs": 80, "close_mosaic": 10, "val": False},
    teacher_schedule={"epochs": 60, "imgsz": 416, "fraction": 1.0, "pretrained": "yolo11s-ships.pt"},
    teacher="yolo11s-obb.yaml",
    student_weights="yolov8n-railway.pt",
)


# The teacher is the student's architecture, trained from the same checkpoint on the same images at twice the size.
# Neither has seen the images that `fraction` leaves out, so that these measure both. The arm `teacher` would measure
# the teacher at the students' size, so there is none.
HALF_SIZE = Protocol(
    "half-size",
    {**PRETRAINED.schedule, "epochs": 40, "imgsz": 160},
    teacher_schedule={"imgsz": 320, "pretrained": PRETRAINED.student_weights},
    teacher=STUDENT,
    student_weights=PRETRAINED.student_weights,
    arms="plain,images:gains=0;teacher_imgsz=320,balanced:recipe=balanced;teacher_imgsz=320",
)


# Half of the training images have labels. The others are seen without them. A batch has the 8 labelled images of
# PHOTOGRAPHS and 8 unlabelled ones, and the plain student trains as there.
UNLABELLED = Protocol(
    "unlabelled",
    PHOTOGRAPHS.schedule,
    teacher_schedule={},
    compared={"batch": 16, "unlabelled": "rest", "unlabelled_share": 0.5},
    arms="plain,labelled:unlabelled=False,ds2d2,pseudo_labels",
)


def protocol_of(
    data: str, pretrained: Path | None = None, unlabelled: bool = False, half_size: bool = False
) -> Protocol:
    """Return the protocol of a data set.

    Args:
        data (str): Data-set YAML.
        pretrained (Path | None): Folder of the pretrained checkpoints, None for models from their YAMLs.
        unlabelled (bool): Whether the students see the images without labels too that `fraction` leaves out.
        half_size (bool): Whether the students see images of half the teacher's size.

    Returns:
        (Protocol): The protocol, with the paths of its checkpoints.

    Raises:
        BadUseError: If the folder lacks a checkpoint, or there is no such protocol.
    """
    if unlabelled:
        if pretrained is not None or data == SCENES:
            raise BadUseError("--unlabelled is a protocol of HIT-UAV by itself: leave out --pretrained")
        return UNLABELLED
    if half_size and (pretrained is None or data == SCENES):
        raise BadUseError("--half-size is a protocol of HIT-UAV from pretrained weights: give --pretrained too")
    if pretrained is None:
        return SCENES_PROTOCOL if data == SCENES else PHOTOGRAPHS
    protocol = HALF_SIZE if half_size else PRETRAINED
    names = protocol.student_weights, protocol.teacher_schedule["pretrained"]
    student, teacher = ((pretrained / name).resolve() for name in names)
    for file in (student, teacher):
        if not file.is_file():
            raise BadUseError(f"--pretrained: there is no file {file}")
    return replace(
        protocol,
        teacher_schedule={**protocol.teacher_schedule, "pretrained": str(teacher)},
        student_weights=str(student),
    )
