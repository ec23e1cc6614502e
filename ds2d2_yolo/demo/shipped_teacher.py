"""The trained teacher that ships with the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ds2d2_yolo.config.resources import resolve_model
from ds2d2_yolo.errors import DS2D2Error
from ds2d2_yolo.utils.atomic_files import replacing

TEACHER = "aerial-scenes-teacher.pt"
# of the file that `tools/train_demo_teacher.py` wrote; another run of it writes other bytes
SHA256 = "a607b79fdfe3477053aaf9f5087e2293f63221b6352ed1a105d2640ec710c058"


def copy_shipped_teacher(target: Path) -> None:
    """Copy the shipped teacher, unless it is not the file that was released.

    Args:
        target (Path): The copy.

    Raises:
        DS2D2Error: If the file is missing or has other bytes.
    """
    source = Path(resolve_model(TEACHER))
    if not source.is_file():
        raise DS2D2Error(f"the installation lacks {TEACHER}: reinstall ds2d2-yolo")
    content = source.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise DS2D2Error(f"{source} is not the teacher that ships with ds2d2-yolo: reinstall ds2d2-yolo")
    with replacing(target) as part:
        part.write_bytes(content)
