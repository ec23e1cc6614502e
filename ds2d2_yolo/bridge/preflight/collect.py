"""The pre-flight: what is known about a distillation before its first epoch, gathered without touching the run."""

from __future__ import annotations

import copy
import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import ultralytics
from torch import nn
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import get_flops

from ds2d2_yolo._version import __version__
from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.bridge.models.adapters import detach_adapters, make_adapters
from ds2d2_yolo.bridge.models.amplifier import Amplifier, one_to_many
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard
from ds2d2_yolo.bridge.models.heads import dense_head, level_channels, pair_levels, strides_of
from ds2d2_yolo.bridge.models.teacher import FrozenTeacher, state_hash
from ds2d2_yolo.bridge.preflight.memory_estimate import expected_memory, kept_for_backward, sample_batch
from ds2d2_yolo.bridge.preflight.run_plan import (
    Plan,
    amplifier_facts,
    class_facts,
    count,
    gain_facts,
    level_facts,
    levels_off,
    parameter_facts,
    run_facts,
)
from ds2d2_yolo.bridge.upstream.rng_state import isolate_training_rng
from ds2d2_yolo.bridge.validation.teacher_map import teacher_map
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.report.facts import MemoryFacts, ModelFacts, QualityFacts, Report
from ds2d2_yolo.report.text import render
from ds2d2_yolo.utils.atomic_files import write_whole

T = TypeVar("T")

MAP_FLOOR = 0.05  # a teacher that reaches less has next to nothing to teach on these data
BATCHES = 4  # validation batches that the teacher is tried on
CPU_GFLOPS = 400.0  # what its trial may cost without a GPU: some 10 s on two cores
CPU_IMAGES = 16


def plan_of(trainer: Any, amplifier: Path | None = None, card: AmplifierCard | None = None) -> Plan:
    """Return what a trainer is going to run; the trainer and the random state stay as they are.

    Args:
        trainer (Any): A trainer of this package before `train()`. Where it has only the name of its student, that is
            built aside.
        amplifier (Path | None): The amplifier that is given.
        card (AmplifierCard | None): Origin of the amplifier that is otherwise kept or to train.

    Returns:
        (Plan): For `preflight`.
    """
    with isolate_training_rng(trainer.args.seed, trainer.args.deterministic):
        student = trainer.model if isinstance(trainer.model, nn.Module) else _built_aside(trainer)
    own = trainer.teacher, trainer.data, trainer.args, trainer.settings, trainer.class_map
    return Plan(student, *own, trainer.device, max(trainer.world_size, 1), amplifier, card)


def _built_aside(trainer: Any) -> Any:
    """Return the student that a trainer is going to build."""
    aside = copy.copy(trainer)
    build = aside.get_model
    aside.get_model = lambda **keys: build(**{**keys, "verbose": False})
    aside.setup_model()
    return aside.model


def preflight(plan: Plan) -> Report:
    """Gather the report of a run. Models are measured on copies, the random state is put back.

    Args:
        plan (Plan): The run.

    Returns:
        (Report): What fails and is not essential is None, with the reason among the warnings.

    Raises:
        DS2D2Error: If the run cannot go well, such as for models that share no level.
    """
    said: list[str] = []
    with isolate_training_rng(plan.args.seed, plan.args.deterministic):
        student = _as_trained(copy.deepcopy(plan.student), plan.args)
        distiller = _distiller(plan)
        teacher = _model_facts(plan.teacher.model, plan.teacher.path, plan.teacher.sha256, plan.imgsz, said)
        report = Report(
            versions={
                "ds2d2-yolo": __version__,
                "ultralytics": ultralytics.__version__,
                "torch": str(torch.__version__),  # a class of its own
            },
            run=run_facts(plan),
            teacher=teacher,
            student=_model_facts(student, *_student_source(plan.args, said), plan.imgsz, said),
            levels=level_facts(plan, distiller.teacher.pairs if distiller else []),
            levels_off=levels_off(plan),
            classes=class_facts(plan),
            quality=_quality(plan, teacher.gflops, said),
            amplifier=amplifier_facts(plan),
            gains=gain_facts(plan),
            parameters=parameter_facts(student, plan.teacher, distiller),
            memory=_attempt("the expected memory", said, lambda: _memory(plan, student, distiller)),
        )
    if distiller is None:
        said.append("no term is on: this is a plain training")
    return replace(report, warnings=tuple(said))


def report_files(report: Report) -> dict[str, str]:
    """Return the files of a report by name, `preflight.json` and `preflight.txt`."""
    facts = json.dumps(report.as_dict(), indent=2, allow_nan=False) + "\n"
    return {"preflight.json": facts, "preflight.txt": render(report) + "\n"}


def write_files(files: Mapping[str, str], folder: Path) -> None:
    """Write text files by name into a folder, each whole or not at all."""
    for name, text in files.items():
        write_whole(folder / name, text)


def _attempt(what: str, said: list[str], compute: Callable[[], T]) -> T | None:
    """Return what a computation gives, None and a warning where it fails; errors of bad use pass through."""
    try:
        return compute()
    except DS2D2Error:
        raise
    except Exception as e:  # a report must not stop a run that would have gone well
        first = (str(e).strip().splitlines() or [""])[0]
        said.append(f"{what} could not be found: {type(e).__name__}: {first}")
        return None


def _as_trained(student: Any, args: Namespace) -> Any:
    """Prepare a copy of the student as Ultralytics will: its settings, and what `freeze=` names frozen.

    Raises:
        BadUseError: If that is all of it; Ultralytics sees the adapters on the student then, and would go on.
    """
    freeze = args.freeze if isinstance(args.freeze, list) else range(args.freeze or 0)
    names = [f"model.{x}." for x in freeze] + [".dfl"]
    for name, parameter in student.named_parameters():
        parameter.requires_grad = not any(x in name for x in names)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise BadUseError(f"freeze={args.freeze} leaves nothing of the student to train: freeze fewer layers")
    student.args = args
    return student


def _distiller(plan: Plan) -> Distiller | None:
    """Build the run's distillation from copies, None where no term is on.

    The amplifier has the teacher's own weights: it may not be trained yet, and only its size matters here.
    """
    settings = plan.settings
    if not settings.active:
        return None
    head, theirs = dense_head(plan.student, "the student"), dense_head(plan.teacher.model, "the teacher")
    pairs = pair_levels(strides_of(head), plan.teacher.strides, settings.levels)
    amplifier = None
    if "imhi" in settings.active:
        state = one_to_many(copy.deepcopy(theirs)).state_dict()
        amplifier = Amplifier(plan.teacher, state, [t for _, t in pairs], settings.wavelet)
    mine, wanted = level_channels(head), level_channels(theirs)
    adapters = make_adapters([mine[s] for s, _ in pairs], [wanted[t] for _, t in pairs], plan.args.seed)
    taken = replace(plan.teacher, model=copy.deepcopy(plan.teacher.model))
    frozen = FrozenTeacher(taken, strides_of(head), settings.levels, settings.teacher_bf16)
    columns, own = plan.class_map.compared_columns
    return Distiller(settings, frozen, adapters, amplifier, columns, own_columns=own)


def _model_facts(model: Any, source: str, sha256: str | None, imgsz: int, said: list[str]) -> ModelFacts:
    """Return what a model is; its FLOPs are counted on a copy, the counter leaves buffers where it fails."""
    gflops = float(get_flops(copy.deepcopy(model), imgsz))
    if gflops == 0:
        said.append(f"the GFLOPs of {source} could not be counted")
    return ModelFacts(source, sha256, count(model), gflops or None)


def _student_source(args: Namespace, said: list[str]) -> tuple[str, str | None]:
    """Return where the student comes from, and the hash of the weights that it starts from, if it has any."""
    given = args.pretrained if isinstance(args.pretrained, (str, Path)) and not args.resume else None
    source = str(args.model) if given is None else f"{args.model} from {given}"
    file = str(given or args.model)
    if not file.endswith(".pt") or (args.pretrained is False and not args.resume):
        return source, None
    return source, _attempt(f"the hash of {file}", said, lambda: _hash_of(file))


def _hash_of(file: str) -> str:
    """Return the hash of a checkpoint's weights, without adapters."""
    model, _ = load_checkpoint(file)
    detach_adapters(model)
    return state_hash(model)


def _quality(plan: Plan, gflops: float | None, said: list[str]) -> QualityFacts:
    """Try the teacher on a few validation images, and warn where it reaches next to nothing."""
    if not plan.class_map.shared:
        said.append("the teacher's mAP on these data cannot be measured: they share no class with it")
        return QualityFacts(None, None, 0, MAP_FLOOR)
    args = copy.copy(plan.args)
    if plan.device.type != "cuda":
        images = CPU_IMAGES if gflops is None else min(int(CPU_GFLOPS / gflops), CPU_IMAGES)
        args.batch = max(images // BATCHES, 1)
    found = _attempt(
        "the teacher's mAP", said, lambda: teacher_map(plan.teacher, plan.data, args, plan.class_map, BATCHES)
    )
    if found is None:
        return QualityFacts(None, None, 0, MAP_FLOOR)
    if found[0] < MAP_FLOOR:
        said.append(
            f"the teacher does not look trained on these data: its mAP50 on a few validation images is {found[0]:.3f}, "
            f"below {MAP_FLOOR:g}"
        )
    return QualityFacts(*found, BATCHES * (args.batch if args.batch >= 1 else 16), MAP_FLOOR)


def _memory(plan: Plan, student: Any, distiller: Distiller | None) -> MemoryFacts:
    """Measure one image in float32 on the CPU, and estimate a step from it."""
    batch = sample_batch(dense_head(student, "the student"), int(plan.data["channels"]), plan.imgsz)
    kept = kept_for_backward(student, distiller, batch)
    return expected_memory(student, distiller, plan.args, kept, plan.imgsz, plan.devices, plan.amp)
