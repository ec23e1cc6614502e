"""The trainers: Ultralytics' own for detection and oriented boxes, whose criterion distils a teacher."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from ds2d2_yolo.bridge.adapters import ARGS_KEY, adapters_of, attach_adapters, drop_adapters, make_adapters
from ds2d2_yolo.bridge.amplifier import Amplifier, check_amplifier, load_amplifier
from ds2d2_yolo.bridge.amplifier_training import card_for, obtain_amplifier
from ds2d2_yolo.bridge.checkpoints import WholeCheckpoints, finish_files
from ds2d2_yolo.bridge.checks import check_sizes, refuse_unsupported
from ds2d2_yolo.bridge.compat import check_ultralytics
from ds2d2_yolo.bridge.criterion import DistillationCriterion
from ds2d2_yolo.bridge.data import check_labels
from ds2d2_yolo.bridge.distiller import Distiller
from ds2d2_yolo.bridge.heads import dense_head, level_channels, pair_levels, strides_of
from ds2d2_yolo.bridge.randomness import preserved_random_state
from ds2d2_yolo.bridge.teacher import FrozenTeacher, Teacher, load_teacher
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.resources import resolve_data
from ds2d2_yolo.settings import Settings

AMPLIFIER_FILE = "amplifier.safetensors"
CLIP_NORM = 10.0  # Ultralytics' own


class DS2D2Trainer(WholeCheckpoints):
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

    def __init__(
        self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict[str, Any] | None = None
    ) -> None:
        check_ultralytics()
        given, rest = Settings.split(overrides or {})
        if isinstance(rest.get("data"), (str, Path)):
            rest["data"] = resolve_data(str(rest["data"]))
        # a process that DDP spawned gets the settings in one piece, as they stand in the arguments
        self._carried: dict[str, Any] = dict(rest.pop(ARGS_KEY, None) or {})
        self.settings = Settings(**self._carried.get("settings", given))
        self._given = given
        self._restored: nn.ModuleList | None = None
        self._distiller: Distiller | None = None
        super().__init__(cfg, rest, _callbacks)

    # Before training ---------------------------------------------------------------------------------------------

    def check_resume(self, overrides: dict[str, Any]) -> None:
        """Take the settings of a resumed run from its checkpoint, then load and check the teacher.

        Ultralytics calls this once its own settings stand and before it makes the run's folder, so a mistake leaves
        no folder behind.
        """
        super().check_resume(overrides)
        if self.resume:
            # what the launching process handed to this one is newer than what stands in the checkpoint
            self._carried = self._carried or dict(getattr(self.args, ARGS_KEY, None) or {})
            if not self._carried:
                raise BadUseError(f"{self.args.resume} is no unfinished run of ds2d2-yolo: resume it with 'yolo'")
            self.settings = Settings(**self._carried["settings"])
            self._warn_ignored()
        refuse_unsupported(self.args, self.settings, isinstance(self, OBBTrainer))
        wanted = self._given.get("teacher") or self.settings.teacher
        self.teacher: Teacher = load_teacher(wanted, self.args.task)
        trained_with = self._carried.get("teacher", self.teacher.sha256)
        if self.teacher.sha256 != trained_with:
            raise BadUseError(f"teacher={wanted} is not the one that this run began with: name that one to resume")
        check_sizes(self.args, max(self.teacher.strides))
        if self.settings.imhi > 0 and (named := self._own_amplifier() or self.settings.amplifier):
            self._checked_amplifier(Path(named))
        # absolute, so that a resume from another folder and the processes of DDP find it
        self.settings = replace(self.settings, teacher=self.teacher.path)
        self._carried = {**self._carried, "settings": self.settings.as_dict(), "teacher": self.teacher.sha256}
        setattr(self.args, ARGS_KEY, self._carried)

    def _warn_ignored(self) -> None:
        """Say which settings of the command a resumed run does not take."""
        kept = self.settings.as_dict()
        ignored = [k for k, v in self._given.items() if k != "teacher" and v != kept[k]]
        if ignored:
            LOGGER.warning(f"DS2D2: resume keeps the run's own {ignored}; start a new run to change them")

    def get_dataset(self) -> dict[str, Any]:
        """Return the data set, its training labels and classes checked."""
        try:
            data: dict[str, Any] = super().get_dataset()
            self._check_data(data)
        except RuntimeError as e:
            self._drop_empty_folder()
            said = str(e.__cause__ or e).strip().splitlines()
            raise BadUseError(f"data={self.args.data}: {said[0] if said else type(e).__name__}") from e
        except BadUseError:
            self._drop_empty_folder()
            raise
        return data

    def _check_data(self, data: dict[str, Any]) -> None:
        """Refuse data without fitting labels, and classes that the amplifier cannot be trained on."""
        check_labels(data, self.args.task)
        classes = tuple(str(data["names"][i]) for i in sorted(data["names"]))
        if classes == self.teacher.names:
            return
        said = f"the teacher's classes {list(self.teacher.names)} are not the data's {list(classes)}"
        if self.settings.imhi > 0 and not self.settings.amplifier:
            raise BadUseError(f"{said}, so no amplifier can be trained: set imhi=0, or take a teacher of these classes")
        LOGGER.warning(f"DS2D2: {said}; features and the teacher's own predictions are distilled all the same")

    def _drop_empty_folder(self) -> None:
        """Remove the run's folder, which Ultralytics makes before it looks at the data, if nothing was computed yet."""
        if {p.name for p in self.save_dir.rglob("*")} <= {"args.yaml", "weights"}:
            shutil.rmtree(self.save_dir, ignore_errors=True)

    def train(self) -> None:
        """Train, after the amplifier where one is needed and none is kept: once, in the launching process."""
        if self.settings.imhi > 0 and RANK == -1:
            with preserved_random_state(self.args.seed, self.args.deterministic):
                self._carried["amplifier"] = str(self._obtain_amplifier())
        super().train()

    def _obtain_amplifier(self) -> Path:
        """Return the file of this run's amplifier: the one named, the run's own, or a kept or newly trained one."""
        named = self._own_amplifier() or self.settings.amplifier
        if named:
            return Path(named)
        card = card_for(self.teacher, self.data, self.args, self.settings.wavelet, self.settings.amplifier_epochs)
        return obtain_amplifier(card, self.teacher, self.args)

    def _own_amplifier(self) -> Path | None:
        """Return the copy in the folder of a resumed run: it is there even where the kept or named file has gone."""
        own = Path(str(self.args.save_dir)) / AMPLIFIER_FILE if self.resume else None
        return own if own is not None and own.is_file() else None

    def _checked_amplifier(self, path: Path) -> dict[str, Tensor]:
        """Return the weights of an amplifier that fits this run."""
        state, card = load_amplifier(path)
        check_amplifier(card, self.teacher, self.settings.wavelet, path)
        return state

    # Setting up --------------------------------------------------------------------------------------------------

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """Build the student; on resume keep the adapters of the checkpoint, which its plain architecture drops."""
        if self.resume and weights is not None:
            self._restored = adapters_of(weights)
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
        teacher = FrozenTeacher(self.teacher, strides_of(head)).to(self.device)
        if self._restored is not None:
            adapters = self._restored.float().requires_grad_(True)
        else:
            mine = [level_channels(head)[s] for s, _ in teacher.pairs]
            adapters = make_adapters(mine, [channels[t] for _, t in teacher.pairs], self.args.seed)
        attach_adapters(self.model, adapters.to(self.device))
        self._distiller = Distiller(self.settings, teacher, adapters, amplifier and amplifier.to(self.device))

    def _load_amplifier(self, student_strides: tuple[float, ...]) -> Amplifier | None:
        """Load the amplifier that `train` obtained; it needs the teacher's head before that is folded."""
        if self.settings.imhi == 0:
            return None
        path = self._carried.get("amplifier") or self.settings.amplifier
        if path is None:
            raise BadUseError("under torchrun the amplifier has to exist already: name it with amplifier=")
        state = self._checked_amplifier(Path(path))
        if RANK in {-1, 0} and Path(path) != self.save_dir / AMPLIFIER_FILE:
            shutil.copyfile(path, self.save_dir / AMPLIFIER_FILE)
        levels = [t for _, t in pair_levels(student_strides, self.teacher.strides)]
        return Amplifier(self.teacher, state, levels, self.settings.wavelet)

    def _setup_train(self) -> None:
        """Set up as usual, then put the distillation around the criterion that the student would have had."""
        super()._setup_train()
        model = unwrap_model(self.model)
        # an end-to-end student that resumes has one already, at the right place of its fading
        base = getattr(model, "criterion", None) or model.init_criterion()
        model.criterion = DistillationCriterion(base, self._distiller)

    def get_validator(self) -> Any:
        """Return the validator; Ultralytics checks the arguments again there, so ours are hidden meanwhile."""
        carried = self.args.__dict__.pop(ARGS_KEY, None)
        try:
            return super().get_validator()
        finally:
            if carried is not None:
                setattr(self.args, ARGS_KEY, carried)

    def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Build the plain run's optimizer, and give the adapters a parameter group of their own behind its groups.

        Among the student's weights they would be decayed, and orthogonalised by MuSGD.
        """
        bare = unwrap_model(model)
        adapters = adapters_of(bare)
        if adapters is None:
            return super().build_optimizer(model, *args, **kwargs)
        drop_adapters(bare)
        try:
            optimizer: torch.optim.Optimizer = super().build_optimizer(model, *args, **kwargs)
        finally:
            attach_adapters(bare, adapters)
        group: Mapping[str, Any] = optimizer.param_groups[-1]
        own = {k: v for k, v in group.items() if k not in {"params", "param_group", "use_muon", "weight_decay"}}
        own |= {"weight_decay": 0.0, "param_group": "adapter", "params": list(adapters.parameters())}
        if "use_muon" in group:
            own["use_muon"] = False
        optimizer.add_param_group(own)
        return optimizer

    # While training ----------------------------------------------------------------------------------------------

    def optimizer_step(self) -> None:
        """Step as Ultralytics does, with the adapters clipped on their own.

        One norm over both would let large adapter gradients shrink the student's.
        """
        adapters = adapters_of(unwrap_model(self.model))
        own = list(adapters.parameters()) if adapters is not None else []
        if not own:
            super().optimizer_step()
            return
        ids = {id(p) for p in own}
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if id(p) not in ids], max_norm=CLIP_NORM)
        torch.nn.utils.clip_grad_norm_(own, max_norm=CLIP_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.model)

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
