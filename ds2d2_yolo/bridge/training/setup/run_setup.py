"""Run setup before training: resolve settings, load the teacher, validate data and amplifier, write the report."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK
from ultralytics.utils.torch_utils import parse_device

from ds2d2_yolo.bridge.data.class_map import ClassMap, match_run_classes
from ds2d2_yolo.bridge.data.dataset import data_hash, load_data
from ds2d2_yolo.bridge.data.label_checks import check_labels
from ds2d2_yolo.bridge.data.security import safe_loading_active
from ds2d2_yolo.bridge.data.unlabelled.sources import other_sources
from ds2d2_yolo.bridge.models.amplifier_store import check_amplifier, load_amplifier
from ds2d2_yolo.bridge.models.heads import refuse_yaml
from ds2d2_yolo.bridge.models.input_channels import fit_channels
from ds2d2_yolo.bridge.models.loading import check_pretrained, starting_weights
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.bridge.preflight.collect import collect_report, report_files
from ds2d2_yolo.bridge.preflight.prepared_run import PreparedRun
from ds2d2_yolo.bridge.training.hooks.image_size import fit_imgsz
from ds2d2_yolo.bridge.training.obtain_amplifier import card_for, obtain_amplifier, rounded_imgsz
from ds2d2_yolo.bridge.training.setup.provenance import RUN_FILE, append_provenance, provenance_of
from ds2d2_yolo.bridge.training.setup.run_state import RunState
from ds2d2_yolo.bridge.training.setup.unsupported import leave_folder, refuse_unsupported
from ds2d2_yolo.bridge.training.unlabelled.prepare import prepare_unlabelled
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY
from ds2d2_yolo.bridge.upstream.devices import check_device
from ds2d2_yolo.bridge.upstream.rng_state import isolate_training_rng
from ds2d2_yolo.config.image_sizes import size_ratio
from ds2d2_yolo.config.recipes import resolve_settings
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.config.settings import IMPLICIT, Settings
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.atomic_files import write_atomically

AMPLIFIER_FILE = "amplifier.safetensors"
TOO_LATE = "safe=True comes too late, the student is loaded: set ULTRALYTICS_SAFE_LOAD=1 before"


@dataclass(frozen=True)
class RunRequest:
    """What a trainer was asked for, before anything is loaded.

    Attributes:
        overrides (dict[str, Any]): Ultralytics settings.
        ds2d2_args (dict[str, Any]): The DS2D2 settings that the caller gave.
        settings (Settings): All DS2D2 settings.
        launched (RunState | None): State of the launching process, in a process that Ultralytics launched for DDP.
    """

    overrides: dict[str, Any]
    ds2d2_args: dict[str, Any]
    settings: Settings
    launched: RunState | None = None

    @classmethod
    def of(cls, overrides: Mapping[str, Any] | None) -> RunRequest:
        """Split a trainer's overrides into DS2D2 and Ultralytics settings, and resolve the former.

        Args:
            overrides (Mapping[str, Any] | None): Both kinds of settings; the state of a run under `ARGS_KEY` where
                Ultralytics launched this process, or where `cfg=` names an args.yaml.

        Returns:
            (RunRequest): The settings, checked.

        Raises:
            BadUseError: If a setting is wrong.
        """
        ds2d2_args, ultralytics_args = Settings.split(dict(overrides or {}))
        if isinstance(ultralytics_args.get("data"), (str, Path)):
            ultralytics_args["data"] = resolve_data(str(ultralytics_args["data"]))
        block = ultralytics_args.pop(ARGS_KEY, None) or {}
        if block.get("report_files") is not None and (state := RunState.of(block)):
            return cls(ultralytics_args, ds2d2_args, state.settings, state)
        leave_folder(ultralytics_args)
        return cls(ultralytics_args, ds2d2_args, resolve_settings(ds2d2_args, block.get("settings")))

    def refuse_late_safe(self) -> None:
        """Refuse `safe=True` where the student was loaded without the safe loader."""
        if self.settings.safe and not self.overrides.get("resume") and not safe_loading_active():
            raise BadUseError(TOO_LATE)

    def arguments(self, cfg: Any = DEFAULT_CFG) -> tuple[Namespace, bool]:
        """Return Ultralytics' arguments of the run as its trainer resolves them.

        Args:
            cfg (Any): Ultralytics' default settings.

        Returns:
            args (Namespace): Of a resumed run those of its checkpoint, where the command may not change them.
            resumed (bool): Whether the run is resumed.
        """
        level = LOGGER.level
        LOGGER.setLevel(logging.ERROR)  # the trainer itself logs the notices and the ignored settings again
        try:
            trainer = SimpleNamespace(args=get_cfg(cfg, self.overrides), resume=False)
            BaseTrainer.check_resume(trainer, self.overrides)  # reads and sets these two attributes only (8.4.190)
        finally:
            LOGGER.setLevel(level)
        return trainer.args, bool(trainer.resume)

    def resumed_state(self, args: Namespace) -> RunState:
        """Return the state of the run that is resumed, with the teacher that the command names.

        Args:
            args (Namespace): Arguments of the checkpoint.

        Returns:
            (RunState): Of the launching process where there is one, which is newer, otherwise of the checkpoint.

        Raises:
            BadUseError: If the checkpoint is not an unfinished run of this package.
        """
        state = self.launched or RunState.of(getattr(args, ARGS_KEY, None))
        if state is None:
            raise BadUseError(f"{args.resume} is no unfinished run of ds2d2-yolo: resume it with 'yolo'")
        stored = state.settings.as_dict()
        requested = {k: v for k, v in self.ds2d2_args.items() if k != "teacher"}
        if not other_sources(requested.get("unlabelled"), stored["unlabelled"]):
            requested.pop("unlabelled", None)
        ignored = [k for k, v in requested.items() if v != stored[k]]
        if ignored and self.launched is None:
            LOGGER.warning(f"DS2D2: resume keeps the run's own {ignored}; start a new run to change them")
        if self.launched is None and state.settings.teacher_imgsz is not None and "imgsz" in self.overrides:
            raise BadUseError("a run with teacher_imgsz= keeps both sizes when it is resumed: leave imgsz= out")
        teacher = self.ds2d2_args.get("teacher") or state.settings.teacher
        # a key `unlabelled` that came into the data YAML meanwhile belongs to another run
        unlabelled = state.settings.unlabelled or False
        return replace(state, settings=replace(state.settings, teacher=teacher, unlabelled=unlabelled))


def prepare_run(
    args: Namespace, settings: Settings, rotated: bool | None = None, state: RunState | None = None
) -> PreparedRun:
    """Load teacher and data of a run, and check settings, student, teacher, data and amplifier against each other.

    Nothing is written, so that a mistake leaves no folder.

    Args:
        args (Namespace): Ultralytics' arguments. `imgsz` is rounded for a coarse teacher; the teacher's `task` is set
            where there is none, as for an amplifier without a student.
        settings (Settings): DS2D2 settings.
        rotated (bool | None): Whether the trainer is the one for oriented boxes; None for the one that fits the task.
        state (RunState | None): State of a run that is resumed or launched.

    Returns:
        (PreparedRun): The run; its settings name the teacher by its absolute path.

    Raises:
        BadUseError: If anything does not fit; the message says what to do.
    """
    refuse_yaml(args.model, "the student")
    if not args.resume:
        check_pretrained(args.pretrained)
    ratio = size_ratio(args.imgsz, settings.teacher_imgsz)
    run_amplifier = _run_amplifier(args, state)
    if args.model is not None:  # None for an amplifier without a student
        rotated = args.task == "obb" if rotated is None else rotated
        refuse_unsupported(args, settings, rotated, run_amplifier is not None)
    teacher = load_teacher(settings.teacher, args.task)
    args.task = args.task or ("obb" if teacher.rotated else "detect")
    if state is not None and teacher.sha256 != state.teacher_sha256:
        raise BadUseError(
            f"teacher={settings.teacher} is not the one that this run began with: name that one to resume"
        )
    fit_imgsz(args, teacher, ratio)
    named = Path(settings.amplifier) if settings.amplifier and run_amplifier is None else None
    if named and "imhi" in settings.active and RANK in {-1, 0}:  # the other processes get the amplifier of rank 0
        load_amplifier(named)  # a missing or broken one is refused before the data are read
    data = load_data(args)
    check_labels(data, args.task, args.split, args.fraction)
    channels = fit_channels(teacher, data["channels"], settings.teacher_channels)
    class_map = match_run_classes(teacher.names, data, args)
    # absolute, so that a resume from another folder and the processes of DDP find it
    settings = replace(settings, teacher=teacher.path)
    if settings.teacher_imgsz is not None:
        settings = replace(settings, teacher_imgsz=ratio * args.imgsz)  # rounded too
    if settings.adapter_init == "auto":
        settings = replace(settings, adapter_init="ridge" if starting_weights(args) else "random")
    unlabelled = None
    if args.model is not None:
        settings = _with_shared_classes(settings, class_map)
        settings, unlabelled = prepare_unlabelled(settings, data, args)
    args.device = parse_device(args.device)
    device = check_device(args.device)
    run = PreparedRun(args, settings, teacher, data, class_map, channels, device, unlabelled=unlabelled)
    if "imhi" not in settings.active:
        return run
    if named and RANK in {-1, 0}:
        load_checked_amplifier(run, named, check_data=True)
    elif not (named or run_amplifier) and RANK == -1:  # one of several processes gets the file, see `prepare_process`
        card = card_for(teacher, data, run.teacher_args, settings.wavelet, settings.amplifier_epochs, channels)
        return replace(run, amplifier_card=card)
    return replace(run, amplifier_path=named or run_amplifier)


def _with_shared_classes(settings: Settings, class_map: ClassMap) -> Settings:
    """Return the settings, without implicit stream where teacher and data share no class, and say so.

    Predictions of classes that the data do not have teach nothing.
    """
    if not class_map.identical and RANK in {-1, 0}:
        LOGGER.warning(f"DS2D2: {class_map.describe()}")
    if class_map.pairs or not settings.active:
        return settings
    off: dict[str, Any] = {"implicit": False, **{term.value: None for term in IMPLICIT}}
    settings = replace(settings, **off)
    if not settings.active:
        raise BadUseError(
            f"{class_map.describe()}: nothing is left to distil, name the classes alike or turn explicit on"
        )
    if RANK in {-1, 0}:
        LOGGER.warning("DS2D2: no class is shared, the explicit stream alone is distilled")
    return settings


def _run_amplifier(args: Namespace, state: RunState | None) -> Path | None:
    """Return the amplifier that a run has already: a copy in a resumed run's folder, or the launching process's file.

    The copy is there even if the stored or named file has gone.
    """
    copy = Path(str(args.save_dir)) / AMPLIFIER_FILE if args.resume else None
    if copy is not None and copy.is_file():
        return copy
    launched = state is not None and state.report_files is not None and state.amplifier_path
    return Path(launched) if launched else None


def load_checked_amplifier(run: PreparedRun, path: Path, check_data: bool = False) -> dict[str, Tensor]:
    """Load the weights of an amplifier that fits a run. One that was trained at another size is named in a warning.

    Args:
        run (PreparedRun): The run.
        path (Path): The amplifier's file.
        check_data (bool): Whether data and shared classes have to be those of its training too. Not for the copy in a
            resumed run's folder.

    Returns:
        (dict[str, Tensor]): Weights of its head.

    Raises:
        BadUseError: If it is unreadable or belongs to another teacher, wavelet, set of classes or data set.
    """
    weights, card = load_amplifier(path)
    data, shared = (data_hash(run.data), run.class_map.shared) if check_data else (None, None)
    check_amplifier(card, run.teacher, run.settings.wavelet, path, data, run.channels, shared)
    if check_data and card.imgsz != (size := rounded_imgsz(run.teacher, run.teacher_args)):
        LOGGER.warning(f"DS2D2: amplifier={path} was trained at {card.imgsz} px, and the teacher sees {size} px here")
    return weights


def begin_run(run: PreparedRun, student: Any, folder: Path) -> tuple[dict[str, str], str | None]:
    """Write the report of a run, obtain its amplifier, and record its provenance. One process does it.

    Args:
        run (PreparedRun): The run.
        student (Any): The student, not yet on its device.
        folder (Path): Folder for the files.

    Returns:
        files (dict[str, str]): Contents of the written files by name.
        amplifier (str | None): Path of the amplifier, None for a run without `imhi`.

    Raises:
        BadUseError: If the run cannot succeed.
    """
    files = report_files(collect_report(run, student))
    LOGGER.info("\n" + files["preflight.txt"])
    write_files(files, folder)
    amplifier = run.amplifier_path
    if run.amplifier_card is not None:
        with isolate_training_rng(run.args.seed, run.args.deterministic):
            amplifier = obtain_amplifier(run.amplifier_card, run.teacher, run.teacher_args)
    files[RUN_FILE] = append_provenance(folder, provenance_of(run, amplifier), bool(run.args.resume))
    write_files({RUN_FILE: files[RUN_FILE]}, folder)
    return files, None if amplifier is None else str(amplifier)


def write_files(files: Mapping[str, str], folder: Path) -> None:
    """Write text files into a folder, each atomically.

    Args:
        files (Mapping[str, str]): Contents by file name.
        folder (Path): The folder.
    """
    for name, text in files.items():
        write_atomically(folder / name, text)
