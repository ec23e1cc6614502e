"""Writes drawn scenes as a data set in Ultralytics' oriented-box format."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ds2d2_yolo.scenes.render import draw_scene
from ds2d2_yolo.scenes.world import Label
from ds2d2_yolo.utils.child_process import child_environment
from ds2d2_yolo.utils.threads import usable_cores

SPLITS = ("train", "val")
STALE_SECONDS = 24 * 3600  # no process works on a part folder that long


@dataclass(frozen=True)
class DatasetPlan:
    """Size and seed of a data set.

    Attributes:
        train (int): Number of training images.
        val (int): Number of validation images.
        seed (int): Seed of the data set.
        imgsz (int): Side of the images in pixels.
    """

    train: int
    val: int
    seed: int
    imgsz: int

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if min(self.train, self.val) < 1:
            raise ValueError(f"train={self.train} and val={self.val} must be 1 or more: both splits need an image")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must be 0 or more")
        if self.imgsz < 320 or self.imgsz % 4:
            raise ValueError(f"imgsz={self.imgsz} must be a multiple of 4, 320 or more, such as 640")

    def tasks(self) -> list[tuple[int, int]]:
        """Return (split, index) of every image."""
        return [(split, index) for split, count in enumerate((self.train, self.val)) for index in range(count)]


def label_lines(labels: list[Label], imgsz: int) -> str:
    """Return labels as lines `class x1 y1 x2 y2 x3 y3 x4 y4`, corners normalised by the image's side to 0..1."""
    lines = []
    for category, corners in labels:
        normalised = np.clip(corners / imgsz, 0.0, 1.0).ravel()
        lines.append(" ".join([str(category), *(f"{value:.6f}" for value in normalised)]) + "\n")
    return "".join(lines)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit OpenCV to one thread while the context lasts."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def write_images(part: Path, plan: DatasetPlan, tasks: Iterable[tuple[int, int]]) -> Iterator[None]:
    """Draw and write images with their labels, one at each step of the iterator; the label is written last."""
    for split, index in tasks:
        name = f"{SPLITS[split]}_{index:05d}"
        with _one_thread():
            image, labels = draw_scene(plan.seed, split, index, plan.imgsz)
            quality = 88 + (index * 7 + split) % 9
            done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not done:
            raise OSError(f"OpenCV could not encode image '{name}' as JPEG: reinstall opencv-python")
        (part / "images" / SPLITS[split] / f"{name}.jpg").write_bytes(data.tobytes())
        text = label_lines(labels, plan.imgsz)
        (part / "labels" / SPLITS[split] / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")
        yield


def write_dataset(
    root: str | Path,
    train: int = 256,
    val: int = 64,
    seed: int = 0,
    imgsz: int = 640,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw the data set into a folder, in parallel processes.

    Everything is written to a sibling folder, which is renamed when it is complete: a folder named `root` is never an
    incomplete data set, whenever the process is killed. An image depends on seed, split and index, not on `workers`.

    Args:
        root (str | Path): Folder to make; it must not exist, or be empty.
        train (int): Number of training images, 1 or more.
        val (int): Number of validation images, 1 or more.
        seed (int): Seed, 0 or more.
        imgsz (int): Side of the images in pixels, a multiple of 4 from 320 up.
        workers (int | None): Processes; None for one per core, 0 or 1 to draw in this process.
        progress (Callable[[int, int], None] | None): Called with the number of drawn images and of all; None for a line
            on standard error.

    Raises:
        FileExistsError: If `root` is a file or a folder that is not empty.
        ValueError: If a number is out of range.
        RuntimeError: If a drawing process fails.
    """
    root, plan = Path(root), DatasetPlan(train, val, seed, imgsz)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"'{root}' holds something already: remove it to draw the scenes again")
    _sweep(root)
    part = root.with_name(f"{root.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for split in SPLITS:
            for kind in ("images", "labels"):
                (part / kind / split).mkdir(parents=True)
        count = min(usable_cores() if workers is None else workers, len(plan.tasks()))
        report = progress or partial(_progress, root.name)
        if count > 1 and sys.executable:
            _draw_in_processes(part, plan, count, report)
        else:
            for done, _ in enumerate(write_images(part, plan, plan.tasks()), 1):
                report(done, len(plan.tasks()))
        _publish(part, root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove part folders that killed processes left a day ago or earlier."""
    for old in root.parent.glob(f"{root.name}.part-*"):
        if old.is_dir() and time.time() - old.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(old, ignore_errors=True)


def _publish(part: Path, root: Path) -> None:
    """Rename the complete folder, unless another process has just done the same."""
    if root.is_dir() and not any(root.iterdir()):
        root.rmdir()
    try:
        part.rename(root)
    except OSError:
        if not (root / "labels" / SPLITS[-1]).is_dir():
            raise


def _draw_in_processes(part: Path, plan: DatasetPlan, count: int, report: Callable[[int, int], None]) -> None:
    """Draw in `count` child processes and count the labels that they write.

    They are started as plain commands: multiprocessing would import the caller's main module again, and a training
    script without the `if __name__ == "__main__"` guard would start again in each of them.
    """
    numbers = [str(n) for n in (plan.train, plan.val, plan.seed, plan.imgsz, count)]
    python_path = os.pathsep.join(p for p in sys.path if p)
    environment = child_environment({"OMP_NUM_THREADS": "1", "PYTHONPATH": python_path}, base=os.environ)
    command = [sys.executable, "-m", "ds2d2_yolo.scenes.worker", str(part.resolve()), *numbers]
    processes: list[subprocess.Popen[bytes]] = []
    total = len(plan.tasks())
    try:
        for k in range(count):
            processes.append(subprocess.Popen([*command, str(k)], stdin=subprocess.PIPE, env=environment))
        while any(process.poll() is None for process in processes):
            report(min(total - 1, sum(1 for _ in part.glob("labels/*/*.txt"))), total)
            if any(process.poll() for process in processes):
                break
            time.sleep(0.2)
        failed = [process.returncode for process in processes if process.poll()]
        if failed:
            raise RuntimeError(f"drawing into '{part}' failed (status {failed[0]}): draw with workers=1 to see where")
        report(total, total)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _progress(name: str, count: int, total: int) -> None:
    """Refresh the progress line on a terminal; elsewhere write only the last one."""
    if sys.stderr.isatty() or count == total:
        sys.stderr.write(f"\r{name}: {count}/{total}" + ("\n" if count == total else ""))
        sys.stderr.flush()
