"""The trainers: Ultralytics' own for detection and oriented boxes, with the criterion of a distilled student.

Every hook into Ultralytics (8.4.190) stands in this file. Each calls its collaborators in the order in which they must
act; `hooks/` holds one collaborator per concern.
"""

from __future__ import annotations

import gc
import math
import os
import shutil
import tempfile
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.data import build_yolo_dataset
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.distillation.build import build_distiller
from ds2d2_yolo.bridge.distillation.criterion import DistillationCriterion
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.gains import Gains
from ds2d2_yolo.bridge.distillation.teacher_size import share_batch
from ds2d2_yolo.bridge.models.adapters import attach_adapters, get_adapters
from ds2d2_yolo.bridge.models.heads import dense_head, refuse_yaml
from ds2d2_yolo.bridge.training.hooks.adapter_optimizer import AdapterOptimizer
from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import AtomicCheckpoints, finalize_checkpoints
from ds2d2_yolo.bridge.training.hooks.autobatch import profiled_with_teacher
from ds2d2_yolo.bridge.training.hooks.epoch_log import EpochLog
from ds2d2_yolo.bridge.training.hooks.exact_resume import ExactResume
from ds2d2_yolo.bridge.training.hooks.final_sheets import draw_final_sheets
from ds2d2_yolo.bridge.training.hooks.finite_steps import FiniteSteps
from ds2d2_yolo.bridge.training.hooks.image_size import coarse_stride
from ds2d2_yolo.bridge.training.hooks.logger_columns import LoggerColumns
from ds2d2_yolo.bridge.training.hooks.run_folder import RunFolder
from ds2d2_yolo.bridge.training.machines.inputs import compare_machines
from ds2d2_yolo.bridge.training.machines.store import machine_store, several_machines
from ds2d2_yolo.bridge.training.setup.run_setup import (
    AMPLIFIER_FILE,
    RunRequest,
    load_checked_amplifier,
    prepare_run,
    write_files,
)
from ds2d2_yolo.bridge.training.setup.run_start import RunStart
from ds2d2_yolo.bridge.training.setup.run_state import RunState
from ds2d2_yolo.bridge.training.setup.unsupported import refuse_process_count
from ds2d2_yolo.bridge.training.unlabelled.second_images import SecondImages
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.bridge.upstream.compat import check_ultralytics
from ds2d2_yolo.bridge.upstream.distributed import broadcast_from_rank0, file_from_rank0
from ds2d2_yolo.utils.atomic_files import replacing


class DS2D2Trainer(DetectionTrainer):
    """Trains a horizontal-box student with DS2D2; the DS2D2 settings come among the Ultralytics ones.

    The model stays the plain student, so EMA, validation, checkpoints, `compile`, `freeze` and export see nothing else.
    While it trains it holds the adapters in one extra attribute, which Ultralytics ignores. The files of a finished run
    hold a plain Ultralytics model.

    Args:
        cfg (Any): Ultralytics' default settings.
        overrides (dict[str, Any] | None): Ultralytics and DS2D2 settings.
        _callbacks (dict[str, Any] | None): Ultralytics callbacks.

    Attributes:
        run (PreparedRun): Settings, teacher and data of the run.
        state (RunState): What checkpoints and launched processes carry.
        distiller (Distiller | None): Computes the terms; None before the model is set up, or where no term is active.
        gains (Gains): Factors of the terms; set when training is set up.

    Raises:
        BadUseError: If settings, teacher, student or data do not fit, before anything is trained or written.

    Examples:
        >>> from ultralytics import YOLO
        >>> model = YOLO("yolov8n.yaml")
        >>> model.train(trainer=DS2D2Trainer, teacher="yolov8x.pt", data="dior.yaml")  # doctest: +SKIP
    """

    gains: Gains
    second_images_have_labels = False  # of `unlabelled=`; True for pseudo-labels, see `compared.arm_trainers`

    # Preparation --------------------------------------------------------------------------------------------------
    def __init__(
        self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict[str, Any] | None = None
    ) -> None:
        check_ultralytics()
        task = {"task": "obb"} if isinstance(self, OBBTrainer) else {}  # as OBBTrainer itself does, later
        request = RunRequest.of({**(overrides or {}), **task})
        request.refuse_late_safe()
        self._launched = request.launched is not None
        args, resumed = request.arguments(cfg)
        earlier = request.resumed_state(args) if resumed else request.launched
        settings = earlier.settings if earlier else request.settings
        if RANK >= 0 and not self._launched:
            refuse_process_count(args.device, args.batch, int(os.environ.get("WORLD_SIZE", "1")))
        self.run = prepare_run(args, settings, isinstance(self, OBBTrainer), earlier)
        if several_machines():
            compare_machines(self.run, machine_store())
        self.state = replace(
            earlier.without_report() if earlier else RunState(settings, self.run.teacher.sha256),
            settings=self.run.settings,
        )
        self.distiller: Distiller | None = None
        self._restored_adapters: nn.ModuleList | None = None
        self._pipeline_built = False
        self.run_start = RunStart(self, self._launched)
        self.epoch_log = EpochLog(self)
        self.run_folder = RunFolder(self)
        self.checkpoints = AtomicCheckpoints(self)
        self.finite_steps = FiniteSteps(self)
        self.adapter_optimizer = AdapterOptimizer()
        self.exact_resume = ExactResume(self, self.run.settings.exact_resume)
        self.logger_columns = LoggerColumns(self)
        self.second_images = SecondImages.of(self, self.run, self.second_images_have_labels)
        super().__init__(cfg, self._with_rank_folder(request.overrides), _callbacks)
        self.run = replace(self.run, args=self.args, device=self.device)
        if DS2D2Trainer._start_epoch not in self.callbacks["on_train_epoch_start"]:  # DDP hands them to each process
            self.add_callback("on_train_epoch_start", DS2D2Trainer._start_epoch)
        if RANK >= 0 and self.args.rect:  # Ultralytics (8.4.190) does so only where it launches the processes itself
            self.args.rect = False  # the shares of unshuffled images are not of one length
            if RANK == 0:
                LOGGER.warning("DS2D2: rect=True does not go with several processes: rect=False")
        if request.launched and request.launched.report_files and RANK == 0:
            write_files(request.launched.report_files, self.save_dir)  # the launch deleted them

    def _with_rank_folder(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Return the overrides, with a folder that is never made for ranks above 0 that torchrun started.

        Ultralytics (8.4.190) numbers the run's folder in rank 0 only. The others would take that of an earlier run, and
        remove its results.csv. Rank 0 tells them its folder in `_setup_train`.
        """
        if RANK > 0 and not self._launched and not overrides.get("resume"):
            return {**overrides, "save_dir": str(Path(tempfile.gettempdir(), f"ds2d2-rank-{os.getpid()}"))}
        return overrides

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Resolve a resumed run's arguments; those of the prepared run go into args.yaml, which is written next."""
        super().check_resume(overrides)
        self.args.imgsz = self.run.args.imgsz
        self.state.store(self.args)

    def get_dataset(self) -> dict[str, Any]:
        """Return the data set of the prepared run."""
        self.args.data = self.run.data.get("yaml_file", self.args.data)
        return dict(self.run.data)

    def train(self) -> None:
        """Report on the run and obtain its amplifier, then train."""
        self._begin()
        if self.ddp and torch.cuda.is_available():  # this process only waits now: leave the memory to the others
            gc.collect()
            torch.cuda.empty_cache()
        try:
            super().train()
        except KeyboardInterrupt as e:  # the command line says how to go on
            self._close_loaders()
            raise KeyboardInterrupt(*(["resume"] if self.resume or self.checkpoints.saved else [])) from e
        finally:
            if self.second_images is not None:
                self.second_images.close()
            self.run_folder.close()
        draw_final_sheets(self)  # when the run is over: to interrupt it loses no result

    def _begin(self) -> None:
        """Begin the run; a rival begins its run otherwise."""
        self.run_start.begin()

    def _close_loaders(self) -> None:
        """End the workers of the data loaders: one that a signal ended too would be reported when this process ends."""
        for name in ("train_loader", "test_loader"):
            loader = getattr(self, name, None)  # Ultralytics sets them late
            if loader is not None:
                with suppress(RuntimeError):  # torch's own report of such a worker
                    loader.close()

    # Setting up the model -----------------------------------------------------------------------------------------
    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """Build the student; on resume keep the adapters of the checkpoint, which its plain architecture drops."""
        refuse_yaml(cfg, "the student")
        if self.resume and weights is not None:
            self._restored_adapters = get_adapters(weights)
        model: nn.Module = super().get_model(cfg=cfg, weights=weights, verbose=verbose)
        return model

    def set_model_attributes(self) -> None:
        """Bind teacher, adapters and amplifier to the student, once it is on its device and before EMA copies it."""
        super().set_model_attributes()
        student_head = dense_head(self.model, "student")
        run = self.run
        if not run.settings.active:
            return
        restored = self._restored_adapters
        self.distiller = build_distiller(
            student_head,
            run.teacher,
            run.settings,
            class_map=run.class_map,
            amplifier_state=self._amplifier_weights(),
            adapters=restored and restored.float().requires_grad_(True),
            seed=self.args.seed,
            ratio=run.size_ratio,
        ).to(self.device)
        attach_adapters(self.model, self.distiller.adapters, as_weights=self.args.quantize == 8)

    def _amplifier_weights(self) -> dict[str, torch.Tensor] | None:
        """Load the run's amplifier, and put a copy into the run's folder for a later resume."""
        if "imhi" not in self.run.settings.active:
            return None
        with file_from_rank0(self.state.amplifier_path or self.run.amplifier_path) as path:
            weights = load_checked_amplifier(self.run, path)
            if RANK in {-1, 0} and path != self.save_dir / AMPLIFIER_FILE:
                with replacing(self.save_dir / AMPLIFIER_FILE) as temporary:
                    shutil.copyfile(path, temporary)
        return weights

    def _setup_train(self) -> None:
        """Set up as usual, wrap the student's criterion, then restore what last.pt of a resumed run lacks."""
        self.run_folder.share()
        self.gains = Gains(self.run.settings, self.state.gains)
        super()._setup_train()
        self.exact_resume.restore_weights()
        if self.state.batch_size not in {None, self.batch_size}:
            self.gains.recalibrate()  # resumed with another batch size
        model = unwrap_model(self.model)
        # an end-to-end student that resumes has a criterion already, with the weights of its epoch
        base = getattr(model, "criterion", None) or model.init_criterion()
        model.criterion = DistillationCriterion(base, dense_head(model, "student"), self.distiller, self.gains)

    def get_validator(self) -> Any:
        """Return the validator; Ultralytics checks the arguments again there, so the state is hidden meanwhile."""
        block = self.args.__dict__.pop(ARGS_KEY, None)
        try:
            return super().get_validator()
        finally:
            if block is not None:
                setattr(self.args, ARGS_KEY, block)

    # Data and optimizer -------------------------------------------------------------------------------------------
    def _fit_stride(self) -> None:
        """Make image sizes multiples of the teacher's coarsest stride too."""
        if stride := coarse_stride(self.run.teacher, self.run.size_ratio):
            self.stride = max(getattr(self, "stride", 0), stride)

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Build a data set; training batches fit the teacher, also under `rect`, and carry their workers' states."""
        if mode != "train":
            return super().build_dataset(img_path, mode, batch)
        ratio = self.run.size_ratio
        if ratio > 1 or coarse_stride(self.run.teacher):
            self._fit_stride()
            options = {"mode": mode, "rect": False, "stride": ratio * self.stride}
            dataset = build_yolo_dataset(self.run.teacher_args, img_path, batch, self.data, **options)
        else:
            dataset = super().build_dataset(img_path, mode, batch)
        return self.exact_resume.prepare_dataset(dataset)

    def _build_train_pipeline(self) -> None:
        """Build loaders and optimizer; after an out-of-memory restart the gains belong to another batch size."""
        self._fit_stride()
        with nullcontext() if self.second_images is None else self.second_images.labelled_batch():
            super()._build_train_pipeline()
        if self.second_images is not None:
            self.second_images.build()
        self.exact_resume.follow_loader()
        if self._pipeline_built:
            self.gains.recalibrate()
        self._pipeline_built = True

    def _close_dataloader_mosaic(self) -> None:
        """End the mosaics; the loader starts over then."""
        super()._close_dataloader_mosaic()
        if self.second_images is not None:
            self.second_images.close_mosaic()
        self.exact_resume.restart_loader()

    def auto_batch(self) -> int:
        """Return the batch size that fits the memory of student and teacher.

        Ultralytics' `DetectionTrainer.auto_batch` counts the objects and profiles in one method. Its count is therefore
        repeated here (8.4.190). On a CPU Ultralytics profiles nothing and takes 16.
        """
        self._fit_stride()
        cache, self.args.cache = self.args.cache, False
        try:
            dataset = self.build_dataset(self.data["train"], mode="train", batch=16)
        finally:
            self.args.cache = cache
        boxes = max(len(label["cls"]) for label in dataset.labels) * 4  # of the four images of a mosaic
        with profiled_with_teacher(self, self.distiller, boxes):
            images = len(dataset) if self.second_images is None else self.second_images.all_images(len(dataset))
            return int(BaseTrainer.auto_batch(self, boxes, dataset_size=images))

    def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Build the plain run's optimizer, with a parameter group for the adapters behind its groups."""
        build = super().build_optimizer
        return self.adapter_optimizer.build(model, lambda: build(model, *args, **kwargs))

    # While training -----------------------------------------------------------------------------------------------
    def _start_epoch(self) -> None:
        """Begin an epoch of the gains (callback `on_train_epoch_start`); a rerun begins it again."""
        self.adapter_optimizer.step_norms = []
        batches = len(self.train_loader)
        # with time= every process has an estimate of its own; they have to measure, and stop distilling, together
        epochs, warm = broadcast_from_rank0([self.epochs, self.epoch * batches >= self._get_warmup_iterations(batches)])
        self.gains.start_epoch(self.epoch, epochs, batches, warm)
        if self.distiller is not None:
            self.distiller.start_epoch(self.epoch)

    def _model_train(self) -> None:
        """Put the model into training mode; a resumed run's random states follow, after all callbacks."""
        super()._model_train()
        if self.second_images is not None:
            self.second_images.start_epoch()
        self.exact_resume.start_epoch()

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Count the batch, append unlabelled images, preprocess as usual, and scale the student's images down.

        The batches that calibrate a quantised student come before the loaders: they have no unlabelled images.
        """
        self.exact_resume.count_batch(batch)
        facts: dict[str, Any] = {}
        if self.second_images is not None and self._pipeline_built:
            batch, facts = self.second_images.extend(batch)
        batch = {**super().preprocess_batch(batch), **facts}
        return share_batch(batch, self.run.size_ratio, with_teacher=self.distiller is not None)

    def optimizer_step(self) -> None:
        """Step if a step is due and all gradients are finite; student and adapters are clipped separately."""
        if not self.exact_resume.step_due():
            return
        if self.finite_steps.allow_step():
            self.adapter_optimizer.step(self, super().optimizer_step)

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write the epoch's row with the columns of the gains, and warn if a term is out of order."""
        save = super().save_metrics
        if self.distiller is None:
            self.checkpoints.save_metrics(lambda: save(metrics))
            return
        columns = self.epoch_log.columns()
        self.checkpoints.save_metrics(lambda: save({**metrics, **columns}))
        self.logger_columns.store(columns)
        self.epoch_log.report()

    def run_callbacks(self, event: str) -> None:
        """Run the callbacks of an event; the experiment loggers among them see the epoch's columns too."""
        with self.logger_columns.shown(event):
            super().run_callbacks(event)

    def save_model(self) -> bool:
        """Save the checkpoints atomically with the current gains, after the resume file of the epoch."""
        if self.distiller is not None:
            self.state = replace(self.state, gains=self.gains.state(), batch_size=self.batch_size)
            self.state.store(self.args)
        save = super().save_model
        return self.exact_resume.save(lambda: self.checkpoints.save(save))

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Return to last.pt after a loss that is not finite, as usual, on machines without the run's folder too."""
        if not self.run_folder.everywhere:
            values = [v for v in (self.loss, self.fitness) if v is not None]
            (finite,) = broadcast_from_rank0([all(math.isfinite(float(v)) for v in values)])
            if not finite:
                self.run_folder.deliver("last")
        return bool(super()._handle_nan_recovery(epoch))

    # After training -----------------------------------------------------------------------------------------------
    def final_eval(self) -> None:
        """Log where the terms act, make the checkpoints plain, and evaluate on copies of them."""
        if RANK in {-1, 0}:
            if self.distiller is not None:
                self.epoch_log.report_levels()
            finalize_checkpoints(self.wdir)
        self.run_folder.deliver("best")
        self.checkpoints.final_eval(super().final_eval)


class DS2D2OBBTrainer(DS2D2Trainer, OBBTrainer):
    """Trains an oriented-box student with DS2D2.

    Examples:
        >>> from ultralytics import YOLO
        >>> model = YOLO("yolov8n-obb.yaml")
        >>> model.train(trainer=DS2D2OBBTrainer, teacher="yolov8x-obb.pt", data="dota.yaml")  # doctest: +SKIP
    """
