"""Preparation of a probe: the models, the data and the distiller of a run, without the run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER

from ds2d2_yolo.bridge.data.security import refuse_code_in_data, safe_loading
from ds2d2_yolo.bridge.distillation.build import build_distiller
from ds2d2_yolo.bridge.distillation.probing.probe import Probe, Prober
from ds2d2_yolo.bridge.distillation.teacher_size import share_batch
from ds2d2_yolo.bridge.models.adapters import get_adapters
from ds2d2_yolo.bridge.models.heads import dense_head
from ds2d2_yolo.bridge.models.loading import build_student, load_student
from ds2d2_yolo.bridge.preflight.prepared_run import PreparedRun, refuse_rounded
from ds2d2_yolo.bridge.training.setup.run_setup import load_checked_amplifier, prepare_run
from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
from ds2d2_yolo.bridge.upstream.devices import cpu_threads
from ds2d2_yolo.bridge.upstream.logging import quiet
from ds2d2_yolo.bridge.upstream.read_only import images_read_only
from ds2d2_yolo.bridge.upstream.rng_state import preserve_rng
from ds2d2_yolo.config.options import check_keys
from ds2d2_yolo.config.recipes import resolve_settings
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.config.settings import Settings, Term
from ds2d2_yolo.errors import BadUseError


@cpu_threads()
def probe(
    teacher: str, student: str, data: str, images: int = 24, imgsz: int = 320, batch: int = 8, seed: int = 0,
    **keys: Any,
) -> Probe:  # fmt: skip
    """Measure where the terms of a pair of models act, on some training images without augmentation.

    The pair is prepared as a run prepares it. No amplifier is trained: `imhi` is left out unless `amplifier` is given.

    Args:
        teacher (str): Trained checkpoint, or a release's name.
        student (str): Checkpoint, which may be the last.pt of an unfinished run: it holds the adapters. A model YAML
            is a random start. Without adapters in the checkpoint they are random, as at the start of a run.
        data (str): Data-set YAML.
        images (int): Training images, chosen at random by the seed; the last incomplete batch is left out.
        imgsz (int): Side of the student's images in pixels; `teacher_imgsz` among the keys is that of the teacher's.
        batch (int): Images in a batch.
        seed (int): Seed of the images, of a random student and of random adapters.
        **keys (Any): DS2D2 settings, and Ultralytics settings of the run such as `device`, `classes` or `single_cls`.

    Returns:
        (Probe): The measurements.

    Raises:
        BadUseError: If anything does not fit.
    """
    if images < 1 or batch < 1:
        raise BadUseError(f"images={images} and batch={batch} have to be at least 1")
    check_keys(list(keys), {*Settings.keys(), *DEFAULT_CFG_KEYS} - {"model", "mode", "task", "resume", "cfg"})
    labelled_only = {**keys, "teacher": str(teacher), "unlabelled": False}
    ds2d2_args, ultralytics_args = Settings.split(labelled_only)
    settings = resolve_settings(ds2d2_args)
    if Term.IMHI in settings.active and not settings.amplifier:
        LOGGER.warning("DS2D2: imhi is left out, since no amplifier= is given")
        settings = resolve_settings({**ds2d2_args, "imhi": 0})
    if not settings.active:
        raise BadUseError("no term is on: there is nothing to measure")
    sizes = {"imgsz": imgsz, "batch": batch, "seed": seed, "data": resolve_data(str(data))}
    validate_ultralytics_args({**ultralytics_args, **sizes})
    with preserve_rng(), safe_loading(settings.safe), images_read_only():
        if settings.safe:
            refuse_code_in_data(str(sizes["data"]))
        source = load_student(student)
        names = {"model": student, "task": source.task, "mode": "train", "rect": False}
        run = prepare_run(get_cfg(overrides={**ultralytics_args, **sizes, **names}), settings)
        prober = _prober(run, get_adapters(source.model))
        refuse_rounded(run, size := run.imgsz(prober.model))
        return prober.measure(_batches(run, size, images))


def _prober(run: PreparedRun, adapters: nn.ModuleList | None) -> Prober:
    """Build student and distiller of a prepared run, with the adapters of the student's checkpoint if it holds any."""
    torch.manual_seed(run.args.seed)  # of a student without weights
    model = build_student(run.args, run.data)
    model.args = run.args
    amplifier = run.amplifier_path if "imhi" in run.settings.active else None
    distiller = build_distiller(
        dense_head(model, "the student"),
        run.teacher,
        run.settings,
        class_map=run.class_map,
        amplifier_state=None if amplifier is None else load_checked_amplifier(run, amplifier),
        seed=run.args.seed,
        ratio=run.size_ratio,
    )
    if adapters is None:
        LOGGER.info("DS2D2: the student holds no adapters, they are random as at the start of a run")
    else:
        try:
            distiller.adapters.load_state_dict(adapters.float().state_dict())
        except RuntimeError as e:
            raise BadUseError(
                f"student={run.args.model} holds adapters for another teacher or other levels: name the teacher and "
                "the levels of its run"
            ) from e
    return Prober(model.to(run.device).train(), distiller.to(run.device))


def _batches(run: PreparedRun, imgsz: int, images: int) -> Iterator[dict[str, Any]]:
    """Yield batches of training images without augmentation, of one shape."""
    args = copy(run.args)
    args.imgsz, args.split = run.size_ratio * imgsz, "train"  # the split decides which images `fraction` leaves out
    with quiet(logging.WARNING):
        # any mode but 'train' leaves out the augmentations
        dataset = build_yolo_dataset(args, run.data["train"], args.batch, run.data, mode="val")
    generator = torch.Generator().manual_seed(args.seed)
    chosen = torch.randperm(len(dataset), generator=generator)[:images].tolist()
    size = min(args.batch, len(chosen))
    groups = [chosen[i : i + size] for i in range(0, len(chosen) - size + 1, size)]
    for batch in DataLoader(dataset, batch_sampler=groups, num_workers=0, collate_fn=dataset.collate_fn):
        on_device = {k: v.to(run.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        yield share_batch({**on_device, "img": on_device["img"].float() / 255}, run.size_ratio)
