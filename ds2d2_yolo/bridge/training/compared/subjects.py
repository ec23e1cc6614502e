"""What a comparison is about: teacher, student and data, loaded, checked and hashed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset
from ultralytics.utils import LOGGER

from ds2d2_yolo.bridge.data.class_map import match_run_classes
from ds2d2_yolo.bridge.data.dataset import data_hash, load_data
from ds2d2_yolo.bridge.data.label_checks import check_labels
from ds2d2_yolo.bridge.data.unlabelled.selection import UnlabelledImages
from ds2d2_yolo.bridge.data.unlabelled.sources import list_unlabelled, resolve_sources
from ds2d2_yolo.bridge.distillation.rivals.build import check_rival
from ds2d2_yolo.bridge.models.heads import dense_head, strides_of
from ds2d2_yolo.bridge.models.loading import check_freeze, check_pretrained, load_student
from ds2d2_yolo.bridge.models.teacher import load_teacher, state_hash
from ds2d2_yolo.bridge.preflight.prepared_run import USUAL_STRIDE
from ds2d2_yolo.bridge.training.hooks.image_size import refuse_uneven
from ds2d2_yolo.bridge.training.setup.unsupported import refuse_quantize
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.errors import BadUseError


@dataclass(frozen=True)
class Subjects:
    """Teacher, student and data of a comparison, resolved and hashed.

    Attributes:
        task (str): 'detect' or 'obb'.
        teacher (str): Absolute path of the teacher.
        data (str): Path of the data YAML.
        teacher_hash (str): SHA-256 of its weights, as all below its first 12 digits.
        student_hash (str): Of the student's architecture, and of its weights where it comes with some.
        data_hash (str): Of the training split, see `data.data_hash`.
        val_hash (str): Of the split that is measured.
    """

    task: str
    teacher: str
    data: str
    teacher_hash: str
    student_hash: str
    data_hash: str
    val_hash: str


def identify(
    teacher: str, student: str, data: str, keys: Mapping[str, Any], upstream: bool, mixed: bool = True,
    rivals: Collection[str] = (),
) -> Subjects:  # fmt: skip
    """Load and check what a comparison is about, and read the labels so that its runs find their cache.

    Args:
        teacher (str): Teacher, as Ultralytics resolves its name.
        student (str): Student, likewise.
        data (str): Data YAML.
        keys (Mapping[str, Any]): Ultralytics' settings of all arms.
        upstream (bool): Whether Ultralytics' own distillation is among the arms: it pairs levels by their order.
        mixed (bool): Whether there are arms of DS2D2 or rivals and others: their image sizes have to be the same.
        rivals (Collection[str]): The rivals among the arms, keys of `config.rivals.RIVALS`.

    Returns:
        (Subjects): Resolved.

    Raises:
        BadUseError: If anything is missing, unreadable or does not fit the rest.
    """
    model = load_student(student)
    loaded = load_teacher(teacher, model.task)
    heads = [dense_head(m, "model") for m in (loaded.model, model.model)]
    levels = [len(strides_of(head)) for head in heads]
    if upstream and levels[0] != levels[1]:
        raise BadUseError(
            f"arm distill_model: Ultralytics wants as many levels in the teacher ({levels[0]}) as in the student "
            f"({levels[1]}): leave that arm out"
        )
    for rival in rivals:
        check_rival(rival, heads[1], heads[0])
    args = get_cfg(overrides={**keys, "task": model.task, "data": resolve_data(data), "cache": False})
    check_pretrained(args.pretrained)
    check_freeze(model.model, args.freeze)
    refuse_quantize(args)
    stride = max(int(max(strides_of(dense_head(model.model, "student")))), USUAL_STRIDE)
    if mixed:
        refuse_uneven(args, stride, int(max(loaded.strides)))
    data_set = load_data(args)
    check_labels(data_set, model.task, args.split, args.fraction)
    match_run_classes(loaded.names, data_set, args)  # refuses classes= that the data do not have
    yaml = {k: v for k, v in model.model.yaml.items() if k != "yaml_file"}
    hashed = {"yaml": yaml} if not model.ckpt else {"weights": state_hash(model.model)}
    digest = hashlib.sha256(json.dumps(hashed, sort_keys=True, default=str).encode()).hexdigest()
    _read_labels(args, data_set, stride)
    hashes = loaded.sha256, digest, data_hash(data_set), data_hash({**data_set, "train": data_set[args.split]})
    return Subjects(model.task, loaded.path, str(args.data), *(h[:12] for h in hashes))


def unlabelled_hash(value: Any, subjects: Mapping[str, str], keys: Mapping[str, Any]) -> str:
    """Return the hash of the unlabelled images of an arm.

    Args:
        value (Any): `unlabelled=` of the arm.
        subjects (Mapping[str, str]): Fields of `Subjects`.
        keys (Mapping[str, Any]): Ultralytics' settings of all arms.

    Returns:
        (str): 12 digits of the hash of names and sizes of all listed images, those left out included.

    Raises:
        BadUseError: If there is no such image.
    """
    args = get_cfg(overrides={**keys, "task": subjects["task"], "data": subjects["data"]})
    data_set = load_data(args)
    sources = resolve_sources(value, data_set)
    if sources is None:
        raise BadUseError("unlabelled=True takes the key 'unlabelled' of the data YAML, which has none")
    listed = list_unlabelled(sources, data_set, args)
    return UnlabelledImages(tuple(image for image in listed if image.is_file())).sha256[:12]


def _read_labels(args: Any, data: dict[str, Any], stride: int) -> None:
    """Have Ultralytics read the labels once: runs that begin together would all write the same cache file."""
    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        for split, mode in ((data["train"], "train"), (data[args.split], "val")):
            build_yolo_dataset(args, split, 1, data, mode=mode, rect=False, stride=stride)
    finally:
        LOGGER.setLevel(level)
