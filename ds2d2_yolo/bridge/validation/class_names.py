"""Validation of a model whose classes have other indices in the data: by name, as distillation pairs them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.utils import LOGGER
from ultralytics.utils.metrics import ConfusionMatrix

from ds2d2_yolo.bridge.data.class_map import ClassMap, class_names, join_names, match_classes
from ds2d2_yolo.bridge.validation.no_time_limit import PatientValidator


class ByNameValidator(PatientValidator):
    """Ultralytics' validator, but that no class is taken for another one of the data.

    Ultralytics compares indices. Where a name that model and data share has two indices, that measures nothing, and the
    detections get the data's indices here. Those of classes that the data have not are dropped, and so are the labels
    of classes that the model has not, as Ultralytics does. Everywhere else, also where no name or only names at equal
    indices are shared, it is Ultralytics' validation, of `PatientValidator`.

    Attributes:
        moved (ClassMap | None): The data's classes and the model's, None where their indices stay.
    """

    moved: ClassMap | None = None
    names: Any

    def get_dataloader(self, dataset_path: str, batch_size: int) -> DataLoader[dict[str, Any]]:
        """Return the batches, without labels that the model has no class for."""
        names = self.names
        self._compare(names)
        if self.moved:
            matched = {mine for mine, _ in self.moved.pairs}
            lacking = [name for i, name in enumerate(self.moved.data) if i not in matched]
            said = f"; the model has no {join_names(lacking)}, whose objects are left out" if lacking else ""
            LOGGER.warning(f"Classes are matched by name, model and data have them under different indices{said}.")
            self.names = None  # Ultralytics would drop labels by the model's indices
        loader = super().get_dataloader(dataset_path, batch_size)
        self.names = names
        return loader

    def build_dataset(self, img_path: str, mode: str = "val", batch: int | None = None) -> YOLODataset:
        """Return the images with the labels that count."""
        dataset = super().build_dataset(img_path, mode, batch)
        if self.moved:
            dataset.update_labels([mine for mine, _ in self.moved.pairs])
        return dataset

    def init_metrics(self, model: nn.Module) -> None:
        """Start; names in metrics and files are the data's where indices change."""
        super().init_metrics(model)
        self._compare(model.names)
        if not self.moved:
            return
        self.data_index = torch.full((len(self.moved.teacher),), -1.0)
        for mine, theirs in self.moved.pairs:
            self.data_index[theirs] = mine
        self.names = self.metrics.names = dict(enumerate(self.moved.data))
        if not self.is_coco:  # whose results have numbers of their own
            self.class_map = list(range(1, len(self.names) + 1))
        if self.build_gdict:
            self.gdict["categories"] = [{"id": i} for i in self.class_map]
        task, keep = str(self.args.task), self.args.plots and self.args.visualize
        self.confusion_matrix = ConfusionMatrix(self.names, task=task, save_matches=keep)

    def postprocess(self, preds: Any) -> list[dict[str, Tensor]]:
        """Return the detections under the data's class indices."""
        found: list[dict[str, Tensor]] = super().postprocess(preds)
        if not self.moved:
            return found
        table = self.data_index.to(self.device)
        renamed = ({**image, "cls": table[image["cls"].long()]} for image in found)
        return [{k: v[image["cls"] >= 0] for k, v in image.items()} for image in renamed]

    def _compare(self, names: Any) -> None:
        """Find out whether a class of the model, by its names, has another index in the data."""
        found = match_classes(class_names(names), class_names(self.data["names"]))
        equal = all(mine == theirs for mine, theirs in found.pairs)
        self.moved = None if equal or self.args.single_cls else found


class ByNameOBBValidator(ByNameValidator, OBBValidator):
    """The same for oriented boxes."""


VALIDATORS = {"detect": ByNameValidator, "obb": ByNameOBBValidator}
