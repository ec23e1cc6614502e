"""Commands that are killed, with their data and untrained models."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos_pieces.files import files_of, weights_of
from chaos_pieces.processes import start, wait

EPOCHS = 5
SIZE = 64


@dataclass
class Target:
    """A command that is killed.

    Attributes:
        name (str): Its row in the table.
        words (list[str]): Its arguments.
        folders (list[Path]): What it writes; emptied before a new beginning.
        busy (list[Path]): Folders in which a name with a dot at the start means that something is being written.
        state (Callable): Returns what two finished runs must have in common.
        resumes (bool): Whether a further start takes the word 'resume'.
        initial_file (Path | None): A file that lies in the first folder from the beginning.
    """

    name: str
    words: list[str]
    folders: list[Path]
    busy: list[Path]
    state: Callable[[], Any]
    resumes: bool = False
    initial_file: Path | None = None

    def begin(self) -> None:
        """Empty the folders."""
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        if self.initial_file is not None:
            self.folders[0].mkdir(parents=True)
            shutil.copyfile(self.initial_file, self.folders[0] / self.initial_file.name)


def write_data(root: Path, images: int = 8) -> Path:
    """Write rectangles on noise in YOLO's layout, and the same as DOTA is published, beside each other."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder in (f"images/{split}", f"labels/{split}", f"dota/{split}/images", f"dota/{split}/labelTxt"):
            (root / folder).mkdir(parents=True)
        for i in range(images):
            image, rows, texts = rng.integers(0, 60, (2 * SIZE, 2 * SIZE, 3), dtype=np.uint8), [], []
            for _ in range(3):
                kind = int(rng.integers(0, 2))
                place, side = rng.uniform(30, 2 * SIZE - 30, 2), rng.uniform(20, 40, 2)
                corners = cv2.boxPoints((tuple(place), tuple(side), float(rng.uniform(0, 90))))
                corners = corners.clip(0, 2 * SIZE - 1)
                cv2.fillPoly(image, [corners.astype(np.int32)], (80, 240, 80) if kind else (80, 80, 240))
                rows.append(f"{kind} " + " ".join(f"{v:.6f}" for v in (corners / (2 * SIZE)).ravel()))
                texts.append(" ".join(f"{v:.1f}" for v in corners.ravel()) + (" ship 0" if kind else " plane 0"))
            cv2.imwrite(str(root / f"images/{split}/{i}.png"), image)
            (root / f"labels/{split}/{i}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
            cv2.imwrite(str(root / f"dota/{split}/images/P{i:04}.png"), np.tile(image, (4, 4, 1)))
            text = "imagesource:none\ngsd:1\n" + "\n".join(texts) + "\n"
            (root / f"dota/{split}/labelTxt/P{i:04}.txt").write_text(text, encoding="utf-8")
    yaml = root / "data.yaml"
    names = "names: {0: plane, 1: ship}\n"
    yaml.write_text(f"path: {root.as_posix()}\ntrain: images/train\nval: images/val\n{names}", encoding="utf-8")
    return yaml


def write_model(file: Path, seed: int) -> Path:
    """Write an untrained checkpoint."""
    import torch
    from ultralytics.nn.tasks import OBBModel

    torch.manual_seed(seed)
    model = OBBModel("yolov8n-obb.yaml", nc=2, verbose=False)
    model.names, model.task = {0: "plane", 1: "ship"}, "obb"
    torch.save({"model": model, "train_args": {"task": "obb", "imgsz": SIZE}}, file)
    return file


def train_model(file: Path, data: Path, epochs: int) -> None:
    """Train a checkpoint a little, so that the runs have a mAP to lose."""

    def train(_: list[str]) -> int:
        from ultralytics import YOLO

        keys = {"imgsz": SIZE, "batch": 8, "device": "cpu", "optimizer": "AdamW", "lr0": 0.005, "mosaic": 0.0}
        place = {"save_dir": str(file.with_suffix("")), "exist_ok": True, "plots": False, "val": False}
        YOLO(str(file)).train(data=str(data), epochs=epochs, warmup_epochs=1, **keys, **place)
        return 0

    if wait(start([], file.with_suffix(".log"), train), lambda: False):
        sys.exit(f"chaos: the teaching failed, see {file.with_suffix('.log')}")
    shutil.copyfile(file.with_suffix("") / "weights" / "last.pt", file)


def exported_is_right(work: Path) -> bool:
    """Return whether the exported file found what PyTorch finds."""
    parity = json.loads((work / "exported" / "student.onnx.parity.json").read_text(encoding="utf-8"))
    return not parity["wrong"]


def amplifier_hash(folder: Path) -> str:
    """Return the hash of the amplifier's weights."""
    from safetensors.torch import load_file

    tensors = sorted(load_file(next(folder.glob("*.safetensors"))).items())
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for _, tensor in tensors)).hexdigest()


def compared_runs(file: Path) -> list[tuple[str, str, str]]:
    """Return arm, seed and weights of the runs in a table of results."""
    with file.open(encoding="utf-8") as f:
        return sorted((r["arm"], r["seed"], r["weights"]) for r in csv.DictReader(f) if r["by"] == "all")


def targets(work: Path, epochs: int) -> list[Target]:
    """Make data and models, and return the commands.

    Args:
        work (Path): Folder of everything.
        epochs (int): Epochs that teacher and student are trained for, 0 for untrained ones.

    Returns:
        (list[Target]): The commands, those first whose files others take.
    """
    from ds2d2_yolo.bridge.models.amplifier_store import amplifier_folder

    data, model = write_data(work / "data"), write_model(work / "student.pt", 1)
    if epochs:
        train_model(model, data, epochs)
    teacher = Path(shutil.copyfile(model, work / "teacher.pt"))
    amplifiers, runs, out, exported = amplifier_folder(), work / "runs", work / "prepared", work / "exported"
    runs.mkdir()
    folder = runs / "run"
    shared = [f"data={data}", f"imgsz={SIZE}", "batch=4", "device=cpu"]
    pair = [f"teacher={teacher}", *shared, "nbs=8", "close_mosaic=2", "lr0=0.002", "optimizer=AdamW"]
    place = [f"project={runs}", "exist_ok=True"]
    return [
        Target("prepare", ["data", "prepare", "dota", f"source={work / 'data' / 'dota'}", f"out={out}", "crop_size=128",
                           "gap=32", "rates=[0.5,1.0]"], [out], [out, out / ".prepare-part"], lambda: files_of(out)),
        Target("amplify", ["amplify", *pair, "amplifier_epochs=4"], [amplifiers], [amplifiers],
               lambda: amplifier_hash(amplifiers)),
        Target("train", ["train", *pair, f"epochs={EPOCHS}", f"student={model}", *place, "name=run", "plots=True",
                         "amplifier_epochs=4"], [folder], [folder / "weights", folder],
               lambda: [weights_of(folder / "weights" / f"{name}.pt") for name in ("last", "best")], resumes=True),
        Target("val", ["val", f"model={model}", *shared, *place, "name=val"], [runs / "val"], [runs / "val"],
               lambda: (runs / "val" / "val.csv").read_text(encoding="utf-8")),
        Target("export", ["export", f"model={exported / 'student.pt'}", "format=onnx", *shared[:2]], [exported],
               [exported], lambda: exported_is_right(work), initial_file=model),
        Target("compare", ["compare", *pair, "epochs=2", f"student={model}", f"project={runs}", "name=compare",
                           "arms=plain,ds2d2", "seeds=0", "plots=False", "amplifier_epochs=4"],
               [runs / "compare"], [runs / "compare"], lambda: compared_runs(runs / "compare" / "results.csv")),
    ]  # fmt: skip
