"""The child process that `prepare_process` starts: `python -m ....prepare_worker REQUEST RESPONSE`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from ds2d2_yolo.errors import DS2D2Error


def _answer(asked: Path, answer: Path) -> None:
    """Do the work in the process that `open_alone` started."""
    from ds2d2_yolo.bridge.training.trainer import DS2D2OBBTrainer, DS2D2Trainer
    from ds2d2_yolo.bridge.upstream.devices import cpu_threads

    said = json.loads(asked.read_text(encoding="utf-8"))
    kind = DS2D2OBBTrainer if said["task"] == "obb" else DS2D2Trainer
    quiet = type(kind.__name__, (kind,), {"run_callbacks": lambda *_: None})  # experiment trackers open no run
    with tempfile.TemporaryDirectory() as folder, cpu_threads():
        trainer: DS2D2Trainer = quiet(overrides={**said["keys"], "save_dir": folder, "exist_ok": True})
        files, amplifier = trainer.open()
        answer.write_text(json.dumps({"files": files, "amplifier": amplifier}), encoding="utf-8")


if __name__ == "__main__":
    try:
        _answer(Path(sys.argv[1]), Path(sys.argv[2]))
    except DS2D2Error as e:
        sys.exit(f"ds2d2-yolo: {e}")
