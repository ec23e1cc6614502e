"""The three trainings of a demonstration: each is run, taken up where it was cut off, or left alone when finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.api import distill
from ds2d2_yolo.bridge.training import plain_run as ultra
from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import finalize_checkpoints
from ds2d2_yolo.demo.plan import DemoPlan, DemoSettings
from ds2d2_yolo.demo.state import DemoState


class Trainings:
    """The trainings of teacher, distilled and plain student.

    Args:
        plan (DemoPlan): What is trained.
        settings (DemoSettings): What the person set.
        state (DemoState): Which steps are done; it names the folder.
        data (str): Data-set YAML.
        fraction (float): Share of its training split that is used.

    Attributes:
        models (dict[str, str]): Model YAML of each.
        batch (int): Images per batch.
    """

    def __init__(self, plan: DemoPlan, settings: DemoSettings, state: DemoState, data: str, fraction: float) -> None:
        self.plan, self.state, self.device = plan, state, settings.device
        self.models = {"teacher": plan.teacher, "plain": plan.student, "distilled": plan.student}
        self.batch = settings.batch or plan.batch
        # all but the name and the epochs is the same for the three
        self._shared: dict[str, Any] = {
            **plan.common,
            "data": data,
            "imgsz": plan.imgsz,
            "batch": self.batch,
            "fraction": fraction,
            "seed": settings.seed,
            "device": settings.device,
            "workers": plan.workers,
            "project": str(state.folder),
            "exist_ok": True,
        }

    def weights(self, which: str) -> Path:
        """Return the best checkpoint of a training."""
        return self.state.folder / which / "weights" / "best.pt"

    def teacher(self) -> None:
        """Train the teacher from its YAML."""
        self._plain("teacher", self.plan.teacher_epochs)

    def plain(self) -> None:
        """Train the student without a teacher."""
        self._plain("plain", self.plan.student_epochs)

    def distilled(self) -> None:
        """Distil the teacher into the student; this trains the amplifier first."""
        keys = {**self._shared, "name": "distilled", "epochs": self.plan.student_epochs}
        self._train(
            "distilled",
            self.plan.student_epochs,
            lambda: distill(
                self.weights("teacher"), self.plan.student, amplifier_epochs=self.plan.amplifier_epochs, **keys
            ),
            lambda last: distill(resume=str(last), device=self.device),
        )

    def _plain(self, which: str, epochs: int) -> None:
        """Train a model with Ultralytics alone."""
        keys = {**self._shared, "name": which, "epochs": epochs}
        self._train(
            which,
            epochs,
            lambda: ultra.train_plain(self.models[which], keys),
            lambda last: ultra.resume_plain(last, self.device),
        )

    def _train(self, step: str, epochs: int, anew: Callable[[], object], again: Callable[[Path], object]) -> None:
        """Train, go on with a training that was cut off, or do nothing where it is finished."""
        best, last = self.weights(step), self.weights(step).with_name("last.pt")
        if self.state.done(step, [best]):
            print(f"trained already: {best}")
            return
        behind = ultra.trained_epochs(last) if self.state.started(step) else None
        if behind is None:
            if self.state.started(step) and last.is_file():
                print(f"{last} was being written when the demo stopped and cannot be read: this training starts again")
            # weights of an earlier attempt must not be taken for this one's
            last.unlink(missing_ok=True)
            best.unlink(missing_ok=True)
            self.state.start(step)
            anew()
        elif 0 <= behind < epochs:
            print(f"going on after epoch {behind} of {epochs}", flush=True)
            again(last)
        elif behind >= epochs:
            finalize_checkpoints(last.parent)
        self.state.finish(step)
