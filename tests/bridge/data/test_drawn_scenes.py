"""Packaged scenes are drawn where Ultralytics looks for them, once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ds2d2_yolo.bridge.data import drawn_scenes
from ds2d2_yolo.bridge.data.drawn_scenes import draw_packaged_scenes
from ds2d2_yolo.config.resources import resolve_data, resource_dir


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, dict[str, Any]]]:
    """Calls of `write_dataset`, which draws nothing here."""
    calls: list[tuple[Path, dict[str, Any]]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(drawn_scenes, "datasets_dir", lambda: tmp_path / "datasets")
    monkeypatch.setattr(drawn_scenes, "write_dataset", lambda root, **keys: calls.append((root, keys)))
    return calls


def report(count: int, total: int) -> None:
    """Take the progress."""


def test_draws_what_the_yaml_names(written: list[tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    draw_packaged_scenes(resolve_data("aerial-scenes-small.yaml"), report)
    scenes = {"train": 192, "val": 64, "imgsz": 320, "seed": 0, "progress": report}
    assert written == [(tmp_path / "datasets" / "aerial-scenes-small", scenes)]


@pytest.mark.parametrize("folder", ["datasets/aerial-scenes-small", "aerial-scenes-small"])
def test_existing_scenes_stay(folder: str, written: list[tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(parents=True)
    draw_packaged_scenes(resolve_data("aerial-scenes-small.yaml"), report)
    assert not written


def test_other_data_are_left_to_ultralytics(written: list[tuple[Path, dict[str, Any]]], tmp_path: Path) -> None:
    draw_packaged_scenes(str(shutil.copy(resource_dir("data") / "aerial-scenes.yaml", tmp_path)), report)
    draw_packaged_scenes(resolve_data("dota.yaml"), report)
    draw_packaged_scenes("nowhere.yaml", report)
    assert not written
