"""The pre-flight report: collects what is known about a run before its first epoch, without changing anything of it."""

from __future__ import annotations

import copy
import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import ultralytics
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import get_flops

from ds2d2_yolo._version import __version__
from ds2d2_yolo.bridge.data.data_warnings import data_warnings
from ds2d2_yolo.bridge.distillation.build import build_distiller
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.models.adapters import detach_adapters
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.models.loading import check_freeze, starting_weights
from ds2d2_yolo.bridge.models.teacher import state_hash
from ds2d2_yolo.bridge.preflight.facts import (
    amplifier_facts,
    class_facts,
    count_parameters,
    gain_facts,
    level_facts,
    levels_left_out,
    parameter_facts,
    run_facts,
)
from ds2d2_yolo.bridge.preflight.memory_estimate import expected_memory, fake_quantised, step_bytes
from ds2d2_yolo.bridge.preflight.prepared_run import PreparedRun, refuse_rounded
from ds2d2_yolo.bridge.upstream.rng_state import isolate_training_rng
from ds2d2_yolo.bridge.validation.teacher_map import teacher_map
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.report.facts import MemoryFacts, ModelFacts, QualityFacts, Report
from ds2d2_yolo.report.text import render

T = TypeVar("T")

MIN_TEACHER_MAP = 0.05  # mAP50 below which a teacher has next to nothing to teach on these data
BATCHES = 4  # validation batches of the teacher's trial
CPU_GFLOPS = 400.0  # budget of the trial without a GPU: about 10 s on two cores
CPU_IMAGES = 16
# Ultralytics (8.4.190) calibrates in eval mode, where the activations of a random network fade with the depth
RANDOM_RANGES = (
    "quantize=8 measures the ranges of activations once, before the first step, and these are those of random weights: "
    "train in float first, and start from that checkpoint"
)


def collect_report(run: PreparedRun, student: Any) -> Report:
    """Collect the report of a run. Models are measured on copies, the random state is restored.

    Args:
        run (PreparedRun): The run.
        student (Any): The student, not yet on its device.

    Returns:
        (Report): A part that fails and is not essential is None, with the reason among the warnings.

    Raises:
        DS2D2Error: If the run cannot succeed, for example because the models share no level.
    """
    warnings: list[str] = []
    with isolate_training_rng(run.args.seed, run.args.deterministic):
        student = _trainable_copy(student, run.args)
        distiller, imgsz = _build_copy(run, student), run.imgsz(student)
        refuse_rounded(run, imgsz)
        teacher_imgsz = run.size_ratio * imgsz
        teacher = _model_facts(run.teacher.model, run.teacher.path, run.teacher.sha256, teacher_imgsz, warnings)
        report = Report(
            versions={
                "ds2d2-yolo": __version__,
                "ultralytics": ultralytics.__version__,
                "torch": str(torch.__version__),  # a class of its own
            },
            run=run_facts(run, student),
            teacher=teacher,
            student=_model_facts(student, *_student_source(run.args, warnings), imgsz, warnings),
            levels=level_facts(run, student, distiller.teacher.pairs if distiller else []),
            levels_off=levels_left_out(run, student),
            classes=class_facts(run),
            quality=_teacher_quality(run, teacher.gflops, warnings),
            amplifier=amplifier_facts(run),
            gains=gain_facts(run),
            parameters=parameter_facts(student, run.teacher, distiller),
            memory=_attempt("the expected memory", warnings, lambda: _memory(run, student, distiller, imgsz)),
        )
    args = run.args
    warnings += (
        _attempt(
            "images that are left out",
            warnings,
            lambda: data_warnings(run.data, args.split, args.fraction),
        )
        or []
    )
    if run.unlabelled is not None:
        warnings += run.unlabelled.warnings
    if args.quantize == 8 and report.student.sha256 is None:
        warnings.append(RANDOM_RANGES)
    if distiller is None:
        warnings.append("no term is on: this is a plain training")
    return replace(report, warnings=tuple(warnings))


def report_files(report: Report) -> dict[str, str]:
    """Return the contents of a report's files by name, `preflight.json` and `preflight.txt`.

    Args:
        report (Report): The report.

    Returns:
        (dict[str, str]): File name to text. Each text ends with a line break.
    """
    facts = json.dumps(report.as_dict(), indent=2, allow_nan=False) + "\n"
    return {"preflight.json": facts, "preflight.txt": render(report) + "\n"}


def _attempt(description: str, warnings: list[str], compute: Callable[[], T]) -> T | None:
    """Return the result of a computation. A failure becomes a warning and None; errors of bad use pass through."""
    try:
        return compute()
    except DS2D2Error:
        raise
    except Exception as e:  # a report must not stop a run that would have succeeded
        first = (str(e).strip().splitlines() or [""])[0]
        warnings.append(f"{description} could not be found: {type(e).__name__}: {first}")
        return None


def _trainable_copy(student: Any, args: Namespace) -> Any:
    """Copy the student with Ultralytics' settings, and freeze the layers that `freeze=` names.

    Raises:
        BadUseError: If all layers are frozen. Ultralytics would go on, since it sees the adapters on the student.
    """
    check_freeze(student, args.freeze)
    student = copy.deepcopy(student)
    freeze = args.freeze if isinstance(args.freeze, list) else range(args.freeze or 0)
    names = [f"model.{x}." for x in freeze] + [".dfl"]
    for name, parameter in student.named_parameters():
        parameter.requires_grad = not any(x in name for x in names)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise BadUseError(f"freeze={args.freeze} leaves nothing of the student to train: freeze fewer layers")
    student.args = args
    return student


def _build_copy(run: PreparedRun, student: Any) -> Distiller | None:
    """Build the run's distillation from copies, None where no term is on.

    The amplifier has the teacher's own weights: it may not be trained yet, and only its size matters here.
    """
    if not run.settings.active:
        return None
    teacher = replace(run.teacher, model=copy.deepcopy(run.teacher.model))
    head = dense_head(student, "the student")
    return build_distiller(
        head, teacher, run.settings, class_map=run.class_map, seed=run.args.seed, ratio=run.size_ratio
    )


def _model_facts(model: Any, source: str, sha256: str | None, imgsz: int, warnings: list[str]) -> ModelFacts:
    """Return size and cost of a model. FLOPs are counted on a copy, since the counter leaves buffers where it fails."""
    gflops = float(get_flops(copy.deepcopy(model), imgsz))
    if gflops == 0:
        warnings.append(f"the GFLOPs of {source} could not be counted")
    return ModelFacts(source, sha256, count_parameters(model), gflops or None)


def _student_source(args: Namespace, warnings: list[str]) -> tuple[str, str | None]:
    """Return the student's source, and the hash of its initial weights if it has any."""
    pretrained = args.pretrained if isinstance(args.pretrained, (str, Path)) and not args.resume else None
    source = str(args.model) if pretrained is None else f"{args.model} from {pretrained}"
    file = starting_weights(args)
    if file is None:
        return source, None
    return source, _attempt(f"the hash of {file}", warnings, lambda: _weights_hash(file))


def _weights_hash(file: str) -> str:
    """Return the hash of a checkpoint's weights, without adapters."""
    model, _ = load_checkpoint(file)
    detach_adapters(model)
    return state_hash(model)


def _teacher_quality(run: PreparedRun, gflops: float | None, warnings: list[str]) -> QualityFacts:
    """Validate the teacher on a few images, and warn if its mAP50 is below `MIN_TEACHER_MAP`."""
    unknown = QualityFacts(None, None, 0, MIN_TEACHER_MAP)
    if not run.class_map.shared:
        warnings.append("the teacher's mAP on these data cannot be measured: they share no class with it")
        return unknown
    args = run.teacher_args
    if run.device.type != "cuda":
        images = CPU_IMAGES if gflops is None else min(int(CPU_GFLOPS / gflops), CPU_IMAGES)
        args.batch = max(images // BATCHES, 1)
    maps = _attempt(
        "the teacher's mAP", warnings, lambda: teacher_map(run.teacher, run.data, args, run.class_map, BATCHES)
    )
    if maps is None:
        return unknown
    if maps[0] < MIN_TEACHER_MAP:
        warnings.append(
            f"the teacher does not look trained on these data: its mAP50 on a few validation images is {maps[0]:.3f}, "
            f"below {MIN_TEACHER_MAP:g}"
        )
    return QualityFacts(*maps, BATCHES * (args.batch if args.batch >= 1 else 16), MIN_TEACHER_MAP)


def _memory(run: PreparedRun, student: Any, distiller: Distiller | None, imgsz: int) -> MemoryFacts:
    """Measure one image on the CPU, and extrapolate to a training step."""
    channels = int(run.data["channels"])
    if run.args.quantize == 8:
        student = fake_quantised(student, channels, imgsz)
    step = step_bytes(student, distiller, channels, imgsz, run.amp, run.size_ratio)
    return expected_memory(student, distiller, run.args, step, imgsz, run.devices, run.amp)
