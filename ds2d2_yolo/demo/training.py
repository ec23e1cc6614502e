"""The three trainings of a demonstration: each is started, resumed after an interruption, or skipped when finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.api import distill
from ds2d2_yolo.bridge.training import plain_run
from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import finalize_checkpoints
from ds2d2_yolo.demo.plan import DemoPlan, DemoSettings
from ds2d2_yolo.demo.state import DemoState


class Trainings:
    """The trainings of teacher, distilled and plain student.

    Args:
        plan (DemoPlan): Models and schedule.
        settings (DemoSettings): Settings of the command.
        state (DemoState): Finished steps and the folder.
        data (str): Data-set YAML.
        fraction (float): Share of the training split that is used.

    Attributes:
        models (dict[str, str]): Model YAML of each training.
        batch (int): Images per batch.
    """

    def __init__(self, plan: DemoPlan, settings: DemoSettings, state: DemoState, data: str, fraction: float) -> None:
        self.plan, self.state, self.device = plan, state, settings.device
        self.models = {"teacher": plan.teacher, "plain": plan.student, "distilled": plan.student}
        self.batch = settings.batch or plan.batch
        # everything except name and epochs is the same for all three
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
        """Distil the teacher into the student, after training the amplifier."""
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
        """Train a model with plain Ultralytics."""
        keys = {**self._shared, "name": which, "epochs": epochs}
        self._train(
            which,
            epochs,
            lambda: plain_run.train_plain(self.models[which], keys),
            lambda last: plain_run.resume_plain(last, self.device),
        )

    def _train(self, step: str, epochs: int, start: Callable[[], object], resume: Callable[[Path], object]) -> None:
        """Start a training, resume an interrupted one, or skip a finished one."""
        best, last = self.weights(step), self.weights(step).with_name("last.pt")
        if self.state.done(step, [best]):
            print(f"trained already: {best}")
            return
        epochs_done = plain_run.trained_epochs(last) if self.state.started(step) else None
        if epochs_done is None:
            if self.state.started(step) and last.is_file():
                print(f"{last} was being written when the demo stopped and cannot be read: this training starts again")
            # weights of an earlier attempt must not be mistaken for those of this training
            last.unlink(missing_ok=True)
            best.unlink(missing_ok=True)
            self.state.start(step)
            start()
        elif 0 <= epochs_done < epochs:
            print(f"going on after epoch {epochs_done} of {epochs}", flush=True)
            resume(last)
        elif epochs_done >= epochs:
            finalize_checkpoints(last.parent)
        self.state.finish(step)
