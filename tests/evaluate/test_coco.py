"""AP by size against COCO's own evaluation."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

from ds2d2_yolo.bridge.validation.recording import MatchedDetections
from ds2d2_yolo.evaluate.metrics import measure_groups
from ds2d2_yolo.evaluate.options import ValOptions
from tests.helpers.scoring import Image, matched_detections, random_images

EDGES = (14, 22, 40)
AREAS: list[list[float]] = [[0, 1e10], [0, 14**2], [14**2, 22**2], [22**2, 40**2], [40**2, 1e10]]
NAMES = [("all", "all"), *(("size", n) for n in ("0-14", "14-22", "22-40", "40+"))]


def coco_of(detections: MatchedDetections, areas: list[list[float]] = AREAS) -> Any:
    """COCOeval of the same objects and detections, on groups of area."""
    mask = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    from pycocotools.cocoeval import COCOeval

    def corner(box: np.ndarray) -> list[float]:
        x, y, w, h = box[:4].astype(float)
        return [x - w / 2, y - h / 2, w, h]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = mask.COCO()
        objects = zip(detections.object_image, detections.object_class, detections.object_boxes, strict=True)
        truth.dataset = {
            "info": {}, "images": [{"id": i + 1} for i in range(detections.images)],
            "categories": [{"id": c + 1} for c in detections.names],
            "annotations": [
                {"id": k + 1, "image_id": int(i) + 1, "category_id": int(c) + 1, "bbox": corner(b),
                 "area": float(b[2]) * float(b[3]), "iscrowd": 0}
                for k, (i, c, b) in enumerate(objects)
            ],
        }  # fmt: skip
        truth.createIndex()
        scored_boxes = zip(detections.image, detections.classes, detections.confidence, detections.boxes, strict=True)
        results = truth.loadRes([
            {"image_id": int(i) + 1, "category_id": int(c) + 1, "score": float(s), "bbox": corner(b)}
            for i, c, s, b in scored_boxes
        ])  # fmt: skip
        coco = COCOeval(truth, results, "bbox")
        coco.params.areaRng, coco.params.areaRngLbl, coco.params.maxDets = areas, [*map(str, areas)], [1000]
        coco.evaluate()
        coco.accumulate()
    return coco


def coco_ap(
    right: np.ndarray, confidence: np.ndarray, classes: np.ndarray, object_class: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AP of each class as COCO interpolates it: the mean of the precision at 101 recalls, taken as steps."""
    named, objects = np.unique(object_class, return_counts=True)
    ap = np.zeros((len(named), right.shape[1]))
    order = np.argsort(-confidence, kind="stable")
    for k, kind in enumerate(named):
        for t in range(right.shape[1]):
            hits = right[order][classes[order] == kind, t]
            recall = hits.cumsum() / objects[k]
            precision = hits.cumsum() / np.arange(1, len(hits) + 1)
            envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
            ap[k, t] = envelope[np.searchsorted(recall, np.linspace(0, 1, 101))].mean()
    return named, ap


@pytest.mark.parametrize("seed", range(4))
def test_sizes_are_those_of_coco(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same objects and detections count, so with COCO's interpolation the numbers are COCO's.

    Objects are apart, so that the one rule in which COCO differs has nothing to decide.
    """
    detections = matched_detections(random_images(seed, False, 60, apart=True))
    coco = coco_of(detections)
    rows = {(r.by, r.group): r for r in measure_groups(detections, ValOptions(size_edges=EDGES))}
    monkeypatch.setattr("ds2d2_yolo.bridge.validation.recording.class_ap", coco_ap)
    coco_rows = {(r.by, r.group): r for r in measure_groups(detections, ValOptions(size_edges=EDGES))}
    precision, recall = coco.eval["precision"], coco.eval["recall"]  # T x R x K x A x 1, T x K x A x 1
    for area, name in enumerate(NAMES):
        objects = _objects_of(coco, AREAS[area])
        assert objects.min() > 10
        assert coco_rows[name].objects == objects.sum()
        assert coco_rows[name].recall == pytest.approx(
            (recall[0, :, area, 0] * objects).sum() / objects.sum(), abs=1e-12
        )
        assert coco_rows[name].map50 == pytest.approx(precision[0, :, :, area].mean(), abs=1e-9)
        assert coco_rows[name].map50_95 == pytest.approx(precision[..., area, 0].mean(), abs=1e-9)
        # Ultralytics joins the points of the curve by lines: no more than the recall of half an object or so
        assert abs(rows[name].map50 - coco_rows[name].map50) < 1 / objects.min()
        assert abs(rows[name].map50_95 - coco_rows[name].map50_95) < 1 / objects.min()


def test_coco_prefers_objects_of_the_group_and_we_do_not() -> None:
    """The difference that `metrics` states: a detection that overlaps two objects, the larger one more."""
    large, small = (0, (200.0, 200.0, 36.0, 36.0)), (0, (200.0, 200.0, 30.0, 30.0))
    detections = matched_detections([Image([large, small], [(0, 0.9, (200.0, 200.0, 35.0, 35.0))])])
    rows = {(r.by, r.group): r for r in measure_groups(detections, ValOptions(size_edges=[32]))}
    assert (rows["size", "0-32"].recall, rows["size", "32+"].recall) == (0, 1)
    coco = coco_of(detections, [[0, 32**2], [32**2, 1e10]])
    assert coco.eval["recall"][0, 0, :, 0].tolist() == [1, 1]


def _objects_of(coco: Any, area: list[float]) -> np.ndarray:
    """Objects of each class in a size group, as COCO counts them."""
    counts = dict.fromkeys(coco.params.catIds, 0)
    for image in coco.evalImgs:
        if image and image["aRng"] == area:
            counts[image["category_id"]] += int((image["gtIgnore"] == 0).sum())
    return np.array(list(counts.values()))
