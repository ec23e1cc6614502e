"""Ultralytics settings that do not go with a distillation, refused before anything is trained."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from ultralytics.utils import YAML
from ultralytics.utils.checks import check_yaml

from ds2d2_yolo.bridge.upstream.modelopt import require_modelopt
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError


def refuse_unsupported(args: Namespace, settings: Settings, rotated: bool, has_amplifier: bool = False) -> None:
    """Refuse settings that contradict each other or the distillation.

    Args:
        args (Namespace): Ultralytics' settings of the run.
        settings (Settings): Its DS2D2 settings.
        rotated (bool): Whether the trainer is the one for oriented boxes.
        has_amplifier (bool): Whether the run has an amplifier already, as a resumed run has.

    Raises:
        BadUseError: With what to do instead.
    """
    if args.distill_model:
        raise BadUseError("distill_model= is Ultralytics' own distillation: use either it or teacher=")
    refuse_quantize(args)
    if args.amp == "bf16" and (str(args.device).lower() in {"cpu", "mps"} or not torch.cuda.is_available()):
        raise BadUseError("amp=bf16 needs a CUDA device: leave amp= out, training on a CPU is in float32")
    if args.batch < 1 and "," in str(args.device):
        raise BadUseError(f"batch={args.batch}: AutoBatch looks at one GPU, for device={args.device} name a batch size")
    if settings.box_distance == "kfiou" and args.task != "obb":
        raise BadUseError("box_distance=kfiou compares oriented boxes: leave it out for a detect student")
    if args.multi_scale and settings.teacher_imgsz is not None:
        raise BadUseError(f"multi_scale={args.multi_scale} does not go with teacher_imgsz=: leave one of them out")
    if (args.task == "obb") != rotated:
        raise BadUseError("use DS2D2OBBTrainer for obb models and DS2D2Trainer for detect")
    if (
        args.time
        and "imhi" in settings.active
        and not (has_amplifier or settings.amplifier or settings.amplifier_epochs)
    ):
        raise BadUseError("time= does not tell how many epochs the amplifier gets: add amplifier_epochs=")


def refuse_quantize(args: Namespace) -> None:
    """Refuse a precision that no student is trained in, and what does not go with quantisation-aware training.

    Args:
        args (Namespace): Ultralytics' settings.

    Raises:
        BadUseError: With what to do instead, or with the command that installs ModelOpt.
    """
    if args.quantize not in {None, 8, 32}:
        raise BadUseError(f"quantize={args.quantize} is for export: a student trains in float, or with quantize=8")
    if args.quantize != 8:
        return
    require_modelopt("quantize=8")
    if args.compile:
        raise BadUseError(f"quantize=8 does not go with compile={args.compile}: leave compile= out")


def refuse_process_count(device: Any, batch: float, processes: int) -> None:
    """Refuse settings that do not fit the number of processes that torchrun started.

    Ultralytics (8.4.190) counts the entries of `device`, whatever torchrun started.

    Args:
        device (Any): Ultralytics' `device`.
        batch (float): Ultralytics' `batch`, of all processes together.
        processes (int): Number of processes on all machines.

    Raises:
        BadUseError: With what to set instead.
    """
    device_count = len(str(device).split(","))
    if device_count != processes:
        hint = "name one device for each process of all machines, as in device=0,1,0,1"
        raise BadUseError(
            f"device={device} names {device_count} of {processes} processes that torchrun started: {hint}"
        )
    if 1 <= batch < processes:
        raise BadUseError(f"batch={batch} is divided among {processes} processes: batch={processes} is the least")


def leave_folder(keys: dict[str, Any]) -> None:
    """Drop settings that lead into the folder of an earlier run, in place, if `cfg=` names that run's args.yaml.

    Ultralytics would write the new run over the earlier one, or resume it.

    Args:
        keys (dict[str, Any]): Ultralytics' settings: those of that file, overridden by the command's.
    """
    earlier = YAML.load(check_yaml(str(keys["cfg"]))) if keys.get("cfg") else {}
    if not earlier.get("save_dir"):  # not an args.yaml, but settings that someone wrote
        return
    for key in ("save_dir", "exist_ok", "resume"):
        if keys.get(key) == earlier.get(key):
            keys.pop(key, None)
