"""Image sizes that fit the teacher too: Ultralytics makes them multiples of the student's coarsest stride only."""

from __future__ import annotations

from argparse import Namespace

from ultralytics.utils.checks import check_imgsz

from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.bridge.preflight.prepared_run import USUAL_STRIDE
from ds2d2_yolo.errors import BadUseError


def coarse_stride(teacher: Teacher, ratio: int = 1) -> int:
    """Return the teacher's coarsest stride in pixels, 0 if Ultralytics' sizes are multiples of it anyway.

    Args:
        teacher (Teacher): Loaded teacher.
        ratio (int): Side of the teacher's images over that of the student's.

    Returns:
        (int): In pixels of the student's images. Training images must be multiples of it. Validation images need not,
            the teacher does not see them.
    """
    coarsest = int(max(teacher.strides)) // ratio
    return coarsest if coarsest > USUAL_STRIDE else 0


def fit_imgsz(args: Namespace, teacher: Teacher, ratio: int = 1) -> None:
    """Round `imgsz` up to a multiple of the teacher's coarsest stride, in place, with Ultralytics' own warning.

    Args:
        args (Namespace): Ultralytics' settings; `imgsz` changes for a teacher coarser than usual.
        teacher (Teacher): Loaded teacher.
        ratio (int): As in `coarse_stride`.
    """
    if stride := coarse_stride(teacher, ratio):
        args.imgsz = check_imgsz(args.imgsz, stride=stride, floor=stride, max_dim=1)


def refuse_uneven(args: Namespace, student_stride: int, teacher_stride: int) -> None:
    """Refuse sizes at which a comparison's arms with a teacher would train at other sizes than those without.

    Args:
        args (Namespace): Ultralytics' settings of all arms.
        student_stride (int): Pixels whose multiples the sizes are without a teacher.
        teacher_stride (int): The teacher's coarsest stride in pixels.

    Raises:
        BadUseError: With what to do instead.
    """
    if teacher_stride <= student_stride:
        return
    reason = f"the teacher's coarsest stride is {teacher_stride} px, and arms without it would train at other sizes"
    if args.imgsz % teacher_stride:
        raise BadUseError(
            f"imgsz={args.imgsz}: {reason}; give imgsz={-(-args.imgsz // teacher_stride) * teacher_stride}"
        )
    if args.multi_scale:
        raise BadUseError(f"multi_scale={args.multi_scale}: {reason}; leave it out")
