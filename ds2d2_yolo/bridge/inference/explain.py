"""`explain`: what the terms of the method see in a few images of a data set, for a teacher and a trained student."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.data import build_yolo_dataset

from ds2d2_yolo.bridge.data.class_map import class_names
from ds2d2_yolo.bridge.data.dataset import load_data
from ds2d2_yolo.bridge.data.images import label_paths, list_images
from ds2d2_yolo.bridge.data.label_checks import SPLITS, check_split
from ds2d2_yolo.bridge.data.security import refuse_code_in_data, refuse_program, safe_loading
from ds2d2_yolo.bridge.distillation.targets import Targets
from ds2d2_yolo.bridge.inference.explained_pair import ExplainedPair, load_pair
from ds2d2_yolo.bridge.inference.image_maps import FeaturePair, amplifier_maps, explicit_values, level_maps
from ds2d2_yolo.bridge.inference.tile_detector import run_folders
from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
from ds2d2_yolo.bridge.upstream.devices import check_device, cpu_threads
from ds2d2_yolo.bridge.upstream.logging import quiet
from ds2d2_yolo.bridge.upstream.read_only import images_read_only
from ds2d2_yolo.bridge.upstream.rng_state import preserve_rng
from ds2d2_yolo.bridge.validation.recording import to_xywhr
from ds2d2_yolo.config.checks import words
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.core.explained_variance import explained_variance
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.explanation.facts import Boxes, Explanation, ExplanationFiles, ImageExplanation
from ds2d2_yolo.explanation.options import ULTRALYTICS_KEYS, ExplainOptions
from ds2d2_yolo.explanation.page import write_explanation
from ds2d2_yolo.utils.detections import Detections
from ds2d2_yolo.utils.sampling import choose_varied, evenly_spaced

EXAMPLE = "ds2d2-yolo explain teacher=T.pt student=runs/train/weights/best.pt data=D.yaml"
DEFAULT_CONF = 0.25


@cpu_threads()
def explain(
    teacher: str | Path | None = None, student: str | Path | None = None, data: str | Path | None = None, **keys: Any
) -> ExplanationFiles:
    """Draw a sheet for each of a few images: what the terms of the method see in a teacher and a trained student.

    Args:
        teacher (str | Path | None): Trained checkpoint, or a release's name that Ultralytics downloads.
        student (str | Path | None): Trained checkpoint of the same task, distilled or not.
        data (str | Path | None): Data-set YAML.
        **keys (Any): Further options, see `ExplainOptions`, and Ultralytics' `ULTRALYTICS_KEYS`.

    Returns:
        (ExplanationFiles): The HTML page and the pictures.

    Raises:
        BadUseError: If anything does not fit, before a picture is drawn.

    Examples:
        >>> from ds2d2_yolo import explain
        >>> explain("teacher.pt", "runs/obb/train/weights/best.pt", "hit-uav.yaml", imgsz=640)  # doctest: +SKIP
    """
    named = {"teacher": teacher, "student": student, "data": data}
    options = ExplainOptions.of({**keys, **named}, "explain", ULTRALYTICS_KEYS)
    ultralytics_args = ExplainOptions.split(keys)[1]
    validate_ultralytics_args(ultralytics_args)
    if missing := [f"{key}=" for key, value in named.items() if value is None]:
        raise BadUseError(f"{', '.join(missing)} missing: {EXAMPLE}")
    device = check_device(ultralytics_args.get("device"))
    with safe_loading(options.safe):
        if options.safe:
            refuse_program(str(options.student))
            refuse_code_in_data(str(options.data))
        explanation, task = explain_pair(options, ultralytics_args, device)
    folder, _ = run_folders(task, {"name": "explain", **ultralytics_args})
    return write_explanation(explanation, folder)


def explain_pair(
    options: ExplainOptions, ultralytics_args: Mapping[str, Any], device: torch.device
) -> tuple[Explanation, str]:
    """Compute the arrays of the sheets. The random state stays as it is.

    Args:
        options (ExplainOptions): With teacher, student and data.
        ultralytics_args (Mapping[str, Any]): Ultralytics' settings, of which split, imgsz and conf count.
        device (torch.device): Device of the models.

    Returns:
        explanation (Explanation): For the sheets.
        task (str): 'detect' or 'obb'.

    Raises:
        BadUseError: If models and data do not fit each other, or there are no images.
    """
    overrides = {key: value for key, value in ultralytics_args.items() if key in ("split", "conf")}
    imgsz = ultralytics_args.get("imgsz")
    with images_read_only(), preserve_rng(), quiet():
        args = get_cfg(overrides={"conf": DEFAULT_CONF, **overrides, "data": resolve_data(str(options.data))})
        dataset = load_data(args)
        side = imgsz if imgsz is None or isinstance(imgsz, int) else max(imgsz)
        pair = load_pair(options, dataset.get("channels", 3), device, side)
        args.task, args.imgsz = pair.task, pair.imgsz
        images = _split_images(args, dataset)
        samples = _chosen_samples(options, args, dataset)
        shown = [Path(sample["im_file"]) for sample in samples]
        fit_images, fit_split = _fit_images(dataset, args.split, images, shown, options.fit_images)
        fitted_to = f"{pair.fit(fit_images)} images of split={fit_split}"
        return _explanation(pair, args, dataset, samples, fitted_to), pair.task


def _split_images(args: Namespace, dataset: dict[str, Any]) -> list[Path]:
    """Return the images of the split, checked as a validation checks them."""
    split = dataset.get(args.split)
    images = list_images(split) if split else []
    if not images:
        raise BadUseError(f"data={args.data} has no images for split={args.split}: check that entry of the YAML")
    if not any(file.is_file() for file in label_paths(images)):
        raise BadUseError(f"no labels for the {len(images)} images of split={args.split}: the sheets need objects")
    check_split(dataset, images, args.task, "an obb model", SPLITS.get(args.split, args.split))
    return images


def _chosen_samples(options: ExplainOptions, args: Namespace, dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the chosen images as Ultralytics' validation reads them: letterboxed, with their boxes."""
    samples = build_yolo_dataset(args, dataset[args.split], 1, dataset, mode="val")
    files = [Path(label["im_file"]) for label in samples.labels]
    if isinstance(options.images, int):
        classes = [label["cls"].reshape(-1).astype(np.int64) for label in samples.labels]
        chosen = choose_varied(range(len(files)), classes, options.images)
    else:
        chosen = [_index_of(name, files, args.split) for name in words(options.images)]
    return [samples[i] for i in chosen]


def _index_of(name: str, files: Sequence[Path], split: str) -> int:
    """Return the index of the image of this name, with or without its folder and ending."""
    for i, file in enumerate(files):
        if name in (file.name, file.stem) or Path(name).absolute() == file.absolute():
            return i
    example = f", which has {len(files)} such as {files[0].name}"
    raise BadUseError(f"images={name} is no usable image of split={split}{example}")


def _fit_images(
    dataset: dict[str, Any], split: str, images: Sequence[Path], shown: Sequence[Path], count: int
) -> tuple[list[Path], str]:
    """Return the images to which the adapters are fitted and their split.

    They are training images, or the split's if there are none, without those that are shown unless no other is left.
    """
    training = [i for i in list_images(dataset.get("train")) if i.is_file()]
    split, every = ("train", training) if training else (split, list(images))
    others = [i for i in every if i not in set(shown)] or every
    return evenly_spaced(others, count), split


def _explanation(
    pair: ExplainedPair, args: Namespace, dataset: dict[str, Any], samples: list[dict[str, Any]], fitted_to: str
) -> Explanation:
    """Return the arrays of all images."""
    names = class_names(dataset["names"])
    inputs = [sample["img"][None].float() / 255 for sample in samples]
    features = [FeaturePair.of(pair.distiller, *pair.features(x)) for x in inputs]
    for sample, pair_of_image in zip(samples, features, strict=True):
        if not pair_of_image.finite:
            raise DS2D2Error(f"the features of teacher or student in {sample['im_file']} are not finite")
    images = tuple(
        _image_explanation(pair, args.conf, names, sample, x, f)
        for sample, x, f in zip(samples, inputs, features, strict=True)
    )
    classes = dict.fromkeys((*names, *(x for i in images for b in (i.teacher, i.student) for x in b.labels)))
    return Explanation(
        pair.teacher.path, pair.student.path, str(args.data), args.split, pair.imgsz, args.conf,
        pair.distiller.settings.wavelet, tuple(classes), pair.shared, fitted_to, _r2(features), pair.no_amplifier,
        images,
    )  # fmt: skip


def _r2(features: Sequence[FeaturePair]) -> tuple[float, ...]:
    """Return R^2 of A S for T by level, over the features of several images."""
    levels = range(len(features[0].teacher))
    return tuple(
        explained_variance(
            torch.cat([f.adapted[i] for f in features]), torch.cat([f.teacher[i] for f in features])
        ).item()
        for i in levels
    )


def _image_explanation(
    pair: ExplainedPair,
    conf: float,
    names: tuple[str, ...],
    sample: dict[str, Any],
    inputs: Tensor,
    features: FeaturePair,
) -> ImageExplanation:
    """Return the arrays of one image."""
    height, width = inputs.shape[2:]
    truth = _truth(sample, names, width, height, pair.student.rotated)
    boxes = _target_boxes(sample["bboxes"], width, height)[None].to(pair.device)
    targets = Targets(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool, device=pair.device))
    levels = level_maps(pair.distiller, features, targets)
    amplifiers, values = amplifier_maps(pair.distiller, features, truth.corners)
    detected = {
        which: _named(pair.detections(which, inputs, conf)[0], labels)
        for which, labels in (("teacher", _teacher_labels(pair)), ("student", pair.student.names))
    }
    left, top = sample["ratio_pad"][1]
    area = (left, top, width - left, height - top)
    return ImageExplanation(
        Path(sample["im_file"]).name, _rgb(sample["img"]), area, truth, detected["teacher"], detected["student"],
        levels, amplifiers, {**explicit_values(levels), **values},
    )  # fmt: skip


def _target_boxes(boxes: Tensor, width: int, height: int) -> Tensor:
    """Return normalised x, y, w, h (and angle) as the assigner gets them: xyxy, or xywhr, in pixels."""
    pixels = boxes.float().clone()
    pixels[:, [0, 2]] *= width
    pixels[:, [1, 3]] *= height
    if pixels.shape[1] == 5:
        return pixels
    centre, half = pixels[:, :2], pixels[:, 2:] / 2
    return torch.cat((centre - half, centre + half), 1)


def _truth(sample: dict[str, Any], names: tuple[str, ...], width: int, height: int, rotated: bool) -> Boxes:
    """Return the labelled boxes of an image."""
    boxes = to_xywhr(_target_boxes(sample["bboxes"], width, height))
    classes = sample["cls"].reshape(-1).numpy().astype(np.int64)
    return _named(Detections(boxes.astype(np.float64), np.ones(len(boxes)), classes, rotated), names)


def _named(detections: Detections, names: Sequence[str]) -> Boxes:
    """Return detections with the names of their classes."""
    return Boxes(detections.corners, tuple(names[k] for k in detections.classes), detections.scores)


def _teacher_labels(pair: ExplainedPair) -> tuple[str, ...]:
    """Return the teacher's class names, those that it shares with the student as the student writes them."""
    shared = {teacher: pair.student.names[student] for student, teacher in pair.class_map.pairs}
    return tuple(shared.get(i, name) for i, name in enumerate(pair.teacher.names))


def _rgb(image: Tensor) -> Any:
    """Return an image of any number of channels as H x W x 3: its first three, or the first one as grey."""
    pixels = image.permute(1, 2, 0).numpy().astype(np.uint8)
    return pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
