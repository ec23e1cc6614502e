"""One list of objects out of what was found tile by tile.

What one tile tells apart stays apart: detections are only ever compared with those of other tiles. A detection is *cut*
where it comes near a border of its tile behind which the scene goes on, *whole* otherwise. In this order:

1. Whole boxes of one class that overlap (IoU) are one object seen from two tiles; the best score stays, of boxes away
   from the borders first. It takes from each other tile the one box that is most like it, cut or whole, so that
   neighbours in a crowd do not swallow each other; and every box closer than the model's own suppression allows.
2. A cut box goes where a whole box of another tile explains it: that box, grown by the margin, covers its visible part.
   Of another class (a cut aircraft looks like a truck) it must look, cut at the same border, as the cut one does. A
   box that is not near a border, but not away from it either, goes where a clearer one of its class covers nearly all.
3. Cut boxes that are left belong to objects larger than the overlap, or missed in the tile that holds them whole. Those
   of different tiles that agree on the strip which their tiles share are parts of one object: they become the smallest
   rectangle around them, with the best part's score and class. One that contains the others, or does not
   reach the border that it is near and covers enough of them, stands for them as it is.

An object that fits the overlap is whole in at least one tile, so it is found once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COVERED, ALIKE, AGREED, CONTAINED = 0.4, 0.5, 0.5, 0.9  # shares of an area; see the rules above
NEAR = 0.1  # a box ends at a border when it comes nearer than this share of its own extent
APART, AWAY = 0.1, 3.0  # times that distance from which a box does not reach the border, and is away from it
SMALLEST = 1e-9  # square pixels, for boxes without area


@dataclass(frozen=True)
class Merged:
    """What became of the detections of all tiles.

    Attributes:
        rows (np.ndarray): Objects (N, 7): x, y, w, h, angle, score, class; best score first.
        repeated (int): Whole boxes dropped for a better view of the same object.
        cut (int): Cut boxes dropped for a whole one.
        joined (int): Cut boxes that went into objects of several parts.
    """

    rows: Floats
    repeated: int
    cut: int
    joined: int


def corners_of(rows: Floats) -> Floats:
    """Return the corners (N, 4, 2) of boxes (N, 5 or more) x, y, w, h, angle, clockwise in the picture (y down)."""
    cos, sin = np.cos(rows[:, 4]), np.sin(rows[:, 4])
    along = np.stack([cos, sin], 1) * rows[:, 2:3] / 2
    across = np.stack([-sin, cos], 1) * rows[:, 3:4] / 2
    corners: Floats = rows[:, None, :2] + np.stack([-along - across, along - across, along + across, across - along], 1)
    return corners


def merge(
    rows: Floats, tile: Ints, windows: Ints, size: tuple[int, int], *,
    iou: float = 0.3, nms: float = 0.7, agnostic: bool = False, oriented: bool = True, margin: float = 2.0,
) -> Merged:  # fmt: skip
    """Return every object of a scene once.

    Args:
        rows (np.ndarray): Detections of all tiles (N, 7) in pixels of the scene: x, y, w, h, angle (radians), score,
            class.
        tile (np.ndarray): Tile of each detection (N,).
        windows (np.ndarray): Tiles (T, 4): left, top, right, bottom.
        size (tuple[int, int]): Width and height of the scene.
        iou (float): IoU from which whole boxes of two tiles are one object, in (0, 1].
        nms (float): IoU from which two boxes are never two objects, that of the model's own suppression.
        agnostic (bool): Whether boxes of different classes count as of one.
        oriented (bool): Whether objects of several parts become rotated rectangles.
        margin (float): Pixels from a tile's border within which a box counts as cut.

    Returns:
        (Merged): Objects and counts.
    """
    if not len(rows):
        return Merged(rows, 0, 0, 0)
    views = _Views(rows, tile, windows, size, agnostic, margin)
    alive = np.ones(len(rows), bool)
    taken = _keep_best(views, alive, iou, nms)
    repeated = int((~alive & ~views.cut).sum())
    _drop_explained(views, alive, taken)
    dropped = int((~alive).sum()) - repeated
    groups = _groups(views, alive)
    made = [_joined(views.visible[g], rows[g], views.clearance[g], oriented) for g in groups]
    for group in groups:
        alive[group] = False
    result = np.concatenate([rows[alive], np.array(made, np.float64).reshape(-1, 7)])
    order = np.argsort(-result[:, 5], kind="stable")
    return Merged(result[order], repeated, dropped, sum(len(g) for g in groups))


class _Views:
    """Detections as shapes, and those pairs of different tiles that come near each other.

    Attributes:
        rows (np.ndarray): Detections (N, 7).
        tile (np.ndarray): Their tiles (N,).
        kind (np.ndarray): Their classes (N,), all 0 where classes do not count.
        clearance (np.ndarray): How far they stay from borders (N,), see `_clearance`.
        cut (np.ndarray): Which are cut (N,).
        boxes (np.ndarray): Their polygons (N,).
        visible (np.ndarray): The same, of cut ones what lies in their tile.
        grown (np.ndarray): The polygons grown by the margin.
        soft (np.ndarray): The polygons grown by half of it: two views of a small object differ by a pixel too.
        frames (np.ndarray): The polygons of their tiles.
        pairs (tuple[np.ndarray, np.ndarray]): Pairs; the first of a pair has more clearance, or as much.
    """

    def __init__(
        self, rows: Floats, tile: Ints, windows: Ints, size: tuple[int, int], agnostic: bool, margin: float
    ) -> None:
        """Compute all of it."""
        self.rows, self.tile = rows, tile
        self.kind = np.zeros(len(rows), np.int64) if agnostic else rows[:, 6].astype(np.int64)
        corners = corners_of(rows)
        self.clearance = _clearance(corners, windows[tile], size, margin)
        self.cut = self.clearance < 1
        self.boxes, self.frames = shapely.polygons(corners), shapely.box(*windows[tile].T)
        self.visible = self.boxes.copy()
        self.visible[self.cut] = shapely.intersection(self.boxes[self.cut], self.frames[self.cut])
        self.grown = shapely.polygons(corners_of(rows + np.array([0, 0, 2 * margin, 2 * margin, 0, 0, 0])))
        self.soft = shapely.polygons(corners_of(rows + np.array([0, 0, margin, margin, 0, 0, 0])))
        a, b = shapely.STRtree(self.grown).query(self.boxes)
        apart = (a < b) & (tile[a] != tile[b])
        a, b = a[apart], b[apart]
        turn = self.clearance[a] < self.clearance[b]
        self.pairs: tuple[Ints, Ints] = np.where(turn, b, a), np.where(turn, a, b)

    def alike(self, a: Ints, b: Ints) -> Floats:
        """Return the IoU of boxes with others, each seen as far as the other's tile shows it if that one is cut."""
        part = self.cut[b]
        one, two = self.soft[a], np.where(part, self.visible[b], self.soft[b])
        one[part] = shapely.intersection(self.boxes[a[part]], self.frames[b[part]])
        shared = _overlap(one, two)
        iou: Floats = shared / np.maximum(shapely.area(one) + shapely.area(two) - shared, SMALLEST)
        return iou


def _clearance(corners: Floats, window: Ints, size: tuple[int, int], margin: float) -> Floats:
    """Return how far boxes (N, 4, 2) stay from the borders of their tiles (N, 4), 1 for the distance that is near.

    Borders of the scene itself do not count.
    """
    low, high = corners.min(1), corners.max(1)
    near = np.maximum(margin, NEAR * (high - low))
    before = np.where(window[:, :2] > 0, (low - window[:, :2]) / near, np.inf)
    behind = np.where(window[:, 2:] < np.array(size), (window[:, 2:] - high) / near, np.inf)
    clearance: Floats = np.minimum(before, behind).min(1)
    return clearance


def _overlap(a: NDArray[np.object_], b: NDArray[np.object_]) -> Floats:
    """Return the areas that polygons share, pair by pair."""
    area: Floats = shapely.area(shapely.intersection(a, b))
    return area


def _keep_best(views: _Views, alive: NDArray[np.bool_], least: float, nms: float) -> set[tuple[int, int]]:
    """Rule 1: drop repeated views of whole boxes; return which box has found itself whole in which other tile."""
    a, b = views.pairs
    same = (views.kind[a] == views.kind[b]) & ~views.cut[a]
    a, b = a[same], b[same]
    partners: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for i, j, value in zip(a.tolist(), b.tolist(), views.alike(a, b).tolist(), strict=True):
        if value >= least:
            partners[i].append((value, j))
            if not views.cut[j]:
                partners[j].append((value, i))
    taken: set[tuple[int, int]] = set()
    kept: set[int] = set()
    rank = views.rows[:, 5] + (views.clearance >= AWAY)
    for i in sorted(partners, key=lambda i: -rank[i]):
        if not alive[i]:
            continue
        kept.add(i)
        done: set[int] = set()
        for value, j in sorted(partners[i], reverse=True):
            other = int(views.tile[j])
            if alive[j] and j not in kept and (other not in done or value >= nms):
                done.add(other)
                alive[j] = False
                if not views.cut[j]:
                    taken.add((i, other))
    return taken


def _drop_explained(views: _Views, alive: NDArray[np.bool_], taken: set[tuple[int, int]]) -> None:
    """Rule 2: drop what whole boxes explain, unless the tile showed such a box whole beside it."""
    whole, part = views.pairs
    near = ~views.cut[whole] & (views.clearance[part] < AWAY) & alive[whole] & alive[part]
    whole, part = whole[near], part[near]
    area = np.maximum(shapely.area(views.visible[part]), SMALLEST)
    covered = _overlap(views.visible[part], views.grown[whole]) / area
    cut = views.cut[part]
    same = covered >= np.where(cut, COVERED, CONTAINED)
    explains = np.where(views.kind[part] == views.kind[whole], same, cut & (views.alike(whole, part) >= ALIKE))
    for p, w in zip(part[explains].tolist(), whole[explains].tolist(), strict=True):
        if (w, int(views.tile[p])) not in taken:
            alive[p] = False


def _groups(views: _Views, alive: NDArray[np.bool_]) -> list[list[int]]:
    """Rule 3: return groups of parts of one object, no two of one tile, the best agreement first."""
    a, b = views.pairs
    parts = views.cut[a] & views.cut[b] & (views.kind[a] == views.kind[b]) & alive[a] & alive[b]
    a, b = a[parts], b[parts]
    visible, frames, tile = views.visible, views.frames, views.tile
    least = np.minimum(_overlap(visible[a], frames[b]), _overlap(visible[b], frames[a]))
    agreement = _overlap(visible[a], visible[b]) / np.maximum(least, SMALLEST)
    group: dict[int, list[int]] = {}
    for n in np.argsort(-agreement, kind="stable").tolist():
        if agreement[n] < AGREED:
            break
        one, two = (group.setdefault(i, [i]) for i in (int(a[n]), int(b[n])))
        if one is not two and not {int(tile[i]) for i in one} & {int(tile[i]) for i in two}:
            one += two
            group.update(dict.fromkeys(two, one))
    unique = {id(g): g for g in group.values() if len(g) > 1}
    return list(unique.values())


def _joined(parts: NDArray[np.object_], rows: Floats, clearance: Floats, oriented: bool) -> Floats:
    """Return the one row of an object of several parts."""
    best, clear = int(rows[:, 5].argmax()), bool(clearance.max() >= APART)
    main = int(clearance.argmax() if clear else shapely.area(parts).argmax())
    share = _overlap(parts, np.full(len(parts), parts[main])) / np.maximum(shapely.area(parts), SMALLEST)
    if (share >= (COVERED if clear else CONTAINED)).all():
        row = rows[main].copy()
    else:
        row = np.array([*_around(parts, _rotated if oriented else _upright), 0.0, 0.0])
    row[5:] = rows[best, 5:]
    return np.asarray(row, np.float64)


def _around(parts: NDArray[np.object_], rectangle: Callable[[Floats], tuple[float, ...]]) -> tuple[float, ...]:
    """Return the rectangle around parts, without small ones that it holds to a good share.

    A tile that shows no more than a corner of a slanted object gives it a rectangle that lies across it.
    """
    area = shapely.area(parts)
    order = np.argsort(-area, kind="stable")
    points = shapely.get_coordinates(parts[order[0]])
    place = rectangle(points)
    for n in order[1:]:
        inside = float(shapely.area(shapely.intersection(parts[n], _polygon(place))))
        if area[n] >= area[order[0]] / 2 or inside < COVERED * area[n]:
            points = np.concatenate([points, shapely.get_coordinates(parts[n])])
            place = rectangle(points)
    return place


def _polygon(place: tuple[float, ...]) -> shapely.Polygon:
    """Return a box x, y, w, h, angle as a polygon."""
    return shapely.Polygon(corners_of(np.array([place]))[0])


def _upright(points: Floats) -> tuple[float, ...]:
    """Return the upright box of points (N, 2)."""
    low, high = points.min(0), points.max(0)
    return (*((low + high) / 2).tolist(), *(high - low).tolist(), 0.0)


def _rotated(points: Floats) -> tuple[float, ...]:
    """Return the smallest rectangle around points (N, 2), its angle as Ultralytics writes it, in [-pi/4, 3 pi/4)."""
    middle = points.mean(0)  # float32 of OpenCV is exact enough near zero only
    (x, y), (w, h), degrees = cv2.minAreaRect((points - middle).astype(np.float32))
    angle = np.deg2rad(degrees) + (np.pi / 2 if w < h else 0.0)
    angle = (angle + np.pi / 4) % np.pi - np.pi / 4
    return float(x + middle[0]), float(y + middle[1]), max(w, h), min(w, h), float(angle)
