"""The steps of the demonstration. Finished steps are stored, so that the same command continues after a kill."""

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
from ds2d2_yolo.bridge.upstream.compat import check_ultralytics
from ds2d2_yolo.bridge.upstream.devices import check_device, cpu_threads
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.demo.picture import detect, draw, ground_truth
from ds2d2_yolo.demo.plan import PLANS, DemoPlan, DemoSettings, fingerprint
from ds2d2_yolo.demo.scores import LABELS, ModelScores, measure, scores_table
from ds2d2_yolo.demo.state import DemoState
from ds2d2_yolo.demo.training import Trainings
from ds2d2_yolo.deploy import export
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.utils.atomic_files import write_whole
from ds2d2_yolo.utils.sampling import choose_varied, evenly_spaced

STEPS = 8
EXPORT_NEEDS = ("onnx", "onnxslim", "onnxruntime")
PICTURE_IMAGES = 4
PICTURE_CANDIDATES = 64
CHECK_IMAGES = 8  # on which the exported file is compared with PyTorch
MIN_CONFIDENCE = 0.01  # lowest score that the check of `export` compares


def run_demo(**keys: Any) -> dict[str, Any]:
    """Run the demonstration.

    Args:
        **keys (Any): See `DemoSettings`.

    Returns:
        (dict[str, Any]): Content of demo.json.

    Raises:
        BadUseError: If a setting is wrong, a package is missing, or the folder holds something else.
        DS2D2Error: If the exported student fails its check against PyTorch.

    Examples:
        >>> run_demo(size="small", seed=1, name="seed1")  # doctest: +SKIP
    """
    settings = DemoSettings.of(keys, "demo")
    with cpu_threads():
        return Demo(PLANS[settings.size], settings).run()


class Demo:
    """One demonstration.

    Args:
        plan (DemoPlan): Models and schedule.
        settings (DemoSettings): Settings of the command.

    Raises:
        BadUseError: If a package that a later step needs is missing, or the device does not exist.
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
        """Run all steps.

        Returns:
            (dict[str, Any]): Content of demo.json.
        """
        start = time.time()
        self._announce()
        self._step(1, f"data: {self.data}", self.prepare)
        self._step(
            2, f"teacher: {self.plan.teacher}, {self.plan.teacher_epochs} epochs", lambda: self.trainings.teacher()
        )
        students = f"{self.plan.student}, {self.plan.student_epochs} epochs"
        self._step(3, f"amplifier, then the distilled student: {students}", lambda: self.trainings.distilled())
        self._step(4, f"plain student, same seed and schedule: {students}", lambda: self.trainings.plain())
        scores = self._step(5, "validation of the three, the same call for each", self.validation)
        onnx = self._step(6, "ONNX export of the distilled student, compared with PyTorch", self.onnx)
        self._step(7, "picture of what the three find", self.picture)
        report: dict[str, Any] = self._step(8, "table", lambda: self.table(scores, onnx))
        print(f"\nDone in {_minutes(time.time() - start)}. In {self.folder}:", flush=True)
        for name, description in self._files():
            print(f"  {name:28} {description}")
        return report

    def _announce(self) -> None:
        """Print the steps, their duration and how to continue after a stop."""
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
        """Run a step under its heading and print its duration."""
        print(f"\n[{number}/{STEPS}] {title}", flush=True)
        start = time.time()
        result = work()
        print(f"[{number}/{STEPS}] done in {_minutes(time.time() - start)}", flush=True)
        return result

    # The steps ---------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Load the data set, which is drawn on first use, and the finished steps of an earlier command."""
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

    def validation(self) -> dict[str, ModelScores]:
        """Measure the three checkpoints on the validation split.

        Returns:
            (dict[str, ModelScores]): Scores of 'teacher', 'plain' and 'distilled'.
        """
        if self.state.done("validation"):
            print("measured already")
            return {k: ModelScores(**v) for k, v in self.state.steps["validation"].items()}
        self.state.start("validation")
        scores = {}
        for which in self.trainings.models:
            scores[which] = measure(
                self.trainings.weights(which),
                self.data,
                self.plan.imgsz,
                batch=self.trainings.batch,
                conf=self.plan.common.get("conf"),
                device=self.settings.device,
                workers=self.plan.workers,
            )
            print(f"{which}: mAP50 {scores[which].map50:.3f}, mAP50-95 {scores[which].map50_95:.3f}", flush=True)
        self.state.finish("validation", {k: asdict(v) for k, v in scores.items()})
        return scores

    def onnx(self) -> dict[str, Any]:
        """Export the distilled student with the check of `export` against PyTorch.

        Returns:
            (dict[str, Any]): `file_mb`, and of the check `images`, `confidence`, `matched` and `differences`, the
                largest one of each kind; without detections there is no check, and `images` is 0.

        Raises:
            DS2D2Error: If the export or its check fails.
        """
        weights = self.trainings.weights("distilled")
        # a folder of an older version has other numbers
        if self.state.done("onnx", [weights.with_suffix(".onnx")]) and "matched" in self.state.steps["onnx"]:
            print("exported and compared already")
            return dict(self.state.steps["onnx"])
        self.state.start("onnx")
        confidence = self._check_confidence(weights)
        exported = export(
            model=str(weights),
            format="onnx",
            imgsz=self.plan.imgsz,
            data=self.data,
            check=confidence is not None,
            check_limit=CHECK_IMAGES,
            check_conf=confidence or MIN_CONFIDENCE,
        )
        if confidence is None:
            print("the student detects nothing yet, its ONNX file is not compared with PyTorch")
        else:
            print(exported)
        result: dict[str, Any] = {"file_mb": exported.megabytes, "images": 0, "matched": 0, "differences": {}}
        if (parity := exported.parity) is not None:
            largest = {kind: spread.largest for kind, spread in parity.differences.items()}
            result |= {"images": parity.images, "matched": parity.matched, "differences": largest}
        elif confidence is not None:
            raise DS2D2Error(f"{exported.file} could not be compared with PyTorch: {exported.unchecked}")
        self.state.finish("onnx", {**result, "confidence": confidence})
        return dict(self.state.steps["onnx"])

    def _check_confidence(self, weights: Path) -> float | None:
        """Return the score from which the check compares detections.

        It is that of the picture, or the lowest one that `export` takes if all scores in the check's images are below.
        None if there is no detection at all, as after a short training on a few images of the user.
        """
        images = evenly_spaced(self.images, CHECK_IMAGES)
        detected = detect(weights, images, self.plan.imgsz, MIN_CONFIDENCE, self.settings.device)
        highest = max((float(boxes.scores.max(initial=0)) for boxes in detected), default=0.0)
        return next((c for c in (self.plan.confidence, MIN_CONFIDENCE) if highest >= c), None)

    def picture(self) -> None:
        """Draw ground truth and detections side by side."""
        path = self.folder / "demo.jpg"
        if self.state.done("picture", [path]):
            print("drawn already")
            return
        self.state.start("picture")
        candidates = evenly_spaced(self.images, PICTURE_CANDIDATES)
        images = choose_varied(candidates, [b.classes for b in ground_truth(candidates)], PICTURE_IMAGES)
        columns = {"ground truth": ground_truth(images)}
        for which, model in self.trainings.models.items():
            columns[f"{which}: {Path(model).stem}"] = detect(
                self.trainings.weights(which), images, self.plan.imgsz, self.plan.confidence, self.settings.device
            )
        draw(images, columns, self.names, path, f"predictions: confidence {self.plan.confidence} and more")
        self.state.finish("picture")

    def table(self, scores: dict[str, ModelScores], onnx: dict[str, Any]) -> dict[str, Any]:
        """Print the table and write demo.md and demo.json.

        Args:
            scores (dict[str, ModelScores]): Of `validation`.
            onnx (dict[str, Any]): Of `onnx`.

        Returns:
            (dict[str, Any]): Content of demo.json.
        """
        rows = scores_table(scores, self.trainings.models)
        conditions = (
            f"mAP on {len(self.images)} validation images at {self.plan.imgsz} px, GFLOPs at the same size, "
            f"seed {self.settings.seed}."
        )
        print(f"\n{rows}\n\n{conditions}\n{self.plan.verdict}", flush=True)
        write_whole(
            self.folder / "demo.md",
            f"# ds2d2-yolo demo, size {self.settings.size}\n\n{rows}\n\n{conditions} {self.plan.verdict}\n\n"
            f"{_describe_export(onnx)}\n\nBoxes of confidence {self.plan.confidence} and more on validation images:\n\n"
            "![predictions](demo.jpg)\n",
        )
        report = {
            "fingerprint": self.state.fingerprint,
            "models": {k: {"architecture": self.trainings.models[k], **asdict(s)} for k, s in scores.items()},
            "onnx": onnx,
            "verdict": self.plan.verdict,
        }
        write_whole(self.folder / "demo.json", json.dumps(report, indent=2))
        return report

    def _files(self) -> list[tuple[str, str]]:
        """Return the files of the demonstration with their descriptions."""
        onnx = self.trainings.weights("distilled").with_suffix(".onnx").relative_to(self.folder)
        return [
            ("demo.md, demo.json", "the table"),
            ("demo.jpg", "predictions side by side"),
            *((str(self.trainings.weights(k).relative_to(self.folder)), f"the {LABELS[k]}") for k in LABELS),
            (str(onnx), "the distilled student for ONNX Runtime"),
        ]


def _describe_export(onnx: dict[str, Any]) -> str:
    """Return the result of the export's check in one sentence."""
    head = f"ONNX of the distilled student ({onnx['file_mb']:.1f} MB)"
    if not onnx["images"]:
        return f"{head}: not compared with PyTorch, the student detects nothing yet."
    differences = ", ".join(f"{kind} {largest:.2g}" for kind, largest in onnx["differences"].items())
    return (
        f"{head} against PyTorch: {onnx['matched']} detections of confidence {onnx['confidence']:g} and more on "
        f"{onnx['images']} images matched; largest differences: {differences}."
    )


def _minutes(seconds: float) -> str:
    """Return a duration in words."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
