"""The task loss of a batch whose later rows have no labels. Not part of the published method."""

from __future__ import annotations

from typing import Any

from torch import Tensor

LABELLED = "labelled"  # key of a batch: B bool on the host, the labelled rows come first; missing where all have labels
LOSS_IMAGES = "loss_images"  # key of a batch: images that the losses are multiplied by


def labelled_count(batch: dict[str, Any]) -> int:
    """Return the number of labelled images of a batch.

    Args:
        batch (dict[str, Any]): Ultralytics' batch.

    Returns:
        (int): All images where the batch does not say.
    """
    return int(batch[LABELLED].sum()) if LABELLED in batch else len(batch["img"])


def loss_images(batch: dict[str, Any]) -> int:
    """Return the number of images by which the losses of a batch are multiplied.

    Ultralytics multiplies the mean loss of an image by the batch size. Unlabelled images do not count in it: the
    optimizer sees gradients as long as those of a batch of the labelled images, and the shares of the terms hold.

    Args:
        batch (dict[str, Any]): Ultralytics' batch.

    Returns:
        (int): The batch size where the batch does not say.
    """
    return int(batch.get(LOSS_IMAGES, len(batch["img"])))


def task_loss(criterion: Any, outputs: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the student's usual loss of the labelled images of a batch, times `loss_images`.

    Args:
        criterion (Any): The student's usual criterion.
        outputs (Any): Raw outputs of the student's head for all images.
        batch (dict[str, Any]): The batch; `batch_idx` names labelled rows only, which come first.

    Returns:
        loss (Tensor): The loss vector as Ultralytics returns it.
        items (dict[str, Tensor]): Its detached parts, means of an image.
    """
    if LABELLED not in batch:
        loss, items = criterion(outputs, batch)
        return loss, items
    rows, count = len(batch["img"]), labelled_count(batch)
    if count < rows:
        outputs, batch = first_rows(outputs, rows, count), {**batch, "img": batch["img"][:count]}
    loss, items = criterion(outputs, batch)
    return (loss if loss_images(batch) == count else loss * (loss_images(batch) / count)), items


def first_rows(outputs: Any, rows: int, count: int) -> Any:
    """Return the outputs of the first images of a batch.

    Args:
        outputs (Any): Nested tensors of a head.
        rows (int): Images of the batch.
        count (int): Images to take.

    Returns:
        (Any): The same nesting; views of the tensors with a row for each image, other values as they are.
    """
    if isinstance(outputs, Tensor):
        return outputs[:count] if outputs.ndim and outputs.shape[0] == rows else outputs
    if isinstance(outputs, dict):
        return {key: first_rows(value, rows, count) for key, value in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return type(outputs)(first_rows(value, rows, count) for value in outputs)
    return outputs
