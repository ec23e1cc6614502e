"""How a run opens: settings, teacher, data and amplifier are checked against each other before anything is trained."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK

from ds2d2_yolo.bridge.data.class_map import ClassMap, taken_classes
from ds2d2_yolo.bridge.data.dataset import check_labels, data_hash
from ds2d2_yolo.bridge.data.security import is_safe
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard, check_amplifier, load_amplifier
from ds2d2_yolo.bridge.models.heads import refuse_yaml
from ds2d2_yolo.bridge.models.input_channels import fit_channels
from ds2d2_yolo.bridge.models.teacher import Teacher, load_teacher
from ds2d2_yolo.bridge.preflight.collect import plan_of, preflight, report_files, write_files
from ds2d2_yolo.bridge.training.amplifier_trainer import card_for, obtain_amplifier
from ds2d2_yolo.bridge.training.hooks.image_size import FittingSizes
from ds2d2_yolo.bridge.training.prepare_process import open_alone
from ds2d2_yolo.bridge.training.provenance import FILE, origin_of, with_origin
from ds2d2_yolo.bridge.training.unsupported import leave_folder, refuse_unsupported
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.bridge.upstream.compat import check_ultralytics
from ds2d2_yolo.bridge.upstream.distributed import same_in_all_processes
from ds2d2_yolo.bridge.upstream.rng_state import preserved_random_state
from ds2d2_yolo.config.recipes import resolve_settings, saved_settings
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.report.facts import Report

AMPLIFIER_FILE = "amplifier.safetensors"


class RunOpening(FittingSizes):
    """The part of a distilling trainer that comes before training.

    Attributes:
        settings (Settings): The run's DS2D2 settings; where teacher and data share no class, without implicit stream.
        teacher (Teacher): Loaded teacher, unfused.
        class_map (ClassMap): Its classes and the data's.
        channels (tuple[int, ...]): The data's channels that it takes.
    """

    settings: Settings
    teacher: Teacher
    class_map: ClassMap
    channels: tuple[int, ...]
    saved: bool

    def __init__(
        self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict[str, Any] | None = None
    ) -> None:
        check_ultralytics()
        given, rest = Settings.split(overrides or {})
        if isinstance(rest.get("data"), (str, Path)):
            rest["data"] = resolve_data(str(rest["data"]))
        # a process that DDP spawned gets the settings in one piece, as they stand in the arguments; without a report
        # they come with the args.yaml of an earlier run, which cfg= names
        block = dict(rest.pop(ARGS_KEY, None) or {})
        self._launched = "report" in block
        self._carried: dict[str, Any] = block if self._launched else {}
        carried = self._carried.get("settings")
        self.settings = saved_settings(carried) if carried else resolve_settings(given, block.get("settings"))
        if not self._launched:
            leave_folder(rest)
        self._given = given
        if RANK > 0 and not self._launched and not rest.get("resume"):
            # Ultralytics (8.4.190) numbers the folder in rank 0 alone. Under torchrun the others would take that of an
            # earlier run, and remove its results.csv: until rank 0 tells its own, they have one that is never made.
            rest["save_dir"] = str(Path(tempfile.gettempdir(), f"ds2d2-rank-{os.getpid()}"))
        launched_with = self._carried.pop("report", None)
        if self.settings.safe and not rest.get("resume") and not is_safe():
            raise BadUseError("safe=True comes too late, the student is loaded: set ULTRALYTICS_SAFE_LOAD=1 before")
        super().__init__(cfg, rest, _callbacks)
        if self.settings.safe and not self.resume and not is_safe():
            raise BadUseError(
                "safe=True comes too late here, the student is loaded: set ULTRALYTICS_SAFE_LOAD=1 before"
            )
        if RANK >= 0 and self.args.rect:  # Ultralytics (8.4.190) does so where it launches the processes itself alone
            self.args.rect = False  # whose shares of unshuffled images are not of one length
            if RANK == 0:
                LOGGER.warning("DS2D2: rect=True does not go with several processes: rect=False")
        if launched_with and RANK == 0:  # Ultralytics' launch of several GPUs deletes what the launching process wrote
            write_files(launched_with, self.save_dir)

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
            self.settings = saved_settings(self._carried["settings"])
            self._warn_ignored()
        refuse_yaml(self.args.model, "the student")
        rotated, trained = isinstance(self, OBBTrainer), self._own_amplifier() is not None
        refuse_unsupported(self.args, self.settings, rotated, trained)
        wanted = self._given.get("teacher") or self.settings.teacher
        self.teacher = load_teacher(wanted, self.args.task)
        trained_with = self._carried.get("teacher", self.teacher.sha256)
        if self.teacher.sha256 != trained_with:
            raise BadUseError(f"teacher={wanted} is not the one that this run began with: name that one to resume")
        self.fit_imgsz()
        if self.settings.amplifier and "imhi" in self.settings.active and self._own_amplifier() is None:
            load_amplifier(Path(self.settings.amplifier))  # one that is missing or broken leaves no folder either
        # absolute, so that a resume from another folder and the processes of DDP find it
        self._take_settings(replace(self.settings, teacher=self.teacher.path))

    def _take_settings(self, settings: Settings) -> None:
        """Make these the settings of the run, in its arguments and checkpoints too."""
        self.settings = settings
        self._carried = {**self._carried, "settings": settings.as_dict(), "teacher": self.teacher.sha256}
        setattr(self.args, ARGS_KEY, self._carried)

    def _warn_ignored(self) -> None:
        """Say which settings of the command a resumed run does not take."""
        kept = self.settings.as_dict()
        ignored = [k for k, v in self._given.items() if k != "teacher" and v != kept[k]]
        if ignored:
            LOGGER.warning(f"DS2D2: resume keeps the run's own {ignored}; start a new run to change them")

    def get_dataset(self) -> dict[str, Any]:
        """Return the data set, checked against teacher and amplifier."""
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
        """Match labels, channels, classes and amplifier to the run."""
        check_labels(data, self.args.task)
        self.channels = fit_channels(self.teacher, data["channels"], self.settings.teacher_channels)
        self.class_map = taken_classes(self.teacher.names, data, self.args)
        if not self.class_map.identical and RANK in {-1, 0}:
            LOGGER.warning(f"DS2D2: {self.class_map.describe()}")
        if not self.class_map.pairs and self.settings.active:
            self._leave_explicit_alone()
        if self.settings.amplifier and "imhi" in self.settings.active and self._own_amplifier() is None:
            self.checked_amplifier(Path(self.settings.amplifier), data_hash(data), self.class_map.shared)

    def _leave_explicit_alone(self) -> None:
        """Switch the implicit stream off: predictions of classes that the data do not have teach nothing."""
        self._take_settings(replace(self.settings, implicit=False, imfu=None, imhi=None))
        if not self.settings.active:
            raise BadUseError(
                f"{self.class_map.describe()}: nothing is left to distil, name the classes alike or turn explicit on"
            )
        if RANK in {-1, 0}:
            LOGGER.warning("DS2D2: no class is shared, the explicit stream alone is distilled")

    def _drop_empty_folder(self) -> None:
        """Remove the run's folder, which Ultralytics makes before it looks at the data, if nothing was computed yet."""
        if {p.name for p in self.save_dir.rglob("*")} <= {"args.yaml", "weights"}:
            shutil.rmtree(self.save_dir, ignore_errors=True)

    def report(self) -> Report:
        """Return what is known about this run before it starts; nothing of it is touched."""
        named = self._own_amplifier() or self.settings.amplifier
        card = None if named or "imhi" not in self.settings.active else self.amplifier_card()
        return preflight(plan_of(self, Path(named) if named else None, card))

    def open(self) -> tuple[dict[str, str], str | None]:
        """Report on this run and obtain its amplifier, trained first where none is kept; one process does it.

        Returns:
            files (dict[str, str]): The report's and run.json, by name; they lie in the run's folder, and the report's
                text was printed.
            amplifier (str | None): Path, None for a run without `imhi`.
        """
        files = report_files(self.report())
        LOGGER.info("\n" + files["preflight.txt"])
        write_files(files, self.save_dir)
        amplifier = None
        if "imhi" in self.settings.active:
            with preserved_random_state(self.args.seed, self.args.deterministic):
                amplifier = self._obtain_amplifier()
        files[FILE] = with_origin(self.save_dir, origin_of(self, amplifier), bool(self.resume))
        write_files({FILE: files[FILE]}, self.save_dir)
        return files, None if amplifier is None else str(amplifier)

    def _open_for_all(self) -> None:
        """Do the same in rank 0 of processes that torchrun started; what Ultralytics launched brings it along."""
        own = self._own_amplifier()
        if own is not None:
            self._carried["amplifier"] = str(own)
        if self.resume:
            return
        theirs = {k: v for k, v in vars(self.args).items() if k not in {ARGS_KEY, "save_dir", "resume", "device"}}
        device = str(self.args.device or "").split(",")[0]
        found = open_alone(self.args.task, {**theirs, **self.settings.as_dict(), "device": device})
        write_files(found["files"], self.save_dir)
        self._carried["amplifier"] = found["amplifier"]

    def train(self) -> None:
        """Report and train, after the amplifier where one is needed and none is kept; one process does both."""
        if RANK == -1:
            try:
                files, amplifier = self.open()
            except BadUseError:
                self._drop_empty_folder()
                raise
            self._carried |= {"amplifier": amplifier, **({"report": files} if self.ddp else {})}
        elif RANK == 0 and not self._launched:
            self._open_for_all()
        if self.ddp and torch.cuda.is_available():  # this process only waits now: leave the memory to the others
            gc.collect()
            torch.cuda.empty_cache()
        try:
            super().train()
        except KeyboardInterrupt as e:  # the command line says how to go on
            self._close_loaders()
            raise KeyboardInterrupt(*(["resume"] if self.resume or self.saved else [])) from e

    def _share_folder(self) -> None:
        """Take the first process's folder in all of them."""
        places = ("save_dir", "wdir", "last", "best", "csv")
        for name, place in zip(places, same_in_all_processes([getattr(self, k) for k in places]), strict=True):
            setattr(self, name, place)
        self.args.save_dir, self.args.name = str(self.save_dir), self.save_dir.name

    def _close_loaders(self) -> None:
        """End the workers of the data loaders: one that a signal ended too would be reported at this process' end."""
        for name in ("train_loader", "test_loader"):
            loader = getattr(self, name, None)  # Ultralytics sets them late
            if loader is not None:
                with suppress(RuntimeError):  # torch's own report of such a worker
                    loader.close()

    def amplifier_card(self) -> AmplifierCard:
        """Return the origin of the amplifier that this run needs."""
        wanted = self.settings.wavelet, self.settings.amplifier_epochs, self.channels
        return card_for(self.teacher, self.data, self.args, *wanted)

    def _obtain_amplifier(self) -> Path:
        """Return the file of this run's amplifier: the run's own, the one named, or a kept or newly trained one."""
        named = self._own_amplifier() or self.settings.amplifier
        return Path(named) if named else obtain_amplifier(self.amplifier_card(), self.teacher, self.args)

    def _own_amplifier(self) -> Path | None:
        """Return the copy in the folder of a resumed run: it is there even where the kept or named file has gone."""
        own = Path(str(self.args.save_dir)) / AMPLIFIER_FILE if self.resume else None
        return own if own is not None and own.is_file() else None

    def checked_amplifier(
        self, path: Path, data: str | None = None, shared: tuple[str, ...] | None = None
    ) -> dict[str, Tensor]:
        """Return the weights of an amplifier that fits this run.

        Args:
            path (Path): Its file.
            data (str | None): Hash of the run's data; None leaves it unchecked, for the copy in a resumed run's folder.
            shared (tuple[str, ...] | None): Classes that the run distils; None leaves them unchecked likewise.

        Returns:
            (dict[str, Tensor]): Weights of its head.

        Raises:
            BadUseError: If it is unreadable or belongs to another teacher, wavelet, set of classes or data set.
        """
        state, card = load_amplifier(path)
        check_amplifier(card, self.teacher, self.settings.wavelet, path, data, self.channels, shared)
        return state
