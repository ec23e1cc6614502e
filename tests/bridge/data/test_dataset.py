"""What is read of a data set before training: its images, its labels, its identity."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ultralytics.cfg import get_cfg
from ultralytics.data.base import BaseDataset
from ultralytics.data.utils import check_det_dataset

from ds2d2_yolo.bridge.data.class_map import match_classes
from ds2d2_yolo.bridge.data.dataset import data_hash, load_data, map_to_teacher_classes
from ds2d2_yolo.bridge.data.images import label_paths, list_images
from ds2d2_yolo.bridge.data.label_checks import check_labels
from ds2d2_yolo.errors import BadUseError


def test_images_of_folders_and_lists(data: dict[str, Any], tmp_path: Path) -> None:
    images = list_images(data["train"])
    assert len(images) == 8
    list_file = tmp_path / "copy" / "train.txt"
    list_file.write_text("\n".join([str(images[0]), "./images/train/" + images[1].name]))
    assert [p.name for p in list_images(str(list_file))] == [images[0].name, images[1].name]
    assert len(list_images([data["train"], data["val"]])) == 16
    spaced = tmp_path / "my data" / "a b.png"
    list_file.write_text(f"{spaced}\n{tmp_path / 'notes.md'}\n", encoding="utf-8-sig")
    assert list_images(str(list_file)) == [spaced]


def test_images_are_those_that_ultralytics_finds(data: dict[str, Any], tmp_path: Path) -> None:
    """Another list would check, count and hash other labels than those that are trained on."""
    train, store = Path(data["train"]), tmp_path / "store"
    shutil.copytree(train, store / "a")
    (train / "a").symlink_to(store / "a", target_is_directory=True)
    shutil.copy(next(train.glob("*.*")), train / ".hidden.png")
    list_file = train.parent / "train.txt"
    list_file.write_text("./train/.png\n.//train/a/0.png\n./train/a/b.PNG\nc.txt\n", encoding="utf-8")
    finder = BaseDataset.__new__(BaseDataset)
    finder.prefix, finder.fraction = "", 1.0
    for split in (str(train), str(list_file), [str(list_file), str(train)]):
        ultralytics_images = [Path(x) for x in finder.get_img_files(split)]
        assert list_images(split) == ultralytics_images
        assert len(ultralytics_images) in (3, 16, 19)


def test_labels_are_checked(data: dict[str, Any]) -> None:
    check_labels(data, "obb")
    check_labels(data, "detect")  # Ultralytics takes the hull of oriented boxes
    with pytest.raises(BadUseError, match="no training images"):
        check_labels({**data, "train": str(Path(data["train"]).parent / "nothing")}, "obb")


def test_hash_follows_labels_names_and_images(data: dict[str, Any]) -> None:
    first = data_hash(data)
    assert data_hash(data) == first
    assert data_hash({**data, "names": {0: "green", 1: "red"}}) != first
    image = list_images(data["train"])[0]
    label = Path(str(image).replace("images", "labels")).with_suffix(".txt")
    text = label.read_text()
    label.write_text(text + "\n0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2")
    assert data_hash(data) != first
    label.write_text(text)
    assert data_hash(data) == first
    image.write_bytes(image.read_bytes() + b"\0")
    assert data_hash(data) != first


def test_hash_does_not_depend_on_the_place(data: dict[str, Any], tiny_data: Callable[[str], Path]) -> None:
    assert data_hash(data) == data_hash(check_det_dataset(tiny_data("obb")))


def test_labels_take_the_teachers_classes() -> None:
    cls = np.array([[0], [2], [1], [2]], dtype=np.float32)
    segments = [np.full((4, 2), i) for i in range(4)]
    oriented = {"cls": cls, "bboxes": np.arange(16).reshape(4, 4), "segments": segments, "keypoints": None}
    upright = {"cls": cls[:2], "bboxes": np.arange(8).reshape(2, 4), "segments": [], "keypoints": np.arange(2)}
    empty = {"cls": np.zeros((0, 1), np.float32), "bboxes": np.zeros((0, 4)), "segments": []}
    class_map = match_classes(("car", "ship", "boat"), ("boat", "tree", "car"))
    labels = [oriented, upright, empty]
    assert map_to_teacher_classes(labels, class_map) == 5
    assert oriented["cls"].tolist() == [[2], [0], [0]]
    assert oriented["cls"].dtype == np.float32
    assert oriented["bboxes"][:, 0].tolist() == [0, 4, 12]
    assert [int(s[0, 0]) for s in oriented["segments"]] == [0, 1, 3]
    assert upright["cls"].tolist() == [[2], [0]]
    assert upright["keypoints"].tolist() == [0, 1]
    assert empty["cls"].shape == (0, 1)
    assert map_to_teacher_classes(labels, match_classes(("a", "b", "c"), ("d", "e", "f"))) == 0
    assert [len(label["bboxes"]) for label in labels] == [0, 0, 0]


def test_data_are_loaded_as_a_trainer_loads_them(data: dict[str, Any], tmp_path: Path) -> None:
    yaml = str(tmp_path / "copy" / "data.yaml")
    assert load_data(get_cfg(overrides={"data": yaml})) == data
    single = load_data(get_cfg(overrides={"data": yaml, "single_cls": True}))
    assert (single["names"], single["nc"]) == ({0: "item"}, 1)
    with pytest.raises(BadUseError, match=r"data=.*nowhere\.yaml: .*does not exist"):
        load_data(get_cfg(overrides={"data": str(tmp_path / "nowhere.yaml")}))


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_that_a_list_names_and_do_not_exist_are_named(split: str, data: dict[str, Any], tmp_path: Path) -> None:
    names = tmp_path / "list.txt"
    names.write_text("".join(f"{image.name}\n" for image in list_images(data[split])))
    kind = {"train": "training", "val": "validation"}[split]
    with pytest.raises(BadUseError, match=rf"none of the 8 {kind} images is there, such as ") as caught:
        check_labels({**data, split: str(names)}, "obb")
    assert "no labels" not in str(caught.value)
    assert str(names) in str(caught.value)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_labels_is_named(split: str, data: dict[str, Any]) -> None:
    for label in label_paths(list_images(data[split])):
        label.unlink()
    kind = {"train": "training", "val": "validation"}[split]
    with pytest.raises(BadUseError, match=rf"no labels for the 8 {kind} images: expected \.txt files in .*{split}$"):
        check_labels(data, "obb")
