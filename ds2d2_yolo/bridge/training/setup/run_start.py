"""What happens before the first step of a run: its report, and the amplifier that it needs."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import Any

from torch import nn
from ultralytics.utils import RANK

from ds2d2_yolo.bridge.models.loading import build_student
from ds2d2_yolo.bridge.training.machines.launch import mark_folder
from ds2d2_yolo.bridge.training.machines.store import BEGUN, machine_store, several_machines
from ds2d2_yolo.bridge.training.setup.prepare_process import prepare_in_process
from ds2d2_yolo.bridge.training.setup.run_setup import begin_run, write_files
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.errors import BadUseError


class RunStart:
    """Reports on a run and obtains its amplifier, once for all processes.

    Args:
        trainer (Any): The trainer, whose `state` takes the path of the amplifier.
        launched (bool): Whether Ultralytics launched this process: the process that launched it has begun the run.
    """

    def __init__(self, trainer: Any, launched: bool) -> None:
        self._trainer = trainer
        self._launched = launched

    def begin(self) -> None:
        """Begin the run, or wait until rank 0 has begun it.

        Raises:
            BadUseError: If the run cannot begin; an empty folder of the run is removed.
        """
        if RANK == -1:
            self._begin_without_ranks()
        elif not self._launched:
            self._begin_for_all_ranks()

    def _begin_without_ranks(self) -> None:
        """Begin the run in this process."""
        trainer = self._trainer
        student = trainer.model if isinstance(trainer.model, nn.Module) else build_student(trainer.args, trainer.data)
        try:
            files, amplifier = begin_run(trainer.run, student, trainer.save_dir)
        except BadUseError:
            self._remove_empty_folder()
            raise
        trainer.state = replace(trainer.state, amplifier_path=amplifier, report_files=files if trainer.ddp else None)
        trainer.state.store(trainer.args)

    def _begin_for_all_ranks(self) -> None:
        """Begin the run in rank 0; the processes of other machines wait for it, and end with it if it fails."""
        if RANK == 0:
            try:
                self._begin_in_process()
            except BaseException as e:
                if several_machines():
                    machine_store().fail_to_begin(e)
                raise
        if several_machines():
            machine_store().from_rank0(BEGUN)

    def _begin_in_process(self) -> None:
        """Begin the run in a process without the other ranks; a resumed run has its amplifier already."""
        trainer = self._trainer
        mark_folder(trainer.save_dir)
        # the latter if the copy in the folder has gone
        path = trainer.run.amplifier_path or trainer.state.amplifier_path
        amplifier = None if path is None else str(path)
        if not trainer.resume:
            left_out = {ARGS_KEY, "save_dir", "resume", "device"}
            keys = {k: v for k, v in vars(trainer.args).items() if k not in left_out}
            device = str(trainer.args.device or "").split(",")[0]
            settings = {**keys, **trainer.run.settings.as_dict(), "device": device}
            files, amplifier = prepare_in_process(settings, int(os.environ.get("WORLD_SIZE", "1")))
            write_files(files, trainer.save_dir)
        trainer.state = replace(trainer.state, amplifier_path=amplifier)
        trainer.state.store(trainer.args)

    def _remove_empty_folder(self) -> None:
        """Remove the run's folder, which Ultralytics makes early, if nothing was computed yet."""
        folder = self._trainer.save_dir
        if {p.name for p in folder.rglob("*")} <= {"args.yaml", "weights"}:
            shutil.rmtree(folder, ignore_errors=True)
