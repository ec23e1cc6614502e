"""The demonstration, step by step; each finished step is kept, so the same command goes on after a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.data.dataset import data_hash, obb_data
from ds2d2_yolo.bridge.data.images import list_images
from ds2d2_yolo.bridge.inference import plain_model as ultra
from ds2d2_yolo.bridge.upstream.compat import check_ultralytics
from ds2d2_yolo.bridge.upstream.devices import check_device, cpu_threads
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.demo import parity, picture
from ds2d2_yolo.demo.plan import PLANS, DemoPlan, DemoSettings, fingerprint
from ds2d2_yolo.demo.state import DemoState
from ds2d2_yolo.demo.table import LABELS, table
from ds2d2_yolo.demo.training import Trainings
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.atomic_files import write_whole

STEPS = 8
EXPORT_NEEDS = ("onnx", "onnxslim", "onnxruntime")
PICTURE_IMAGES = 4
PICTURE_CANDIDATES = 64
PARITY_IMAGES = 8


def run_demo(**keys: Any) -> dict[str, Any]:
    """Run the demonstration of the command line.

    Args:
        **keys (Any): See `DemoSettings`.

    Returns:
        (dict[str, Any]): What demo.json holds.

    Raises:
        BadUseError: If a setting is wrong, something is not installed, or the folder holds something else.
        DS2D2Error: If the ONNX student does not answer as the PyTorch one does.

    Examples:
        >>> run_demo(size="small", seed=1, name="seed1")  # doctest: +SKIP
    """
    settings = DemoSettings.of(keys, "demo")
    with cpu_threads():
        return Demo(PLANS[settings.size], settings).run()


class Demo:
    """One demonstration.

    Args:
        plan (DemoPlan): What is trained.
        settings (DemoSettings): What the person set.

    Raises:
        BadUseError: If something that a later step needs is not installed, or there is no such device.
    """

    def __init__(self, plan: DemoPlan, settings: DemoSettings) -> None:
        check_ultralytics()
        missing = [m for m in EXPORT_NEEDS if find_spec(m) is None]
        if missing:
            raise BadUseError(f"the demo needs {', '.join(missing)} for its export: pip install 'ds2d2-yolo[export]'")
        self.plan, self.settings = plan, settings
        self.device = check_device(settings.device)
        self.folder = settings.folder
        self.data = resolve_data(settings.data or plan.data)
        self.state: DemoState
        self.trainings: Trainings
        self.names: dict[int, str] = {}
        self.images: list[Path] = []

    def run(self) -> dict[str, Any]:
        """Run all steps and return what demo.json holds."""
        began = time.time()
        self._announce()
        self._step(1, f"data: {self.data}", self.prepare)
        self._step(
            2, f"teacher: {self.plan.teacher}, {self.plan.teacher_epochs} epochs", lambda: self.trainings.teacher()
        )
        students = f"{self.plan.student}, {self.plan.student_epochs} epochs"
        self._step(3, f"amplifier, then the distilled student: {students}", lambda: self.trainings.distilled())
        self._step(4, f"plain student, same seed and schedule: {students}", lambda: self.trainings.plain())
        measured = self._step(5, "validation of the three, the same call for each", self.validation)
        onnx = self._step(6, "ONNX export of the distilled student, compared with PyTorch", self.onnx)
        self._step(7, "picture of what the three find", self.picture)
        found: dict[str, Any] = self._step(8, "table", lambda: self.table(measured, onnx))
        print(f"\nDone in {_minutes(time.time() - began)}. In {self.folder}:", flush=True)
        for name, what in self._left():
            print(f"  {name:28} {what}")
        return found

    def _announce(self) -> None:
        """Say what will happen, how long it takes and how to go on after a stop."""
        plan = self.plan
        print(
            f"ds2d2-yolo demo, size {self.settings.size}: {plan.duration}; this one runs on {self.device}.\n"
            f"A teacher ({Path(plan.teacher).stem}) is trained from scratch, then its amplifier, then the same student "
            f"({Path(plan.student).stem}) twice:\ndistilled and plain, same seed ({self.settings.seed}) and schedule. "
            "Both are measured against the teacher, the distilled one is exported\nto ONNX and checked, and a picture "
            f"shows what each finds. Stopped? The same command goes on where it was.\nFolder: {self.folder}",
            flush=True,
        )
        if self.settings.size == "full" and self.device.type == "cpu":
            print("Note: size=full is meant for a GPU; on this device it takes days.", flush=True)

    def _step(self, number: int, title: str, work: Callable[[], Any]) -> Any:
        """Run a step under its heading and say how long it took."""
        print(f"\n[{number}/{STEPS}] {title}", flush=True)
        began = time.time()
        result = work()
        print(f"[{number}/{STEPS}] done in {_minutes(time.time() - began)}", flush=True)
        return result

    # The steps ---------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Get the data set, drawn on first use, and find out which steps are done already."""
        data = obb_data(self.data)
        if data.get("channels", 3) != 3:
            raise BadUseError(f"data={self.data} has {data['channels']} channels: the demo takes 3, train takes any")
        self.names = {int(k): str(v) for k, v in data["names"].items()}
        training, self.images = list_images(data["train"]), list_images(data["val"])
        if not self.images:
            raise BadUseError(f"no validation images in {data['val']}: check 'path' and 'val' of {self.data}")
        fraction = min(1.0, (self.plan.images or len(training)) / len(training))
        print(
            f"{round(len(training) * fraction)} of {len(training)} training and {len(self.images)} validation "
            f"images; classes: {', '.join(self.names.values())}"
        )
        identity = data_hash(data)[:16] + data_hash({**data, "train": data["val"]})[:16]
        self.state = DemoState(self.folder, fingerprint(self.plan, self.settings, identity))
        self.trainings = Trainings(self.plan, self.settings, self.state, self.data, fraction)

    def validation(self) -> dict[str, ultra.Measured]:
        """Measure the three checkpoints on the validation split."""
        if self.state.done("validation"):
            print("measured already")
            return {k: ultra.Measured(**v) for k, v in self.state.steps["validation"].items()}
        self.state.start("validation")
        found = {}
        for which in self.trainings.models:
            found[which] = ultra.measure(
                self.trainings.weights(which),
                data=self.data,
                imgsz=self.plan.imgsz,
                batch=self.trainings.batch,
                conf=self.plan.common.get("conf"),
                device=self.settings.device,
                workers=self.plan.workers,
            )
            print(f"{which}: mAP50 {found[which].map50:.3f}, mAP50-95 {found[which].map50_95:.3f}", flush=True)
        self.state.finish("validation", {k: asdict(v) for k, v in found.items()})
        return found

    def onnx(self) -> dict[str, Any]:
        """Export the distilled student and compare its raw outputs with PyTorch's.

        Raises:
            DS2D2Error: If they differ by more than the tolerance.
        """
        weights = self.trainings.weights("distilled")
        file = weights.with_suffix(".onnx")
        if self.state.done("onnx", [file]):
            print("exported and compared already")
            return dict(self.state.steps["onnx"])
        self.state.start("onnx")
        exported = ultra.export_onnx(weights, self.plan.imgsz)
        inputs = [ultra.network_input(x, self.plan.imgsz) for x in picture.choose(self.images, PARITY_IMAGES)]
        answer = parity.compare(ultra.torch_output(weights, inputs), parity.onnx_output(exported, inputs))
        print(f"ONNX against PyTorch, {answer}")
        if not answer.holds:
            raise DS2D2Error(f"{exported} does not answer as PyTorch does: {answer}")
        found = {**asdict(answer), "file_mb": exported.stat().st_size / 1e6}
        self.state.finish("onnx", found)
        return found

    def picture(self) -> None:
        """Draw ground truth and predictions side by side."""
        path = self.folder / "demo.jpg"
        if self.state.done("picture", [path]):
            print("drawn already")
            return
        self.state.start("picture")
        candidates = picture.choose(self.images, PICTURE_CANDIDATES)
        images = picture.choose_varied(candidates, ultra.ground_truth(candidates), PICTURE_IMAGES)
        columns = {"ground truth": ultra.ground_truth(images)}
        for which, model in self.trainings.models.items():
            columns[f"{which}: {Path(model).stem}"] = ultra.predict(
                self.trainings.weights(which), images, self.plan.imgsz, self.plan.confidence, self.settings.device
            )
        picture.draw(images, columns, self.names, path, f"predictions: confidence {self.plan.confidence} and more")
        self.state.finish("picture")

    def table(self, measured: dict[str, ultra.Measured], onnx: dict[str, Any]) -> dict[str, Any]:
        """Print the table and write demo.md and demo.json."""
        rows = table(measured, self.trainings.models)
        exported = (
            f"ONNX of the distilled student ({onnx['file_mb']:.1f} MB) against PyTorch: "
            f"{parity.Parity(**{k: v for k, v in onnx.items() if k != 'file_mb'})}."
        )
        said = (
            f"mAP on {len(self.images)} validation images at {self.plan.imgsz} px, GFLOPs at the same size, "
            f"seed {self.settings.seed}."
        )
        print(f"\n{rows}\n\n{said}\n{self.plan.verdict}", flush=True)
        write_whole(
            self.folder / "demo.md",
            f"# ds2d2-yolo demo, size {self.settings.size}\n\n{rows}\n\n{said} {self.plan.verdict}\n\n{exported}\n\n"
            f"Boxes of confidence {self.plan.confidence} and more on validation images:\n\n![predictions](demo.jpg)\n",
        )
        found = {
            "fingerprint": self.state.fingerprint,
            "models": {k: {"architecture": self.trainings.models[k], **asdict(m)} for k, m in measured.items()},
            "onnx": onnx,
            "verdict": self.plan.verdict,
        }
        write_whole(self.folder / "demo.json", json.dumps(found, indent=2))
        return found

    def _left(self) -> list[tuple[str, str]]:
        """List what the demonstration leaves, with a word on each."""
        onnx = self.trainings.weights("distilled").with_suffix(".onnx").relative_to(self.folder)
        return [
            ("demo.md, demo.json", "the table"),
            ("demo.jpg", "predictions side by side"),
            *((str(self.trainings.weights(k).relative_to(self.folder)), f"the {LABELS[k]}") for k in LABELS),
            (str(onnx), "the distilled student for ONNX Runtime"),
        ]


def _minutes(seconds: float) -> str:
    """Return a duration in words."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
