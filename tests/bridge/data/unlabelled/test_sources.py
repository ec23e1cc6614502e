"""What `unlabelled=` may name, and what is refused."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ultralytics.data.utils import check_det_dataset

from ds2d2_yolo.bridge.data.unlabelled.sources import list_unlabelled, resolve_sources
from ds2d2_yolo.errors import BadUseError
from tests.helpers.data import picture

ARGS = Namespace(fraction=1.0, split="val")


@pytest.fixture
def data(tiny_data: Callable[[str], Path]) -> dict[str, Any]:
    """The tiny data set, its 8 training images 0.png to 7.png."""
    return dict(check_det_dataset(str(tiny_data("obb"))))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two folders with an image each and a text file."""
    for name in ("east/a.png", "west/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(picture())
    (tmp_path / "west" / "notes.md").write_text("no image")
    return tmp_path


def names(value: Any, data: dict[str, Any], args: Namespace = ARGS) -> list[str]:
    sources = resolve_sources(value, data)
    assert sources is not None
    return [image.name for image in list_unlabelled(sources, data, args)]


def test_folder_list_glob_image_and_text_file(
    archive: Path, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    list_file = archive / "some.txt"
    list_file.write_text("./west/b.png\n./west/missing.png\n", encoding="utf-8")
    assert names(str(archive), data) == ["a.png", "b.png"]
    assert names([f"{archive}/west", f"{archive}/east", f"{archive}/east/a.png"], data) == ["a.png", "b.png"]
    assert names(f"{archive}/*/?.png", data) == ["a.png", "b.png"]
    assert names(f"{archive}/e*", data) == ["a.png"], "folders that a glob matches"
    assert names(f"{archive}/west/b.png", data) == ["b.png"]
    assert names(str(list_file), data) == ["b.png", "missing.png"]
    monkeypatch.chdir(archive)
    assert resolve_sources("west", data) == str(archive / "west"), "found from another folder too"


def test_rest_is_what_fraction_leaves_out(data: dict[str, Any]) -> None:
    assert names("rest", data, Namespace(fraction=0.5, split="val")) == ["4.png", "5.png", "6.png", "7.png"]
    assert names("rest", data, Namespace(fraction=3, split="val")) == ["3.png", "4.png", "5.png", "6.png", "7.png"]
    with pytest.raises(BadUseError, match=r"fraction=1\.0 leaves out none"):
        names("rest", data)


def test_key_of_the_data_yaml(archive: Path, data: dict[str, Any]) -> None:
    with_key = {**data, "path": str(archive), "unlabelled": ["east", "west"]}
    assert names(None, with_key) == names(True, with_key) == ["a.png", "b.png"]
    assert names(f"{archive}/west", with_key) == ["b.png"], "a setting overrides the key"
    assert resolve_sources(False, with_key) is None
    assert resolve_sources(None, data) is None
    with pytest.raises(BadUseError, match="unlabelled=True takes the key"):
        resolve_sources(True, data)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{0}/wets", "wets does not exist .did you mean 'west'"),
        ("{0}/none.txt", r"none\.txt does not exist"),
        ("{0}/west/notes.md", "holds no image"),
        ("{0}/*.tif", "holds no image"),
    ],
)
def test_nothing_to_take_is_refused(value: str, message: str, archive: Path, data: dict[str, Any]) -> None:
    with pytest.raises(BadUseError, match=message) as error:
        names(value.format(archive), data)
    assert "\n" not in str(error.value)
