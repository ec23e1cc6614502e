"""A drawing process of `write_dataset`: `python -m ds2d2_yolo.scenes.worker PART TRAIN VAL SEED IMGSZ COUNT K`.

It draws every COUNT-th image, starting with the K-th, and exits when its parent ends.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from ds2d2_yolo.scenes.dataset import DatasetPlan, write_images


def _end_with_parent() -> None:
    """Exit when standard input ends, which the parent holds open."""
    os.read(0, 1)  # not sys.stdin: this thread would hold its lock, which aborts the interpreter's shutdown
    os._exit(1)


def main(arguments: list[str]) -> None:
    """Draw this process's share."""
    train, val, seed, imgsz, count, k = (int(text) for text in arguments[1:])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    plan = DatasetPlan(train, val, seed, imgsz)
    for _ in write_images(Path(arguments[0]), plan, plan.tasks()[k::count]):
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
