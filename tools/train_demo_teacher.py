"""Train the teacher that ships with the package, cfg/models/aerial-scenes-teacher.pt, on drawn scenes of its own.

It is cfg/models/yolov8-micro-obb.yaml, trained with plain Ultralytics on aerial-scenes-teacher.yaml, which shares no
scene with the data of the demo. The checkpoint is stored in half precision, without optimizer and without any path.

    python tools/train_demo_teacher.py runs/demo-teacher           # train, then write the checkpoint
    python tools/train_demo_teacher.py runs/demo-teacher --bf16    # faster on processors that compute in bfloat16
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import torch
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.nn.tasks import OBBModel

from ds2d2_yolo.config.resources import resolve_data, resolve_model

OUT = Path(__file__).resolve().parents[1] / "cfg" / "models" / "aerial-scenes-teacher.pt"
LICENCE = "AGPL-3.0-or-later; trained by the authors of ds2d2-yolo on drawn scenes only"
SCHEDULE: dict[str, Any] = {
    "model": "yolov8-micro-obb.yaml",
    "data": "aerial-scenes-teacher.yaml",
    "imgsz": 320,
    "epochs": 12,
    "batch": 8,
    "nbs": 8,
    "optimizer": "AdamW",
    "lr0": 0.002,
    "warmup_epochs": 1.0,
    "mosaic": 0.0,
    "scale": 0.3,
    "flipud": 0.5,
    "seed": 0,
}


class Bfloat16Model(OBBModel):
    """An OBB model with its forward pass in bfloat16 while it trains; the loss is computed in float32."""

    def loss(self, batch: Any, preds: Any = None) -> Any:
        """Return the loss of a batch."""
        if preds is None:
            with torch.autocast("cpu", torch.bfloat16):
                preds = self.forward(batch["img"])
        return super().loss(batch, _in_float32(preds))


class Bfloat16Trainer(OBBTrainer):
    """Ultralytics' trainer with a `Bfloat16Model`."""

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """Return the model in the memory layout that is fastest on processors."""
        model: Any = super().get_model(cfg, weights, verbose)
        model.__class__ = Bfloat16Model
        return model.to(memory_format=torch.channels_last)


def _in_float32(preds: Any) -> Any:
    """Return predictions with every tensor in float32."""
    if isinstance(preds, torch.Tensor):
        return preds.float()
    if isinstance(preds, dict):
        return {key: _in_float32(value) for key, value in preds.items()}
    return type(preds)(_in_float32(value) for value in preds)


def write_checkpoint(trained: Path, out: Path) -> None:
    """Write a trained checkpoint without optimizer, in half precision and in the default memory layout.

    What Ultralytics stores beside the weights, such as the arguments of the training, holds paths of the machine.

    Args:
        trained (Path): Checkpoint of a finished training.
        out (Path): File to write.
    """
    saved = torch.load(trained, map_location="cpu", weights_only=False)
    model: Any = (saved.get("ema") or saved["model"]).float()
    model.__class__ = OBBModel
    model = model.to(memory_format=torch.contiguous_format).half()
    model.args = dict(SCHEDULE)
    model.yaml.pop("yaml_file", None)
    for parameter in model.parameters():
        parameter.requires_grad = False
    content = {
        "epoch": -1,
        "model": model,
        "ema": None,
        "optimizer": None,
        "train_args": {**SCHEDULE, "task": "obb"},
        "version": saved["version"],
        "license": LICENCE,
    }
    out.parent.mkdir(exist_ok=True)
    torch.save(content, out)


def main() -> None:
    """Train and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the training")
    parser.add_argument("--bf16", action="store_true", help="compute the forward pass in bfloat16")
    a = parser.parse_args()
    folder = a.folder.resolve()
    last = folder / "weights" / "last.pt"
    schedule = {**SCHEDULE, "model": resolve_model(SCHEDULE["model"]), "data": resolve_data(SCHEDULE["data"])}
    keys = {"device": "cpu", "workers": 0, "val": False, "plots": False, "exist_ok": True}
    place = {"project": str(folder.parent), "name": folder.name}
    trainer = (Bfloat16Trainer if a.bf16 else OBBTrainer)(overrides={**schedule, **keys, **place})
    trainer.train()
    write_checkpoint(last, OUT)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.2f} MB, SHA-256 {hashlib.sha256(OUT.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
