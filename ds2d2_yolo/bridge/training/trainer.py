"""The trainers: Ultralytics' own for detection and oriented boxes, whose criterion distils a teacher."""

from __future__ import annotations

import shutil
from typing import Any

import torch
from torch import nn
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.distillation.criterion import DistillationCriterion, loss_ratios
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.distillation.gains import Gains
from ds2d2_yolo.bridge.models.adapters import attach_adapters, get_adapters, make_adapters
from ds2d2_yolo.bridge.models.amplifier import Amplifier
from ds2d2_yolo.bridge.models.heads import dense_head, level_channels, pair_levels, refuse_yaml, strides_of
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher
from ds2d2_yolo.bridge.training.hooks.adapter_optimizer import AdapterOptimizing, clipped_share, clipping_remark
from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import WholeCheckpoints, finish_files
from ds2d2_yolo.bridge.training.hooks.autobatch import TeacherAutoBatch
from ds2d2_yolo.bridge.training.hooks.exact_resume import ExactResume
from ds2d2_yolo.bridge.training.hooks.finite_steps import FiniteSteps
from ds2d2_yolo.bridge.training.run_setup import AMPLIFIER_FILE, RunOpening
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.bridge.upstream.distributed import broadcast_from_rank0, file_from_rank0
from ds2d2_yolo.utils.atomic_files import replacing


class DS2D2Trainer(ExactResume, RunOpening, FiniteSteps, AdapterOptimizing, WholeCheckpoints, TeacherAutoBatch):
    """Trains a horizontal-box student with DS2D2; the DS2D2 settings come among the Ultralytics ones.

    The model stays the plain student throughout, so EMA, validation, checkpoints, `compile`, `freeze` and export see
    nothing else. While it trains it holds the adapters in one extra attribute, which Ultralytics ignores; the files
    of a finished run hold nothing of ours.

    Args:
        cfg (Any): Ultralytics default settings.
        overrides (dict[str, Any] | None): Ultralytics and DS2D2 settings.
        _callbacks (dict[str, Any] | None): Ultralytics callbacks.

    Raises:
        BadUseError: If settings, teacher, student or data do not fit, before anything is trained.

    Examples:
        >>> from ultralytics import YOLO
        >>> model = YOLO("yolov8n.yaml")
        >>> model.train(trainer=DS2D2Trainer, teacher="yolov8x.pt", data="dior.yaml")  # doctest: +SKIP
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._restored: nn.ModuleList | None = None
        self._distiller: Distiller | None = None
        self._remarked: set[str] = set()
        self._built = False
        super().__init__(*args, **kwargs)

    # Setting up --------------------------------------------------------------------------------------------------

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """Build the student; on resume keep the adapters of the checkpoint, which its plain architecture drops."""
        refuse_yaml(cfg, "the student")
        if self.resume and weights is not None:
            self._restored = get_adapters(weights)
        model: nn.Module = super().get_model(cfg=cfg, weights=weights, verbose=verbose)
        return model

    def set_model_attributes(self) -> None:
        """Bind teacher, adapters and amplifier to the student, once it is on its device and before EMA copies it."""
        super().set_model_attributes()
        head = dense_head(self.model, "student")
        if not self.settings.active:
            return
        amplifier = self._load_amplifier(strides_of(head))
        channels = level_channels(dense_head(self.teacher.model, "teacher"))
        teacher = FrozenTeacher(self.teacher, strides_of(head), self.settings.levels, self.settings.teacher_bf16).to(
            self.device
        )
        if self._restored is not None:
            adapters = self._restored.float().requires_grad_(True)
        else:
            mine = [level_channels(head)[s] for s, _ in teacher.pairs]
            adapters = make_adapters(mine, [channels[t] for _, t in teacher.pairs], self.args.seed)
        attach_adapters(self.model, adapters.to(self.device))
        columns, own = self.class_map.compared_columns
        self._distiller = Distiller(
            self.settings,
            teacher,
            adapters,
            amplifier and amplifier.to(self.device),
            columns,
            self.args.seed,
            own,
        )

    def _load_amplifier(self, student_strides: tuple[float, ...]) -> Amplifier | None:
        """Load the amplifier that `train` obtained; it needs the teacher's head before that is folded."""
        if "imhi" not in self.settings.active:
            return None
        with file_from_rank0(self._carried.get("amplifier") or self.settings.amplifier) as path:
            state = self.checked_amplifier(path)
            if RANK in {-1, 0} and path != self.save_dir / AMPLIFIER_FILE:
                with replacing(self.save_dir / AMPLIFIER_FILE) as own:
                    shutil.copyfile(path, own)
        levels = [t for _, t in pair_levels(student_strides, self.teacher.strides, self.settings.levels)]
        return Amplifier(self.teacher, state, levels, self.settings.wavelet)

    def _setup_train(self) -> None:
        """Set up as usual, then put the distillation around the criterion that the student would have had."""
        self._share_folder()
        self._gains = Gains(self.settings, self._carried.get("gains"))
        super()._setup_train()
        if self._carried.get("gains", {}).get("batch") not in {None, self.batch_size}:
            self._gains.forget()  # resumed with another batch size
        model = unwrap_model(self.model)
        # an end-to-end student that resumes has one already, at the right place of its fading
        base = getattr(model, "criterion", None) or model.init_criterion()
        model.criterion = DistillationCriterion(base, dense_head(model, "student"), self._distiller, self._gains)

    def get_validator(self) -> Any:
        """Return the validator; Ultralytics checks the arguments again there, so ours are hidden meanwhile."""
        carried = self.args.__dict__.pop(ARGS_KEY, None)
        try:
            return super().get_validator()
        finally:
            if carried is not None:
                setattr(self.args, ARGS_KEY, carried)

    # While training ----------------------------------------------------------------------------------------------

    def _start_epoch(self) -> None:
        """Tell gains and distiller which epoch begins; a rerun of an epoch begins it again."""
        self.step_norms = []
        batches = len(self.train_loader)
        # with time= every process has an estimate of its own; they have to measure, and stop distilling, together
        epochs, warm = broadcast_from_rank0([self.epochs, self.epoch * batches >= self._get_warmup_iterations(batches)])
        self._gains.start_epoch(self.epoch, epochs, batches, warm)
        if self._distiller is not None:
            self._distiller.start_epoch(self.args.seed + 1000 * self.epoch + max(RANK, 0))

    def _model_train(self) -> None:
        """Begin an epoch."""
        super()._model_train()
        self._start_epoch()

    def _build_train_pipeline(self) -> None:
        """Build loaders and optimizer; after an out-of-memory restart the gains belong to another batch size."""
        super()._build_train_pipeline()
        if self._built:
            self._gains.forget()
        self._built = True

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write the epoch's row with the columns of the gains, and say what is wrong with a term."""
        if self._distiller is None:
            super().save_metrics(metrics)
            return
        norms = torch.stack(self.step_norms).tolist() if self.step_norms else []
        columns = {**self._gains.row(), **loss_ratios(self.tloss), "clip/steps": clipped_share(norms)}
        super().save_metrics({**metrics, **columns})
        said = self._gains.remarks()
        if remark := clipping_remark(norms, self._gains.shares()):
            said["clip"] = remark
        for key in said.keys() - self._remarked:  # while it lasts, once is enough
            LOGGER.warning(f"DS2D2: epoch {self.epoch + 1}: {said[key]}")
        self._remarked = set(said)

    def save_model(self) -> bool:
        """Save as usual, with the gains as they stand."""
        if self._distiller is not None:
            self._carried["gains"] = {**self._gains.state(), "batch": self.batch_size}
        return super().save_model()

    # After training ----------------------------------------------------------------------------------------------

    def final_eval(self) -> None:
        """Make every checkpoint of the run a plain one, then evaluate as usual."""
        if RANK in {-1, 0}:
            finish_files(self.wdir)
        super().final_eval()


class DS2D2OBBTrainer(DS2D2Trainer, OBBTrainer):
    """Trains an oriented-box student with DS2D2.

    Examples:
        >>> from ultralytics import YOLO
        >>> model = YOLO("yolov8n-obb.yaml")
        >>> model.train(trainer=DS2D2OBBTrainer, teacher="yolov8x-obb.pt", data="dota.yaml")  # doctest: +SKIP
    """
