"""The weight map: hand-made cases, properties of random boxes, and the rules for odd input."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity
from shapely.geometry import box as rectangle
from shapely.geometry.base import BaseGeometry
from torch.utils._python_dispatch import TorchDispatchMode

from ds2d2_yolo.core.disw import disw_map

GRID, CELL, ORIGIN = (9, 12), (16.0, 20.0), (-8.0, 4.0)
WIDTH, HEIGHT = GRID[1] * CELL[1], GRID[0] * CELL[0]
# In cells: what lies within this of the border between two answers may go either way.
UNSURE = 2e-4


class Operators(TorchDispatchMode):
    """Record the operators that run, their inputs and outputs."""

    def __init__(self, host: bool) -> None:
        super().__init__()
        self.host = host
        self.names: set[str] = set()
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.names.add(function.overloadpacket.__name__)
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        # A device may not be handed data by the host in mid-course: that waits for it.
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        assert self.host or not any(a.device.type == "cpu" and a.ndim for a in tensors)
        return result


def draw(boxes: list[list[float]] | torch.Tensor, grid=GRID, cell=CELL, origin=ORIGIN, **kwargs) -> torch.Tensor:
    """Map of one image, (h, w), in float64."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    return disw_map(boxes, torch.zeros(len(boxes)), 1, grid, cell, origin, dtype=torch.float64, **kwargs)[0, 0]


def polygon(box: list[float]) -> BaseGeometry:
    """A rotated box in units of cells."""
    x, y, w, h, angle = np.asarray(box, dtype=np.float32).astype(float)
    shape = affinity.rotate(rectangle(x - w / 2, y - h / 2, x + w / 2, y + h / 2), angle, (x, y), use_radians=True)
    return affinity.affine_transform(
        shape, [1 / CELL[1], 0, 0, 1 / CELL[0], -ORIGIN[1] / CELL[1], -ORIGIN[0] / CELL[0]]
    )


rotated_boxes = st.tuples(
    st.floats(-60, WIDTH + 60, width=32),
    st.floats(-60, HEIGHT + 60, width=32),
    st.floats(0.5, 250, width=32),
    st.floats(0.5, 250, width=32),
    st.floats(-7, 7, width=32),
).map(list)

# On a grid of quarter pixels no edge comes closer to a cell's border than rounding can tell.
quarters = st.integers(-120, 1200).map(lambda n: n / 4)
upright_boxes = st.tuples(quarters, quarters, quarters, quarters).map(
    lambda v: [min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3])]
)


def test_worked_example() -> None:
    weight = draw([[0, 0, 32, 16], [8, 8, 24, 40]], (3, 3), (16, 16), (0, 0))
    expected = [[1 + 1 / 2 + 1 / 6, 1 + 1 / 2 + 1 / 6, 1], [1 + 1 / 6, 1 + 1 / 6, 1], [1 + 1 / 6, 1 + 1 / 6, 1]]
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_turned_square_is_not_its_hull() -> None:
    # A diamond of 4 x 4 cells around (2, 2): each quarter is a triangle that touches three of its four cells.
    weight = draw([[32, 32, 32 * math.sqrt(2), 32 * math.sqrt(2), math.pi / 4]], (4, 4), (16, 16), (0, 0))
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[0, 0] = expected[0, 3] = expected[3, 0] = expected[3, 3] = False
    assert torch.equal(weight > 1, expected)
    assert weight.max().item() == pytest.approx(1 + 1 / 12)


def test_images_are_kept_apart_and_dtype_is_float32() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 32.0, 32.0]])
    weight = disw_map(boxes, torch.tensor([2.0, 0.0]), 3, (2, 2), (16, 16))
    assert weight.dtype == torch.float32
    assert weight.shape == (3, 1, 2, 2)
    assert weight[0].flatten().tolist() == [1.25] * 4
    assert weight[1].flatten().tolist() == [1.0] * 4
    assert weight[2].flatten().tolist() == [2.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("columns", "extent"), [(4, "touched"), (4, "reference"), (5, "touched")])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_sum_of_the_map_is_cells_plus_boxes(columns: int, extent: str, count: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(count, columns, generator=generator) * 100 + 20
    images = torch.arange(count) % 2
    weight = disw_map(boxes.to(device), images.to(device), 2, GRID, CELL, extent=extent, dtype=torch.float64)
    assert weight.device.type == device.type
    assert weight.min() >= 1
    for image in (0, 1):
        cells, boxes_of_image = GRID[0] * GRID[1], int((images == image).sum())
        assert weight[image].sum().item() == pytest.approx(cells + boxes_of_image, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(rotated_boxes)
def test_rotated_cells_equal_polygon_overlap(box: list[float]) -> None:
    weight = draw([box])
    shape = polygon(box)
    shrunk, grown = shape.buffer(-UNSURE, join_style="mitre"), shape.buffer(UNSURE, join_style="mitre")
    for y in range(GRID[0]):
        for x in range(GRID[1]):
            cell = rectangle(x, y, x + 1, y + 1)
            if shrunk.intersection(cell).area > 0:
                assert weight[y, x] > 1
            elif not grown.intersects(cell):
                assert weight[y, x] == 1
    if weight.max() > 1:
        assert len(weight[weight > 1].unique()) == 1


@settings(deadline=None, max_examples=100)
@given(st.lists(rotated_boxes, max_size=12))
def test_every_rotated_box_that_touches_adds_one(boxes: list[list[float]]) -> None:
    image = rectangle(0, 0, GRID[1], GRID[0])
    surely = sum(polygon(b).buffer(-UNSURE).intersects(image.buffer(-UNSURE)) for b in boxes)
    perhaps = sum(polygon(b).buffer(UNSURE).intersects(image.buffer(UNSURE)) for b in boxes)
    added = (draw(torch.tensor(boxes).view(-1, 5)) - 1).sum().item()
    assert added == pytest.approx(round(added), abs=1e-9)
    assert surely <= round(added) <= perhaps


@settings(deadline=None, max_examples=100)
@given(st.lists(upright_boxes, max_size=12))
def test_every_upright_box_that_touches_adds_one(boxes: list[list[float]]) -> None:
    low_x, low_y = ORIGIN[1], ORIGIN[0]
    touching = sum(
        x1 < low_x + WIDTH and y1 < low_y + HEIGHT and (x2 > low_x or x1 >= low_x) and (y2 > low_y or y1 >= low_y)
        for x1, y1, x2, y2 in boxes
    )
    assert (draw(torch.tensor(boxes).view(-1, 4)) - 1).sum().item() == pytest.approx(touching, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(upright_boxes)
def test_upright_cells_equal_interval_overlap(box: list[float]) -> None:
    (x1, x2), (y1, y2) = ((np.array(box[i::2]) - ORIGIN[1 - i]) / CELL[1 - i] for i in (0, 1))
    x, y = np.arange(GRID[1]), np.arange(GRID[0])
    # The left edge belongs to a box, which counts when it is empty.
    columns = (x < x2) & (x + 1 > x1) if x2 > x1 else np.floor(x1) == x
    rows = (y < y2) & (y + 1 > y1) if y2 > y1 else np.floor(y1) == y
    assert np.array_equal(draw([box]).numpy() > 1, rows[:, None] & columns[None])


@settings(deadline=None, max_examples=100)
@given(st.lists(upright_boxes, min_size=1, max_size=8), st.integers(-4, 4))
def test_rotated_equals_upright_at_multiples_of_90_degrees(boxes: list[list[float]], quarter_turns: int) -> None:
    rows = []
    for x1, y1, x2, y2 in boxes:
        w, h = (x2 - x1, y2 - y1) if quarter_turns % 2 == 0 else (y2 - y1, x2 - x1)
        rows.append([(x1 + x2) / 2, (y1 + y2) / 2, w, h, quarter_turns * math.pi / 2])
    assert torch.equal(draw(rows), draw(boxes))


@settings(deadline=None, max_examples=100)
@given(st.lists(rotated_boxes, min_size=2, max_size=10), st.randoms(use_true_random=False))
def test_order_of_boxes_changes_nothing(boxes: list[list[float]], random) -> None:
    shuffled = random.sample(boxes, len(boxes))
    assert torch.equal(draw(boxes), draw(shuffled))
    upright = [[b[0], b[1], b[0] + b[2], b[1] + b[3]] for b in boxes]
    assert torch.equal(draw(upright), draw([upright[boxes.index(b)] for b in shuffled]))


@settings(deadline=None, max_examples=100)
@given(st.lists(rotated_boxes, max_size=10))
def test_all_rows_and_crossed_rows_agree(boxes: list[list[float]]) -> None:
    tensor = torch.tensor(boxes).view(-1, 5)
    crossed = draw(tensor)
    # The way of accelerators and of torch.compile, which may not ask the host how many rows are crossed.
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        assert torch.equal(draw(tensor), crossed)


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("box", "added", "cells"),
    [
        ([50, 50, 50, 50], 1, 1),  # a point
        ([50, 50, 50, 50, 0.3], 1, None),
        ([70, 70, 0, 0, 0.3], 1, 1),
        ([30, 50, 90, 50], 1, 4),  # a line of zero height
        ([60, 50, 60, 0, 0.0], 1, 4),
        ([0, 40, 1e-5, 41], 0, 0),  # left of the origin
        ([1e6, 1e6, 1e6 + 5, 1e6 + 5], 0, 0),
        ([1e6, 1e6, 50, 50, 1.0], 0, 0),
        ([-1e6, -1e6, 1e6, 1e6], 1, GRID[0] * GRID[1]),
        ([120, 60, 1e6, 1e6, 1.0], 1, GRID[0] * GRID[1]),
        ([120, 60, 3e38, 3e38, 1.0], 1, GRID[0] * GRID[1]),
        ([NAN, 10, 20, 20], 0, 0),
        ([50, 50, 20, 20, NAN], 0, 0),
        ([50, 50, NAN, 20, 0.1], 0, 0),
        ([-INF, 10, INF, 20], 0, 0),
        ([50, 50, INF, 20, 0.1], 0, 0),
        ([4, -8, -30, -40], 0, 0),  # ends where the grid starts
        ([4 + WIDTH, 0, 400, 30], 0, 0),  # starts where it ends
        ([60, 40, 40, 20], 1, 4),  # corners in the wrong order
    ],
)
def test_rules_for_odd_boxes(box: list[float], added: int, cells: int | None) -> None:
    weight = draw([box])
    assert torch.isfinite(weight).all()
    assert (weight - 1).sum().item() == pytest.approx(added, abs=1e-9)
    if cells is not None:
        assert int((weight > 1).sum()) == cells
    # An odd box leaves its neighbours alone.
    good = [40, 40, 80, 60] if len(box) == 4 else [60, 50, 40, 20, 0.5]
    assert (draw([box, good]) - 1).sum().item() == pytest.approx(added + 1, abs=1e-9)


@pytest.mark.parametrize("box", [[-3e38, -3e38, 3e38, 3e38], [1, 1, 3e38, 3e38, 1.0]])
def test_largest_numbers_do_not_overflow(box: list[float]) -> None:
    weight = draw([box], (4, 5), (0.1, 0.1), (0.0, 0.0))
    torch.testing.assert_close(weight, torch.full((4, 5), 1.05, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("columns", [4, 5])
def test_padding_and_foreign_images_are_dropped(columns: int) -> None:
    boxes = torch.rand(6, columns) * 40 + 40
    images = torch.tensor([0, 1, 1, -1, 2, 0])
    valid = torch.tensor([True, True, False, True, True, True])
    weight = disw_map(boxes, images, 2, GRID, CELL, valid=valid)
    indices = torch.tensor([0, 1, 5])
    assert torch.equal(weight, disw_map(boxes[indices], images[indices], 2, GRID, CELL))
    assert torch.equal(disw_map(boxes[:0], images[:0], 2, GRID, CELL), torch.ones(2, 1, *GRID))


def test_thousands_of_boxes_in_one_cell_stay_exact() -> None:
    weight = disw_map(torch.tensor([[1.0, 1.0, 2.0, 2.0]]).expand(20_000, 4), torch.zeros(20_000), 1, (2, 2), (16, 16))
    assert weight.flatten().tolist() == [20_001.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("columns", [4, 5])
def test_other_devices_need_no_host(columns: int) -> None:
    # On the meta device there are no values: whatever needs one, or a size that depends on one, raises.
    boxes, images = torch.empty(50, columns, device="meta"), torch.empty(50, device="meta")
    valid = torch.empty(50, dtype=torch.bool, device="meta")
    with Operators(host=False) as operators:
        weight = disw_map(boxes, images, 4, (20, 16), CELL, valid=valid)
    assert weight.shape == (4, 1, 20, 16)
    assert not operators.names & {"_local_scalar_dense", "nonzero", "masked_select", "item", "unique", "_assert_async"}


@pytest.mark.parametrize(("columns", "device"), [(4, "cpu"), (5, "cpu"), (4, "meta"), (5, "meta")])
def test_memory_does_not_grow_with_boxes_times_cells(columns: int, device: str) -> None:
    count, grid = 2000, (64, 64)
    boxes = (torch.rand(count, columns) * 500).to(device)
    with Operators(host=device == "cpu") as operators:
        disw_map(boxes, torch.zeros(count, device=device), 1, grid, (8, 8))
    # Eleven numbers for each row that a box can cross, where boxes x cells would be 64 x 64 for each box.
    assert 0 < operators.largest <= 11 * count * grid[0] + (grid[0] + 1) * (grid[1] + 1)


def test_half_precision_boxes_are_taken() -> None:
    boxes = torch.tensor([[40.0, 40.0, 30.0, 20.0, 0.5]])
    exact = disw_map(boxes, torch.zeros(1), 1, GRID, CELL)
    assert torch.equal(disw_map(boxes.half(), torch.zeros(1), 1, GRID, CELL), exact)


def test_no_gradient_flows_into_boxes() -> None:
    boxes = torch.tensor([[40.0, 40.0, 60.0, 60.0]], requires_grad=True)
    assert not disw_map(boxes, torch.zeros(1), 1, GRID, CELL).requires_grad


@pytest.mark.parametrize("columns", [4, 5])
def test_compiles_without_graph_breaks(columns: int) -> None:
    boxes = torch.rand(7, columns) * 60 + 30
    images = torch.arange(7) % 2
    compiled = torch.compile(disw_map, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(boxes, images, 2, GRID, CELL), disw_map(boxes, images, 2, GRID, CELL))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("columns", [4, 5])
def test_cuda_equals_cpu_without_synchronisation(columns: int) -> None:
    boxes, images = torch.rand(500, columns) * 200, torch.arange(500) % 3
    expected = disw_map(boxes, images, 3, GRID, CELL, ORIGIN)
    on_device = boxes.cuda(), images.cuda()
    disw_map(*on_device, 3, GRID, CELL, ORIGIN)
    torch.cuda.set_sync_debug_mode("error")
    try:
        weight = disw_map(*on_device, 3, GRID, CELL, ORIGIN)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(weight.cpu(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": torch.zeros(2, 6)}, "boxes must be"),
        ({"batch_idx": torch.zeros(3)}, "batch_idx must hold one entry per box"),
        ({"valid": torch.ones(1, dtype=torch.bool)}, "valid must hold one entry per box"),
        ({"batch_size": 0}, "must be positive"),
        ({"grid": (0, 4)}, "must be positive"),
        ({"cell": (16.0, 0.0)}, "cell must be the positive"),
        ({"cell": (16.0, math.nan)}, "cell must be the positive"),
        ({"extent": "closed"}, "extent must be"),
        ({"boxes": torch.zeros(2, 5), "extent": "reference"}, "upright boxes"),
    ],
)
def test_errors(change: dict[str, object], message: str) -> None:
    arguments = {"boxes": torch.zeros(2, 4), "batch_idx": torch.zeros(2), "batch_size": 1, "grid": GRID, "cell": CELL}
    with pytest.raises(ValueError, match=message):
        disw_map(**{**arguments, **change})
