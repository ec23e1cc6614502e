"""One drawing process of `write_dataset`: `python -m ds2d2_yolo.scenes.worker PART TRAIN VAL SEED IMGSZ COUNT K`.

It draws every COUNT-th image from the K-th on, and ends at once when its parent is gone.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from .dataset import Plan, write_images


def _end_with_parent() -> None:
    """Wait for the end of standard input, which the parent holds open, and end."""
    os.read(0, 1)  # not sys.stdin: its lock, held here, would abort the interpreter's own end
    os._exit(1)


def main(arguments: list[str]) -> None:
    """Draw this process's share."""
    train, val, seed, imgsz, count, k = (int(text) for text in arguments[1:])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    plan = Plan(train, val, seed, imgsz)
    for _ in write_images(Path(arguments[0]), plan, plan.tasks()[k::count]):
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
