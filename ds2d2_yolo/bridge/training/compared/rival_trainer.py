"""The trainers of the rivals: those of DS2D2 without its terms, with the rival's criterion instead.

Teacher, adapters, class map, atomic checkpoints and exact resume are those of a distillation with DS2D2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ultralytics.utils import DEFAULT_CFG, LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.distillation.rivals.build import build_rival
from ds2d2_yolo.bridge.distillation.rivals.criterion import RivalCriterion
from ds2d2_yolo.bridge.distillation.rivals.methods import Rival
from ds2d2_yolo.bridge.models.adapters import attach_adapters
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.training.trainer import DS2D2OBBTrainer, DS2D2Trainer
from ds2d2_yolo.config.rivals import RIVAL_KEY


class RivalTrainer(DS2D2Trainer):
    """Trains a horizontal-box student with a rival; `compare` makes it. One process only.

    Args:
        cfg (Any): Ultralytics' default settings.
        overrides (dict[str, Any] | None): Ultralytics settings and `teacher`.
        _callbacks (dict[str, Any] | None): Ultralytics callbacks.
        rival (Mapping[str, Any]): Method and settings, see `rivals.rival_settings`.

    Raises:
        BadUseError: If teacher, student, data or settings do not fit.
    """

    rival: Rival

    def __init__(
        self,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict[str, Any] | None = None,
        *,
        rival: Mapping[str, Any],
    ) -> None:
        self.rival_settings = dict(rival)
        super().__init__(cfg, {**(overrides or {}), "gains": 0.0}, _callbacks)  # no term of DS2D2

    def _begin(self) -> None:
        """Begin the run without DS2D2's report, which would describe a training without distillation."""
        self.state.store(self.args)
        LOGGER.info(", ".join(f"{k}={v}" for k, v in self.rival_settings.items()))

    def set_model_attributes(self) -> None:
        """Bind teacher and adapters to the student, once it is on its device and before EMA copies it."""
        super().set_model_attributes()
        restored = self._restored_adapters
        self.rival = build_rival(
            self.rival_settings,
            dense_head(self.model, "student"),
            self.run.teacher,
            adapters=restored and restored.float().requires_grad_(True),
            seed=self.args.seed,
        )
        self.rival.teacher.to(self.device)
        if self.rival.adapters is not None:
            adapters = self.rival.adapters.to(self.device)
            attach_adapters(self.model, adapters, as_weights=self.args.quantize == 8)

    def _setup_train(self) -> None:
        """Set up as for DS2D2, then put the rival's criterion in the place of its criterion."""
        super()._setup_train()
        model = unwrap_model(self.model)
        model.criterion = RivalCriterion(model.criterion.base, self.rival, self.rival_settings[RIVAL_KEY])


class RivalOBBTrainer(RivalTrainer, DS2D2OBBTrainer):
    """Trains an oriented-box student with a rival."""
