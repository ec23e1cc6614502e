"""A validator that matches classes by name where model and data number the same names differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.utils import LOGGER
from ultralytics.utils.metrics import ConfusionMatrix

from ds2d2_yolo.bridge.data.class_map import ClassMap, class_names, join_names, match_classes
from ds2d2_yolo.bridge.validation.no_time_limit import NoTimeLimitValidator


def reindexed_classes(model: Sequence[str], data: Sequence[str]) -> ClassMap | None:
    """Return how classes are matched by name, None if every shared name has the same index on both sides.

    Args:
        model (Sequence[str]): The model's classes, in the order of its outputs.
        data (Sequence[str]): The data's classes, in the order of their indices.

    Returns:
        (ClassMap | None): The pairs; None also where no name is shared.
    """
    class_map = match_classes(model, data)
    return None if all(d == m for d, m in class_map.pairs) else class_map


def class_warning(
    model: Sequence[str], data: Sequence[str], classes: Sequence[int] | int | None = None
) -> str | None:  # fmt: skip
    """Return a warning if the names of a model's and a data set's classes differ.

    Args:
        model (Sequence[str]): The model's classes, in the order of its outputs.
        data (Sequence[str]): The data's classes, in the order of their indices.
        classes (Sequence[int] | int | None): The data's indices that are validated (Ultralytics' `classes=`), None is
            all.

    Returns:
        (str | None): The way in which classes are compared; None if names and indices agree on all that both have.
    """
    if class_map := reindexed_classes(model, data):
        matched = {d for d, _ in class_map.pairs}
        unknown = [name for i, name in enumerate(data) if i not in matched]
        left_out = f"; the model has no {join_names(unknown)}, whose objects are left out" if unknown else ""
        return f"Classes are matched by name, model and data have them under different indices{left_out}."
    validated = range(len(data)) if classes is None else [classes] if isinstance(classes, int) else classes
    differing = [
        f"data '{data[i]}' as model '{model[i]}'"
        for i in validated
        if 0 <= i < min(len(data), len(model)) and not match_classes([model[i]], [data[i]]).pairs
    ]
    if not differing:
        return None
    return f"Classes are compared by index, but their names differ: {join_names(differing)}."


class ClassNameValidator(NoTimeLimitValidator):
    """Ultralytics' validator, except that a detection never counts for a class of another name that the model has too.

    Ultralytics compares indices. Where a name that model and data share has two indices, that measures nothing, and the
    detections get the data's indices here. Detections of classes that the data lack are dropped, and so are the labels
    of classes that the model lacks, as in Ultralytics. Where no name or only names at equal indices are shared, indices
    are compared as in Ultralytics, and a warning lists the pairs of different names.

    Attributes:
        reindexed (ClassMap | None): The data's classes and the model's, None where indices are compared.
    """

    reindexed: ClassMap | None = None
    names: Any

    def get_dataloader(self, dataset_path: str, batch_size: int) -> DataLoader[dict[str, Any]]:
        """Return the batches, without labels that the model has no class for.

        Args:
            dataset_path (str): Images of the split.
            batch_size (int): Images in a batch.

        Returns:
            (DataLoader): Ultralytics' loader.
        """
        names = self.names
        self._match(names)
        data = class_names(self.data["names"])
        if not self.args.single_cls and (warning := class_warning(class_names(names), data, self.args.classes)):
            LOGGER.warning(warning)
        if self.reindexed:
            self.names = None  # Ultralytics would drop labels by the model's indices
        loader = super().get_dataloader(dataset_path, batch_size)
        self.names = names
        return loader

    def build_dataset(self, img_path: str, mode: str = "val", batch: int | None = None) -> YOLODataset:
        """Return the images, with labels of the matched classes only.

        Args:
            img_path (str): Images of the split.
            mode (str): Ultralytics' mode of the augmentation.
            batch (int | None): Images in a batch.

        Returns:
            (YOLODataset): The data set.
        """
        dataset = super().build_dataset(img_path, mode, batch)
        if self.reindexed:
            dataset.update_labels([d for d, _ in self.reindexed.pairs])
        return dataset

    def init_metrics(self, model: nn.Module) -> None:
        """Start the metrics, under the data's class names where detections get the data's indices.

        Args:
            model (nn.Module): The model, with `names`.
        """
        super().init_metrics(model)
        self._match(model.names)
        if not self.reindexed:
            return
        self.data_index = torch.full((len(self.reindexed.teacher),), -1.0)
        for data_index, model_index in self.reindexed.pairs:
            self.data_index[model_index] = data_index
        self.names = self.metrics.names = dict(enumerate(self.reindexed.data))
        if not self.is_coco:  # COCO's category numbers are not the indices
            self.class_map = list(range(1, len(self.names) + 1))
        if self.build_gdict:
            self.gdict["categories"] = [{"id": i} for i in self.class_map]
        task, save_matches = str(self.args.task), self.args.plots and self.args.visualize
        self.confusion_matrix = ConfusionMatrix(self.names, task=task, save_matches=save_matches)

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """Return the detections of each image under the data's class indices.

        Args:
            preds (Any): Output of the model.

        Returns:
            (list[dict[str, Tensor]]): For each image `bboxes`, `conf` and `cls` of Ultralytics.
        """
        images: list[dict[str, Tensor]] = super().postprocess(preds)
        if not self.reindexed:
            return images
        table = self.data_index.to(self.device)
        renamed = ({**image, "cls": table[image["cls"].long()]} for image in images)
        return [{k: v[image["cls"] >= 0] for k, v in image.items()} for image in renamed]

    def _match(self, names: Any) -> None:
        """Match the model's classes to the data's."""
        data = class_names(self.data["names"])
        self.reindexed = None if self.args.single_cls else reindexed_classes(class_names(names), data)


class ClassNameOBBValidator(ClassNameValidator, OBBValidator):
    """The same for oriented boxes."""


VALIDATORS = {"detect": ClassNameValidator, "obb": ClassNameOBBValidator}
