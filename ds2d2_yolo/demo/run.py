"""The steps of the demonstration. Finished steps are stored, so that the same command continues after a kill."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.data.dataset import data_hash, obb_data
from ds2d2_yolo.bridge.data.drawn_scenes import draw_packaged_scenes
from ds2d2_yolo.bridge.data.images import list_images
from ds2d2_yolo.bridge.inference.explain import explain
from ds2d2_yolo.bridge.upstream.compat import check_ultralytics
from ds2d2_yolo.bridge.upstream.devices import check_device, cpu_threads
from ds2d2_yolo.bridge.upstream.logging import logged_to, quiet
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.demo.exported import describe_export, export_student
from ds2d2_yolo.demo.picture import detect, draw, ground_truth
from ds2d2_yolo.demo.plan import PLANS, DemoPlan, DemoSettings, fingerprint
from ds2d2_yolo.demo.scores import LABELS, ModelScores, measure, scores_table
from ds2d2_yolo.demo.state import DemoState
from ds2d2_yolo.demo.training import Trainings
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.atomic_files import write_atomically
from ds2d2_yolo.utils.progress import Task, duration, tracked
from ds2d2_yolo.utils.sampling import choose_varied, evenly_spaced

LOG_FILE = "demo.log"
EXPORT_NEEDS = ("onnx", "onnxslim", "onnxruntime")
PICTURE_IMAGES = 4
PICTURE_CANDIDATES = 64
EXPLAINED_IMAGES = 2


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

    What Ultralytics logs goes to a file of the folder, demo.log; the screen shows the steps and the table.

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
        self.plan = plan if settings.data is None else plan.on_other_data()
        self.settings = settings
        self.device = check_device(settings.device)
        self.folder = settings.folder
        self.data = resolve_data(settings.data or plan.data)
        self.screen = sys.stdout
        self.state: DemoState
        self.trainings: Trainings
        self.names: dict[int, str] = {}
        self.images: list[Path] = []
        self.scores: dict[str, ModelScores] = {}
        self.exported: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """Run all steps.

        Returns:
            (dict[str, Any]): Content of demo.json.
        """
        start = time.time()
        self._announce()
        steps = self._steps()
        for number, (title, work) in enumerate(steps, 1):
            self._step(f"[{number}/{len(steps)}] {title}", work)
        print(f"\n{self._table()}\n\nDone in {duration(time.time() - start)}. In {self.folder}:", flush=True)
        for name, description in self._files():
            print(f"  {name:28} {description}")
        report: dict[str, Any] = json.loads((self.folder / "demo.json").read_text(encoding="utf-8"))
        return report

    def _step(self, title: str, work: Callable[[Task], None]) -> None:
        """Run a step with its progress on the screen and all messages in the log."""
        log = self.folder / LOG_FILE
        has_folder = hasattr(self, "state")  # the first step makes it
        try:
            with tracked(title, stream=self.screen) as task, logged_to(log) if has_folder else nullcontext():
                work(task)
        except Exception:
            if has_folder:
                print(f"This step failed; its messages are in {log}", file=self.screen, flush=True)
            raise

    def _announce(self) -> None:
        """Print the duration, the files and how to continue after a stop."""
        plan = self.plan
        print(
            f"ds2d2-yolo demo, size {self.settings.size}: {plan.duration}; this one runs on {self.device}.\n"
            "Stopped? The same command goes on where it was.\n"
            f"Folder: {self.folder}, Ultralytics' messages: {LOG_FILE} in it.\n",
            flush=True,
        )
        if self.settings.size == "full" and self.device.type == "cpu":
            print("Note: size=full is meant for a GPU; on this device it takes days.", flush=True)

    # The steps ---------------------------------------------------------------------------------------------------

    def _steps(self) -> list[tuple[str, Callable[[Task], None]]]:
        """Return the steps in their order: title and work."""
        plan = self.plan
        teacher, student = Path(plan.teacher).stem, f"{Path(plan.student).stem}, {plan.student_epochs} epochs"
        origin = "ships trained" if plan.shipped else f"{plan.teacher_epochs} epochs"
        return [
            (f"data: {Path(self.data).name}", self.prepare),
            (f"teacher: {teacher}, {origin}", lambda task: self.trainings.teacher(task)),
            (f"distilled student: {student}", lambda task: self.trainings.distilled(task)),
            ("plain student, same seed and schedule", lambda task: self.trainings.plain(task)),
            ("validation of the three", self.validation),
            ("ONNX of the distilled student, compared with PyTorch", self.onnx),
            ("pictures: detections, and what is distilled", self.pictures),
            ("report", self.report),
        ]

    def prepare(self, task: Task) -> None:
        """Load the data set, which is drawn on first use, and the finished steps of an earlier command.

        Args:
            task (Task): Takes the progress of the drawing, in images.
        """

        def drawn(count: int, total: int) -> None:
            task.total = total
            task.reach(count)

        draw_packaged_scenes(self.data, drawn)
        with quiet():
            data = obb_data(self.data)
        if data.get("channels", 3) != 3:
            raise BadUseError(f"data={self.data} has {data['channels']} channels: the demo takes 3, train takes any")
        self.names = {int(k): str(v) for k, v in data["names"].items()}
        training, self.images = list_images(data["train"]), list_images(data["val"])
        if not self.images:
            raise BadUseError(f"no validation images in {data['val']}: check 'path' and 'val' of {self.data}")
        fraction = min(1.0, (self.plan.images or len(training)) / len(training))
        task.note(
            f"      {round(len(training) * fraction)} of {len(training)} training and {len(self.images)} validation "
            f"images; classes: {', '.join(self.names.values())}"
        )
        identity = data_hash(data)[:16] + data_hash({**data, "train": data["val"]})[:16]
        self.state = DemoState(self.folder, fingerprint(self.plan, self.settings, identity))
        self.trainings = Trainings(self.plan, self.settings, self.state, self.data, fraction)

    def validation(self, task: Task) -> None:
        """Measure the three checkpoints on the validation split.

        Args:
            task (Task): Takes the progress, in models.
        """
        if self.state.done("validation"):
            task.note("measured already")
            self.scores = {k: ModelScores(**v) for k, v in self.state.steps["validation"].items()}
            return
        self.state.start("validation")
        task.total = len(self.trainings.models)
        for which in self.trainings.models:
            self.scores[which] = measure(
                self.trainings.weights(which),
                self.data,
                self.plan.imgsz,
                batch=self.trainings.batch,
                conf=self.plan.common.get("conf"),
                device=self.settings.device,
                workers=self.plan.workers,
            )
            task.advance()
        self.state.finish("validation", {k: asdict(v) for k, v in self.scores.items()})

    def onnx(self, task: Task) -> None:
        """Export the distilled student, see `export_student`.

        Args:
            task (Task): Takes notes.

        Raises:
            DS2D2Error: If the export or its check fails.
        """
        weights = self.trainings.weights("distilled")
        # a folder of an older version has other numbers
        if self.state.done("onnx", [weights.with_suffix(".onnx")]) and "matched" in self.state.steps["onnx"]:
            task.note("exported and compared already")
        else:
            self.state.start("onnx")
            exported = export_student(weights, self.plan, self.data, self.images, self.settings.device)
            if exported["confidence"] is None:
                task.note("the student detects nothing yet, its ONNX file is not compared with PyTorch")
            self.state.finish("onnx", exported)
        self.exported = dict(self.state.steps["onnx"])

    def pictures(self, task: Task) -> None:
        """Draw ground truth and detections side by side, and the sheets of `explain`.

        Args:
            task (Task): Takes the progress, in models and the sheets.
        """
        path, sheets = self.folder / "demo.jpg", self.folder / "explain"
        if self.state.done("picture", [path, sheets / "index.html"]):
            task.note("drawn already")
            return
        self.state.start("picture")
        candidates = evenly_spaced(self.images, PICTURE_CANDIDATES)
        images = choose_varied(candidates, [b.classes for b in ground_truth(candidates)], PICTURE_IMAGES)
        columns = {"ground truth": ground_truth(images)}
        task.total = len(self.trainings.models) + 1  # the sheets
        for which, model in self.trainings.models.items():
            columns[f"{which}: {Path(model).stem}"] = detect(
                self.trainings.weights(which), images, self.plan.imgsz, self.plan.confidence, self.settings.device
            )
            task.advance()
        draw(images, columns, self.names, path, f"predictions: confidence {self.plan.confidence} and more")
        explain(
            self.trainings.weights("teacher"),
            self.trainings.weights("distilled"),
            self.data,
            images=EXPLAINED_IMAGES,
            imgsz=self.plan.imgsz,
            conf=self.plan.confidence,
            device=self.settings.device,
            save_dir=str(sheets),
            exist_ok=True,
            safe=self.trainings.safe,
        )
        task.advance()
        self.state.finish("picture")

    def report(self, _: Task) -> None:
        """Write demo.md and demo.json."""
        write_atomically(
            self.folder / "demo.md",
            f"# ds2d2-yolo demo, size {self.settings.size}\n\n{self._table()}\n\n"
            f"{describe_export(self.exported)}\n\nBoxes of confidence {self.plan.confidence} and more on validation "
            "images:\n\n![predictions](demo.jpg)\n",
        )
        models = {k: {"architecture": Path(self.trainings.models[k]).name, **asdict(s)} for k, s in self.scores.items()}
        content = {
            "fingerprint": self.state.fingerprint,
            "models": models,
            "onnx": self.exported,
            "verdict": self.plan.verdict,
        }
        write_atomically(self.folder / "demo.json", json.dumps(content, indent=2))

    def _table(self) -> str:
        """Return the table of the three models, its conditions and what can be concluded from it."""
        conditions = (
            f"mAP on {len(self.images)} validation images at {self.plan.imgsz} px, GFLOPs at the same size, "
            f"seed {self.settings.seed}."
        )
        return f"{scores_table(self.scores, self.trainings.models)}\n\n{conditions}\n{self.plan.verdict}"

    def _files(self) -> list[tuple[str, str]]:
        """Return the files of the demonstration with their descriptions."""
        onnx = self.trainings.weights("distilled").with_suffix(".onnx").relative_to(self.folder)
        return [
            ("demo.md, demo.json", "the table"),
            ("demo.jpg", "predictions side by side"),
            ("explain/index.html", "what is distilled, in pictures"),
            (LOG_FILE, "messages of Ultralytics"),
            *((str(self.trainings.weights(k).relative_to(self.folder)), f"the {LABELS[k]}") for k in LABELS),
            (str(onnx), "the distilled student for ONNX Runtime"),
        ]
