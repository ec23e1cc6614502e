"""Image sizes that fit the teacher too: Ultralytics makes them multiples of the student's coarsest stride alone."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from ultralytics.data import build_yolo_dataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.checks import check_imgsz

from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.errors import BadUseError

USUAL_STRIDE = 32  # Ultralytics makes sizes multiples of this, or of a coarser stride of the student


class FittingSizes(DetectionTrainer):
    """A trainer whose training images a teacher coarser than 32 px can take; with another teacher it changes nothing.

    Validation images keep the student's own sizes, the teacher does not see them.

    Attributes:
        teacher (Teacher): Loaded teacher.
        stride (int): Stride in pixels whose multiples the sizes are, Ultralytics' own name for it.
    """

    teacher: Teacher
    stride: int

    @property
    def _coarse(self) -> int:
        """(int): The teacher's coarsest stride in pixels, 0 where Ultralytics' own sizes are multiples of it."""
        coarsest = int(max(self.teacher.strides))
        return coarsest if coarsest > USUAL_STRIDE else 0

    def fit_imgsz(self) -> None:
        """Round `imgsz` up to what the teacher takes, with Ultralytics' own warning; it rounds to the student's later.

        To be called once the teacher is loaded, before anything else reads the size.
        """
        if self._coarse:
            self.args.imgsz = check_imgsz(self.args.imgsz, stride=self._coarse, floor=self._coarse, max_dim=1)

    def _build_train_pipeline(self) -> None:
        """Build the loaders, once the stride is set whose multiples `multi_scale` draws."""
        self.stride = max(self.stride, self._coarse)
        super()._build_train_pipeline()

    def auto_batch(self, *args: Any, **keys: Any) -> int:
        """Return the batch size that fits the memory, profiled at the largest size that `multi_scale` will draw."""
        self.stride = max(self.stride, self._coarse)
        return int(super().auto_batch(*args, **keys))

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Build a data set; the batches of `rect` training are multiples of the stride too."""
        if mode != "train" or not self._coarse:
            return super().build_dataset(img_path, mode, batch)
        stride = max(self.stride, self._coarse)
        return build_yolo_dataset(self.args, img_path, batch, self.data, mode=mode, rect=False, stride=stride)


def refuse_uneven(args: Namespace, mine: int, theirs: int) -> None:
    """Refuse sizes that would be others in a comparison's arms with a teacher, where they are multiples of its stride.

    Args:
        args (Namespace): Ultralytics' settings of all arms.
        mine (int): Pixels whose multiples the sizes are without a teacher.
        theirs (int): The teacher's coarsest stride in pixels.

    Raises:
        BadUseError: With what to do instead.
    """
    if theirs <= mine:
        return
    said = f"the teacher's coarsest stride is {theirs} px, and arms without it would train at other sizes"
    if args.imgsz % theirs:
        raise BadUseError(f"imgsz={args.imgsz}: {said}; give imgsz={-(-args.imgsz // theirs) * theirs}")
    if args.multi_scale:
        raise BadUseError(f"multi_scale={args.multi_scale}: {said}; leave it out")
