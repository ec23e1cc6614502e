"""Batches of unlabelled images: order, seeds, mosaics, and a start anywhere."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import check_det_dataset

from ds2d2_yolo.bridge.data.unlabelled.batches import BatchStream, CycledOrder, NumberedBatches, build_second_dataset


def test_every_image_comes_equally_often_in_another_order_each_time() -> None:
    order = CycledOrder(5, 2, seed=3)
    shown = [i for number in range(10) for i in order.indices(number)]  # 20 images: four cycles
    cycles = [tuple(shown[i : i + 5]) for i in range(0, 20, 5)]
    assert all(sorted(cycle) == list(range(5)) for cycle in cycles)
    assert len(set(cycles)) > 1
    assert shown != [i for number in range(10) for i in CycledOrder(5, 2, seed=4).indices(number)]


def test_fewer_images_than_a_batch_needs_repeat() -> None:
    assert Counter(CycledOrder(2, 6, seed=0).indices(0)) == {0: 3, 1: 3}


def test_processes_share_one_order() -> None:
    one = CycledOrder(7, 6, seed=1)
    ranks = [CycledOrder(7, 3, seed=1, rank=rank, processes=2) for rank in range(2)]
    for number in range(5):
        assert [i for order in ranks for i in order.indices(number)] == one.indices(number)
    assert ranks[0].random_seed(0) != ranks[1].random_seed(0)


def test_images_before_a_batch_are_those_of_its_worker() -> None:
    order = CycledOrder(100, 2, seed=0)
    assert order.before(0, 1, 10) == []
    assert order.before(5, 2, 10) == [*order.indices(1), *order.indices(3)]
    assert order.before(5, 2, 3) == [*order.indices(1)[1:], *order.indices(3)]
    assert sorted(CycledOrder(2, 2, seed=0).before(9, 1, 10)) == [0, 1], "each image once"


@pytest.fixture
def stream(tiny_data: Callable[[str], Path]) -> Callable[..., BatchStream]:
    """A stream of batches of two images with mosaics and mixup."""
    data: dict[str, Any] = dict(check_det_dataset(str(tiny_data("obb"))))
    images = sorted((Path(data["path"]) / "images" / "train").glob("*.png"))

    def make(workers: int = 0, **keys: Any) -> BatchStream:
        args = get_cfg(overrides={"imgsz": 96, "task": "obb", "mixup": 0.5, **keys})
        dataset = build_second_dataset(args, data, images, 2)
        dataset.max_buffer_length = 3  # less than there are images
        return BatchStream(NumberedBatches(dataset, CycledOrder(len(images), 2, 0)), workers, False)

    return make


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_can_begin_anywhere(stream: Callable[..., BatchStream], workers: int) -> None:
    full_stream = stream(workers)
    batches = [full_stream.take() for _ in range(6)]
    full_stream.close()
    later_stream = stream(workers)
    later_stream.seek(4)
    for expected in batches[4:]:
        batch = later_stream.take()
        assert torch.equal(batch["img"], expected["img"])
        assert batch["im_file"] == expected["im_file"]
    later_stream.seek(1)
    assert torch.equal(later_stream.take()["img"], batches[1]["img"]), "and go back"
    later_stream.close()
    assert not torch.equal(batches[0]["img"], batches[1]["img"])


def test_batches_have_no_objects(stream: Callable[..., BatchStream]) -> None:
    batch = stream().take()
    assert batch["img"].shape == (2, 3, 96, 96)
    assert [len(batch[k]) for k in ("cls", "bboxes", "batch_idx")] == [0, 0, 0]
    assert batch["bboxes"].shape[1] == 5


def test_the_training_draws_the_same_numbers(stream: Callable[..., BatchStream]) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    batches = stream()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    batches.take()
    assert draw() == expected


def test_the_buffer_stays_short(stream: Callable[..., BatchStream]) -> None:
    batches = stream()
    for _ in range(8):
        batches.take()
    dataset = batches.batches.dataset
    loaded = [i for i, image in enumerate(dataset.ims) if image is not None]
    assert len(loaded) <= 3 + 2 + 2  # the buffer, the batch, and its partners of mixup


def test_without_mosaics_no_other_image_is_loaded(stream: Callable[..., BatchStream]) -> None:
    batches = stream()
    batches.take()
    batches.close_mosaic(get_cfg(overrides={"imgsz": 96, "task": "obb"}))
    batches.seek(3)
    batches.take()
    dataset = batches.batches.dataset
    assert {i for i, x in enumerate(dataset.ims) if x is not None} == set(batches.batches.order.indices(3))
