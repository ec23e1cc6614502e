"""The three trainings of a demonstration: each is started, resumed after an interruption, or skipped when finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ds2d2_yolo.bridge.api import distill
from ds2d2_yolo.bridge.data.security import safe_loading_supported
from ds2d2_yolo.bridge.training import plain_run
from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import finalize_checkpoints
from ds2d2_yolo.bridge.upstream.batch_callbacks import Callbacks, batch_callbacks
from ds2d2_yolo.config.resources import resolve_model
from ds2d2_yolo.demo.plan import DemoPlan, DemoSettings
from ds2d2_yolo.demo.shipped_teacher import copy_shipped_teacher
from ds2d2_yolo.demo.state import DemoState
from ds2d2_yolo.utils.progress import Task


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
        safe (bool): Whether the teacher is loaded by the loader that runs no code from it: a file that was not trained
            here, where torch can do so.
    """

    def __init__(self, plan: DemoPlan, settings: DemoSettings, state: DemoState, data: str, fraction: float) -> None:
        self.plan, self.state, self.device = plan, state, settings.device
        student = resolve_model(plan.student)
        self.models = {"teacher": resolve_model(plan.teacher), "plain": student, "distilled": student}
        self.safe = plan.shipped and safe_loading_supported()
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

    def teacher(self, task: Task) -> None:
        """Copy the shipped teacher, or train one from its YAML.

        Args:
            task (Task): Takes the progress, in batches.
        """
        if not self.plan.shipped:
            self._plain("teacher", self.plan.teacher_epochs, task)
        elif self.state.done("teacher", [self.weights("teacher")]):
            task.note(f"copied already: {self.weights('teacher')}")
        else:
            self.state.start("teacher")
            copy_shipped_teacher(self.weights("teacher"))
            self.state.finish("teacher")

    def plain(self, task: Task) -> None:
        """Train the student without a teacher.

        Args:
            task (Task): Takes the progress, in batches.
        """
        self._plain("plain", self.plan.student_epochs, task)

    def distilled(self, task: Task) -> None:
        """Distil the teacher into the student, after training the amplifier where the recipe has one.

        Args:
            task (Task): Takes the progress of the student, in batches.
        """
        ds2d2_keys = {"amplifier_epochs": self.plan.amplifier_epochs, "safe": self.safe, "recipe": self.plan.recipe}
        keys = {**self._shared, **ds2d2_keys, "name": "distilled", "epochs": self.plan.student_epochs}
        callbacks = _batches(task)
        self._train(
            "distilled",
            self.plan.student_epochs,
            lambda: distill(self.weights("teacher"), self.models["distilled"], callbacks=callbacks, **keys),
            lambda last: distill(resume=str(last), device=self.device, safe=self.safe, callbacks=callbacks),
            task,
        )

    def _plain(self, which: str, epochs: int, task: Task) -> None:
        """Train a model with plain Ultralytics."""
        keys = {**self._shared, "name": which, "epochs": epochs}
        callbacks = _batches(task)
        self._train(
            which,
            epochs,
            lambda: plain_run.train_plain(self.models[which], keys, callbacks),
            lambda last: plain_run.resume_plain(last, self.device, callbacks),
            task,
        )

    def _train(
        self, step: str, epochs: int, start: Callable[[], object], resume: Callable[[Path], object], task: Task
    ) -> None:
        """Start a training, resume an interrupted one, or skip a finished one."""
        best, last = self.weights(step), self.weights(step).with_name("last.pt")
        if self.state.done(step, [best]):
            task.note(f"trained already: {best}")
            return
        epochs_done = plain_run.trained_epochs(last) if self.state.started(step) else None
        if epochs_done is None:
            if self.state.started(step) and last.is_file():
                problem = f"{last} was being written when the demo stopped and cannot be read"
                task.note(f"{problem}: this training starts again")
            # weights of an earlier attempt must not be mistaken for those of this training
            last.unlink(missing_ok=True)
            best.unlink(missing_ok=True)
            self.state.start(step)
            start()
        elif 0 <= epochs_done < epochs:
            task.note(f"going on after epoch {epochs_done} of {epochs}")
            resume(last)
        elif epochs_done >= epochs:
            finalize_checkpoints(last.parent)
        self.state.finish(step)


def _batches(task: Task) -> Callbacks:
    """Return callbacks that hand the batches of a training to a task."""

    def set_total(batches: int) -> None:
        task.total = batches

    return batch_callbacks(set_total, task.advance)
