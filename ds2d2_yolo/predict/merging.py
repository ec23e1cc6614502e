"""Merge the detections of overlapping tiles into one list of objects.

Detections are only compared with those of other tiles: what one tile tells apart stays apart. A detection is *cut*
if it comes near a border of its tile behind which the scene goes on, and *complete* otherwise. The rules, in order:

1. Complete boxes of one class that overlap (IoU) are one object seen from two tiles. The best score stays; boxes away
   from the borders come first. It takes from each other tile only the box that is most like it, cut or complete, so
   that neighbours in a crowd do not suppress each other, and every box closer than the model's own suppression allows.
2. A cut box is dropped if a complete box of another tile explains it: that box, grown by the margin, covers its visible
   part. Of another class (a cut aircraft looks like a truck) it must look, cut at the same border, as the cut one
   does. A box that is neither near a border nor away from it is dropped if a clearer one of its class covers nearly
   all of it.
3. Cut boxes that remain belong to objects larger than the overlap, or missed in the tile that holds them completely.
   Those of different tiles that agree on the strip which their tiles share are parts of one object. They are replaced
   by the smallest rectangle around them, with the best part's score and class. One that contains the others, or does
   not reach the border that it is near and covers enough of them, replaces them unchanged.

An object that fits the overlap is complete in at least one tile, so it is detected once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from ds2d2_yolo.utils.detections import Detections, Floats, Ints, box_corners

Bools = NDArray[np.bool_]
Polygons = NDArray[np.object_]

COVERED, ALIKE, AGREED, CONTAINED = 0.4, 0.5, 0.5, 0.9  # shares of an area; see the rules above
NEAR = 0.1  # a box ends at a border when it comes nearer than this share of its extent
APART, AWAY = 0.1, 3.0  # times that distance from which a box does not reach the border, and is away from it
MIN_AREA = 1e-9  # square pixels, for boxes without area


@dataclass(frozen=True)
class MergeResult:
    """The merged detections of all tiles, and how many were merged.

    Attributes:
        detections (Detections): Objects in pixels of the scene, best score first.
        repeated (int): Complete boxes dropped for a better view of the same object.
        cut (int): Cut boxes dropped for a complete one.
        joined (int): Cut boxes that became parts of joined objects.
    """

    detections: Detections
    repeated: int
    cut: int
    joined: int


def merge(
    detections: Detections, tile: Ints, windows: Ints, size: tuple[int, int], *,
    iou: float = 0.3, nms: float = 0.7, agnostic: bool = False, margin: float = 2.0,
) -> MergeResult:  # fmt: skip
    """Return every object of a scene once.

    Args:
        detections (Detections): Detections of all tiles (N) in pixels of the scene. If they are oriented, objects of
            several parts become rotated rectangles.
        tile (np.ndarray): Tile index of each detection (N,).
        windows (np.ndarray): Tiles (T, 4): left, top, right, bottom in pixels.
        size (tuple[int, int]): Width and height of the scene in pixels.
        iou (float): IoU from which complete boxes of two tiles are one object, in (0, 1].
        nms (float): IoU from which two boxes are never two objects: that of the model's own suppression.
        agnostic (bool): Whether boxes of different classes count as of one.
        margin (float): Pixels from a tile's border within which a box counts as cut.

    Returns:
        (MergeResult): Objects and counts.
    """
    if not len(detections):
        return MergeResult(detections, 0, 0, 0)
    views = _Views(detections, tile, windows, size, agnostic, margin)
    alive = np.ones(len(detections), bool)
    matched = _suppress_repeated(views, alive, iou, nms)
    repeated = int((~alive & ~views.cut).sum())
    _drop_explained(views, alive, matched)
    dropped = int((~alive).sum()) - repeated
    groups = _groups(views, alive)
    joined = [_joined(views.visible[g], detections[g], views.clearance[g]) for g in groups]
    for group in groups:
        alive[group] = False
    merged = Detections.concatenate([detections[alive], *joined], detections.oriented)
    order = np.argsort(-merged.scores, kind="stable")
    return MergeResult(merged[order], repeated, dropped, sum(len(g) for g in groups))


class _Views:
    """Detections as polygons, and those pairs of different tiles that come near each other.

    Attributes:
        scores (np.ndarray): Scores (N,).
        tile (np.ndarray): Tile indices (N,).
        classes (np.ndarray): Class indices (N,), all 0 where classes do not count.
        clearance (np.ndarray): Distance from the borders (N,), see `_clearance`.
        cut (np.ndarray): Which boxes are cut (N,).
        boxes (np.ndarray): Polygons of the boxes (N,).
        visible (np.ndarray): The same; of cut boxes only the part inside the tile.
        grown (np.ndarray): The polygons grown by the margin.
        soft (np.ndarray): The polygons grown by half the margin: two views of a small object differ by a pixel too.
        frames (np.ndarray): Polygons of the detections' tiles (N,).
        pairs (tuple[np.ndarray, np.ndarray]): Pairs; the first of a pair has at least as much clearance as the second.
    """

    def __init__(
        self, detections: Detections, tile: Ints, windows: Ints, size: tuple[int, int], agnostic: bool, margin: float
    ) -> None:
        """Compute the polygons and the pairs."""
        self.scores, self.tile = detections.scores, tile
        self.classes = np.zeros(len(detections), np.int64) if agnostic else detections.classes
        corners = detections.corners
        self.clearance = _clearance(corners, windows[tile], size, margin)
        self.cut = self.clearance < 1
        self.boxes, self.frames = shapely.polygons(corners), shapely.box(*windows[tile].T)
        self.visible = self.boxes.copy()
        self.visible[self.cut] = shapely.intersection(self.boxes[self.cut], self.frames[self.cut])
        self.grown, self.soft = (
            shapely.polygons(box_corners(detections.boxes + np.array([0, 0, by, by, 0]))) for by in (2 * margin, margin)
        )
        a, b = shapely.STRtree(self.grown).query(self.boxes)
        apart = (a < b) & (tile[a] != tile[b])
        a, b = a[apart], b[apart]
        swap = self.clearance[a] < self.clearance[b]
        self.pairs: tuple[Ints, Ints] = np.where(swap, b, a), np.where(swap, a, b)

    def alike(self, a: Ints, b: Ints) -> Floats:
        """Return the IoU of boxes `a` with boxes `b`, pair by pair; where `b` is cut, of the parts inside its tile."""
        cut = self.cut[b]
        first, second = self.soft[a], np.where(cut, self.visible[b], self.soft[b])
        first[cut] = shapely.intersection(self.boxes[a[cut]], self.frames[b[cut]])
        shared = _overlap(first, second)
        iou: Floats = shared / np.maximum(shapely.area(first) + shapely.area(second) - shared, MIN_AREA)
        return iou


def _clearance(corners: Floats, window: Ints, size: tuple[int, int], margin: float) -> Floats:
    """Return the distance of boxes (N, 4, 2) from the borders of their tiles (N, 4), in units of the 'near' distance.

    Borders of the scene itself do not count.
    """
    low, high = corners.min(1), corners.max(1)
    near = np.maximum(margin, NEAR * (high - low))
    before = np.where(window[:, :2] > 0, (low - window[:, :2]) / near, np.inf)
    behind = np.where(window[:, 2:] < np.array(size), (window[:, 2:] - high) / near, np.inf)
    clearance: Floats = np.minimum(before, behind).min(1)
    return clearance


def _overlap(a: Polygons, b: Polygons) -> Floats:
    """Return the areas that polygons share, pair by pair."""
    area: Floats = shapely.area(shapely.intersection(a, b))
    return area


def _suppress_repeated(views: _Views, alive: Bools, min_iou: float, nms: float) -> set[tuple[int, int]]:
    """Rule 1: drop repeated views of complete boxes; return the (box, other tile) pairs with a complete match."""
    a, b = views.pairs
    same = (views.classes[a] == views.classes[b]) & ~views.cut[a]
    a, b = a[same], b[same]
    partners: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for i, j, value in zip(a.tolist(), b.tolist(), views.alike(a, b).tolist(), strict=True):
        if value >= min_iou:
            partners[i].append((value, j))
            if not views.cut[j]:
                partners[j].append((value, i))
    matched: set[tuple[int, int]] = set()
    selected: set[int] = set()
    rank = views.scores + (views.clearance >= AWAY)
    for i in sorted(partners, key=lambda i: -rank[i]):
        if not alive[i]:
            continue
        selected.add(i)
        matched_tiles: set[int] = set()
        for value, j in sorted(partners[i], reverse=True):
            other = int(views.tile[j])
            if alive[j] and j not in selected and (other not in matched_tiles or value >= nms):
                matched_tiles.add(other)
                alive[j] = False
                if not views.cut[j]:
                    matched.add((i, other))
    return matched


def _drop_explained(views: _Views, alive: Bools, matched: set[tuple[int, int]]) -> None:
    """Rule 2: drop boxes that a complete one explains, unless the tile showed that one completely beside them."""
    complete, part = views.pairs
    near = ~views.cut[complete] & (views.clearance[part] < AWAY) & alive[complete] & alive[part]
    complete, part = complete[near], part[near]
    area = np.maximum(shapely.area(views.visible[part]), MIN_AREA)
    covered = _overlap(views.visible[part], views.grown[complete]) / area
    cut = views.cut[part]
    same = covered >= np.where(cut, COVERED, CONTAINED)
    explains = np.where(
        views.classes[part] == views.classes[complete], same, cut & (views.alike(complete, part) >= ALIKE)
    )
    for p, c in zip(part[explains].tolist(), complete[explains].tolist(), strict=True):
        if (c, int(views.tile[p])) not in matched:
            alive[p] = False


def _groups(views: _Views, alive: Bools) -> list[list[int]]:
    """Rule 3: return groups of parts of one object, no two of one tile, the best agreement first."""
    a, b = views.pairs
    parts = views.cut[a] & views.cut[b] & (views.classes[a] == views.classes[b]) & alive[a] & alive[b]
    a, b = a[parts], b[parts]
    visible, frames, tile = views.visible, views.frames, views.tile
    in_strip = np.minimum(_overlap(visible[a], frames[b]), _overlap(visible[b], frames[a]))
    agreement = _overlap(visible[a], visible[b]) / np.maximum(in_strip, MIN_AREA)
    group: dict[int, list[int]] = {}
    for n in np.argsort(-agreement, kind="stable").tolist():
        if agreement[n] < AGREED:
            break
        first, second = (group.setdefault(i, [i]) for i in (int(a[n]), int(b[n])))
        if first is not second and not {int(tile[i]) for i in first} & {int(tile[i]) for i in second}:
            first += second
            group.update(dict.fromkeys(second, first))
    unique = {id(g): g for g in group.values() if len(g) > 1}
    return list(unique.values())


def _joined(parts: Polygons, detections: Detections, clearance: Floats) -> Detections:
    """Return the one detection that replaces the parts of an object."""
    best, clear = int(detections.scores.argmax()), bool(clearance.max() >= APART)
    main = int(clearance.argmax() if clear else shapely.area(parts).argmax())
    share = _overlap(parts, np.full(len(parts), parts[main])) / np.maximum(shapely.area(parts), MIN_AREA)
    if (share >= (COVERED if clear else CONTAINED)).all():
        box = detections.boxes[main]
    else:
        box = _enclosing(parts, _rotated if detections.oriented else _upright)
    score, kind = detections.scores[[best]], detections.classes[[best]]
    return Detections(box[None], score, kind, detections.oriented)


def _enclosing(parts: Polygons, rectangle: Callable[[Floats], Floats]) -> Floats:
    """Return the box (5,) around parts, ignoring small ones that it contains to a good share.

    A tile that shows only a corner of a slanted object gives it a rectangle that lies across it.
    """
    area = shapely.area(parts)
    order = np.argsort(-area, kind="stable")
    points = shapely.get_coordinates(parts[order[0]])
    box = rectangle(points)
    for n in order[1:]:
        outline = shapely.Polygon(box_corners(box[None])[0])
        inside = float(shapely.area(shapely.intersection(parts[n], outline)))
        if area[n] >= area[order[0]] / 2 or inside < COVERED * area[n]:
            points = np.concatenate([points, shapely.get_coordinates(parts[n])])
            box = rectangle(points)
    return box


def _upright(points: Floats) -> Floats:
    """Return the upright box (5,) around points (N, 2)."""
    low, high = points.min(0), points.max(0)
    return np.array([*((low + high) / 2), *(high - low), 0.0])


def _rotated(points: Floats) -> Floats:
    """Return the smallest rotated box around points.

    Args:
        points (np.ndarray): Points (N, 2) in pixels.

    Returns:
        (np.ndarray): Box (5,): x, y, w, h and the angle as Ultralytics writes it, in [-pi/4, 3 pi/4) radians.
    """
    middle = points.mean(0)  # float32 of OpenCV is exact enough near zero only
    (x, y), (w, h), degrees = cv2.minAreaRect((points - middle).astype(np.float32))
    angle = np.deg2rad(degrees) + (np.pi / 2 if w < h else 0.0)
    angle = (angle + np.pi / 4) % np.pi - np.pi / 4
    return np.array([x + middle[0], y + middle[1], max(w, h), min(w, h), angle])
