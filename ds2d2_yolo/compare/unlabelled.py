"""Unlabelled images in a comparison: which arms take them, and the batch of those that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ds2d2_yolo.compare.arms import Arm
from ds2d2_yolo.config.batch_parts import BatchParts
from ds2d2_yolo.config.recipes import resolve_settings
from ds2d2_yolo.errors import BadUseError

KEYS = ("unlabelled", "unlabelled_share", "unlabelled_conf")
PSEUDO_LABEL_KEYS = (*KEYS, "teacher_imgsz")  # DS2D2 settings of the arm `pseudo_labels`
PSEUDO_LABELS = "pseudo_labels"  # kind and name of the arm that trains on the teacher's detections
PLAIN_STUDENT = {"gains": 0}  # settings of DS2D2 without a term
FOLDER = "pseudo-labels"  # of their images and labels, in the comparison's folder


def pseudo_label_settings(arms: Sequence[Arm], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the arm `pseudo_labels`: the command's unlabelled images and size of the teacher.

    Args:
        arms (Sequence[Arm]): Arms of the comparison.
        shared (Mapping[str, Any]): DS2D2 settings of the command.

    Returns:
        (dict[str, Any]): Empty if the arm is not among them.

    Raises:
        BadUseError: If it has no images.
    """
    if all(arm.kind != PSEUDO_LABELS for arm in arms):
        return {}
    if not shared.get("unlabelled"):
        raise BadUseError("arm pseudo_labels trains on unlabelled images: give unlabelled=, or leave that arm out")
    resolved = resolve_settings({key: shared[key] for key in PSEUDO_LABEL_KEYS if key in shared})
    return {key: getattr(resolved, key) for key in PSEUDO_LABEL_KEYS}


def takes_unlabelled(arm: Arm, settings: Mapping[str, Any]) -> bool:
    """Return whether an arm trains on unlabelled images.

    Args:
        arm (Arm): The arm.
        settings (Mapping[str, Any]): Its settings.

    Returns:
        (bool): True for `pseudo_labels`, and for arms of DS2D2 with `unlabelled=`.
    """
    return arm.kind == PSEUDO_LABELS or (arm.kind == "ds2d2" and bool(resolve_settings(settings).unlabelled))


def labelled_batch(
    arms: Sequence[Arm], settings: Mapping[str, Mapping[str, Any]], shared: Mapping[str, Any], batch: int
) -> int | None:
    """Return the labelled images of a batch: the batch of all arms without unlabelled images.

    All arms then train the same number of steps, on the same labelled images in the same order.

    Args:
        arms (Sequence[Arm]): Arms of the comparison.
        settings (Mapping[str, Mapping[str, Any]]): Settings of each arm.
        shared (Mapping[str, Any]): DS2D2 settings of the command. With `unlabelled=` they decide for all arms, also
            where the arms that take the images are run by another command.
        batch (int): Images of a batch.

    Returns:
        (int | None): None if neither the command nor an arm has unlabelled images.

    Raises:
        BadUseError: If arms differ in it, or if a batch cannot hold both kinds.
    """
    parts: dict[int, str] = {}
    if shared.get("unlabelled"):
        share = resolve_settings({key: shared[key] for key in KEYS if key in shared}).unlabelled_share
        parts[BatchParts.of(batch, share).labelled] = "the command"
    for arm in arms:
        if takes_unlabelled(arm, settings[arm.name]):
            share = resolve_settings(settings[arm.name]).unlabelled_share
            parts.setdefault(BatchParts.of(batch, share).labelled, arm.name)
    if len(parts) > 1:
        numbers = ", ".join(f"{name} with {number}" for number, name in parts.items())
        raise BadUseError(
            f"the arms differ in the labelled images of a batch ({numbers}), so that their steps differ: give one "
            "unlabelled_share= for all"
        )
    return next(iter(parts), None)
