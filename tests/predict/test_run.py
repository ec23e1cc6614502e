"""Whole predictions in tiles, on real files, with a detector that sees pixels."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from ds2d2_yolo.bridge.inference import tile_detector
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.predict.run import NOT_DECIDING, predict
from ds2d2_yolo.predict.writing import unique_stems
from ds2d2_yolo.utils.detections import box_corners
from tests.helpers.rasters import NAMES, drawn, objects_of, write_raster

WIDTH, HEIGHT = 700, 520
TILED = ("tiled", "blockxsize", "blockysize", "compress")
Go = Callable[..., Any]


def assert_same(rows: NDArray[np.float64], objects: NDArray[np.float64], least: float = 0.8) -> None:
    a, b = (shapely.polygons(box_corners(r)) for r in (rows, objects))
    shared = shapely.area(shapely.intersection(a[:, None], b[None]))
    iou = shared / (shapely.area(a)[:, None] + shapely.area(b)[None] - shared)
    iou[rows[:, None, 6] != objects[None, :, 6]] = 0
    assert len(rows) == len(objects)
    assert (iou.max(0) > least).all()


def table(result: Any) -> NDArray[np.float64]:
    data = result.obb.data if result.obb is not None else None
    assert data is not None
    return np.asarray(data)


@pytest.fixture
def objects() -> NDArray[np.float64]:
    return objects_of(WIDTH, HEIGHT, 30)


@pytest.fixture
def scene(tmp_path: Path, objects: NDArray[np.float64]) -> Path:
    return write_raster(tmp_path / "scene.tif", drawn(objects, WIDTH, HEIGHT))


@pytest.mark.parametrize(("side", "overlap"), [(200, 0.35), (256, 0.3), (333, 0.25), (2000, 0.2)])
@pytest.mark.parametrize("driver", ["GTiff", "PNG"])
def test_every_object_is_found_once_at_its_place(
    bright: Go, tmp_path: Path, objects: NDArray[np.float64], side: int, overlap: float, driver: str
) -> None:
    layout = {} if driver == "GTiff" else {"driver": "PNG", "tiled": None, "blockxsize": None, "blockysize": None}
    pixels = drawn(objects, WIDTH, HEIGHT)
    path = write_raster(tmp_path / f"scene.{driver[-3:].lower()}", pixels, **{**layout, "compress": None})
    predicted = bright(source=str(path), slice=side, overlap=overlap)
    assert_same(table(predicted.results[0]), objects)
    assert predicted.results[0].orig_shape == (HEIGHT, WIDTH)
    assert predicted.results[0].orig_img.base.nbytes == 1
    assert not list((tmp_path / "runs" / "p").glob(".parts*"))


def test_files_hold_what_was_found(bright: Go, scene: Path, objects: NDArray[np.float64], tmp_path: Path) -> None:
    predicted = bright(source=str(scene), formats="geojson,csv,dota,picture", save_txt=True)
    folder = tmp_path / "runs" / "p"
    detections = table(predicted.results[0])
    lines = (folder / "Task1" / "Task1_small-vehicle.txt").read_text().splitlines()
    with zipfile.ZipFile(folder / "Task1.zip") as archive:
        assert archive.namelist() == ["Task1_small-vehicle.txt", "Task1_ship.txt"]
        assert archive.read("Task1_small-vehicle.txt").decode().splitlines() == lines
    vehicles = detections[detections[:, 6] == 0]
    assert [line.split()[0] for line in lines] == ["scene"] * len(vehicles)
    numbers = np.array([line.split()[1:] for line in lines], float)
    np.testing.assert_allclose(numbers[:, 0], vehicles[:, 5], atol=1e-6)
    np.testing.assert_allclose(numbers[:, 1:].reshape(-1, 4, 2), box_corners(vehicles), atol=0.006)
    upright = np.array([t.split()[1:] for t in (folder / "Task2" / "Task2_ship.txt").read_text().splitlines()], float)
    ships = box_corners(detections[detections[:, 6] == 1])
    np.testing.assert_allclose(upright[:, 1:], np.concatenate([ships.min(1), ships.max(1)], 1), atol=0.006)
    rows = (folder / "detections.csv").read_text().splitlines()
    assert rows[0].startswith("image,class_id,class,score,x,y,w,h,angle,x1")
    assert len(rows) == 1 + len(objects)
    assert {r.split(",")[2] for r in rows[1:]} == set(NAMES.values())
    assert len((folder / "labels" / "scene.txt").read_text().splitlines()) == len(objects)
    geojson = json.loads((folder / "scene.geojson").read_text())
    assert geojson["coordinate_space"].startswith("pixels")
    assert len(geojson["features"]) == len(objects)
    assert (folder / "scene.jpg").stat().st_size > 1000
    assert "30 objects" in str(predicted)
    assert "15 ship" in str(predicted)


@pytest.mark.parametrize("task", ["obb", "detect"])
def test_a_scene_where_nothing_is_found_has_its_files_too(bright: Go, tmp_path: Path, task: str) -> None:
    path = write_raster(tmp_path / "dark.tif", np.full((3, 300, 300), 9, np.uint8))
    predicted = bright(task=task, source=str(path), formats="geojson,csv,dota,picture", save_txt=True)
    folder = tmp_path / "runs" / "p"
    assert len(predicted.results[0]) == 0
    assert json.loads((folder / "dark.geojson").read_text())["features"] == []
    assert len((folder / "detections.csv").read_text().splitlines()) == 1
    assert "nothing found" in str(predicted)
    assert "no small vehicle, ship; a placeholder of score 0 stands for each" in str(predicted)


def evaluated(file: Path, images: set[str], columns: int) -> NDArray[np.float64]:
    """Read a submission as DOTA_devkit's evaluation does, which indexes all of it as a table; scores first."""
    lines = [line.strip().split(" ") for line in file.read_text().splitlines()]
    assert {line[0] for line in lines} <= images
    boxes = np.array([[float(v) for v in line[2:]] for line in lines])
    boxes = boxes[np.argsort([-float(line[1]) for line in lines]), :]
    assert boxes.shape == (len(lines), columns)
    return np.concatenate([np.array([[float(line[1])] for line in lines]), boxes], 1)


@pytest.mark.parametrize("slice", [200, None])
def test_dotas_evaluation_reads_the_files_of_classes_without_detections(
    bright: Go, tmp_path: Path, objects: NDArray[np.float64], slice: int | None
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    ships = objects[objects[:, 6] == 1]
    write_raster(folder / "dark.tif", np.full((3, 300, 300), 9, np.uint8))
    write_raster(folder / "ships.tif", drawn(ships, WIDTH, HEIGHT))
    predicted = bright(source=str(folder), slice=slice, formats="dota")
    for task, columns in (("Task1", 8), ("Task2", 4)):
        table = evaluated(tmp_path / f"runs/p/{task}/{task}_ship.txt", {"dark", "ships"}, columns)
        assert len(table) == len(ships)
        assert (table[:, 0] > 0).all()
        placeholder = evaluated(tmp_path / f"runs/p/{task}/{task}_small-vehicle.txt", {"dark", "ships"}, columns)
        assert placeholder[:, 0].tolist() == [0]
        assert placeholder[:, 1:].max() < 0, "outside the image, where no object is"
        with zipfile.ZipFile(tmp_path / f"runs/p/{task}.zip") as archive:
            assert archive.read(f"{task}_small-vehicle.txt")
    assert "Task1 and Task2: no small vehicle; a placeholder" in str(predicted)


def test_a_detect_model_has_upright_boxes_and_task_2_alone(bright: Go, scene: Path, tmp_path: Path) -> None:
    predicted = bright(task="detect", source=str(scene), formats=["dota"])
    assert predicted.results[0].obb is None
    assert predicted.results[0].boxes.xyxy.shape == (30, 4)
    assert not (tmp_path / "runs" / "p" / "Task1").exists()
    with pytest.raises(BadUseError, match="task1 wants oriented boxes"):
        bright(task="detect", source=str(scene), formats=["task1"])


def test_a_killed_run_goes_on_with_the_same_command(bright: Go, scene: Path, tmp_path: Path) -> None:
    expected = table(bright(source=str(scene), name="uninterrupted").results[0])
    total = bright.detector.calls  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        bright(source=str(scene), stop_at=total // 2 + 2)
    done = len(list((tmp_path / "runs/p/.parts").glob("*.npz")))
    assert done >= 2
    assert not list((tmp_path / "runs/p").glob("*.csv"))
    resumed = bright(source=str(scene))
    assert bright.detector.calls < total  # type: ignore[attr-defined]
    assert resumed.folder == tmp_path / "runs/p"
    np.testing.assert_array_equal(table(resumed.results[0]), expected)
    assert bright(source=str(scene)).folder.name == "p-2"  # a finished run is never touched


def test_another_command_does_not_go_on_with_it(bright: Go, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        bright(source=str(scene), stop_at=4)
    assert bright(source=str(scene), conf=0.5).folder.name == "p-2"
    with scene.open("ab") as file:  # another image of the same name
        file.write(b"\0")
    assert bright(source=str(scene)).folder.name == "p-3"
    with pytest.raises(KeyboardInterrupt):
        bright(source=str(scene), name="q", stop_at=4)
    scene.with_name("scene.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")  # it may name a nodata value
    assert bright(source=str(scene), name="q").folder.name == "q-2"
    assert (tmp_path / "runs/p/.parts").is_dir()


@pytest.mark.parametrize("side", [200, None])
def test_the_progress_goes_to_standard_error(
    bright: Go, scene: Path, side: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    for keys, title in (({}, "tiles" if side else "images"), ({"verbose": False}, "")):
        bright(source=str(scene), slice=side, **keys)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.partition("\n")[0] == title


def test_tiles_without_data_are_skipped(bright: Go, tmp_path: Path, objects: NDArray[np.float64]) -> None:
    pixels = drawn(objects, WIDTH, HEIGHT)
    pixels[:, :, 350:] = 0
    path = write_raster(tmp_path / "half.tif", pixels, nodata=0)
    predicted = bright(source=str(path), batch=1)
    image = predicted.images[0]
    assert image.tiles == 5 * 4
    assert image.empty == 2 * 4
    assert bright.detector.calls == 3 * 4  # type: ignore[attr-defined]


def test_a_folder_goes_on_behind_a_damaged_file(bright: Go, tmp_path: Path, objects: NDArray[np.float64]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 99, (3, 400, 400), dtype=np.uint8)
    good, bad = (write_raster(folder / name, pixels, compress=None) for name in ("b.tif", "a.tif"))
    bad.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    with pytest.raises(DS2D2Error, match=r"a\.tif is cut off or damaged at pixels .*the other 1 are in") as caught:
        bright(source=str(folder))
    assert caught.value.status == 1
    assert "\n" not in str(caught.value)
    assert (tmp_path / "runs/p/b.geojson").exists()
    assert not (tmp_path / "runs/p/a.geojson").exists()
    bad.write_bytes(good.read_bytes())
    assert len(bright(source=str(folder)).images) == 2


def test_a_folder_goes_on_behind_a_file_that_is_no_image(bright: Go, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    write_raster(folder / "b.tif", np.zeros((3, 300, 300), np.uint8))
    (folder / "._b.tif").write_bytes(b"\x00\x05\x16\x07 what macOS writes beside b.tif on other file systems")
    assert len(bright(source=str(folder)).images) == 1
    (folder / "a.jpg").touch()
    (folder / "c.jpg").write_bytes(b"no image")
    message = r"a\.jpg cannot be read as an image.*; 1 more of 3 images failed; the other 1 are in"
    with pytest.raises(DS2D2Error, match=message) as caught:
        bright(source=str(folder))
    assert caught.value.status == 1
    assert "\n" not in str(caught.value)
    assert (tmp_path / "runs/p-2/b.geojson").exists()
    assert (tmp_path / "runs/p-2/detections.csv").exists()


def test_a_folder_of_files_that_are_no_images_is_bad_use(bright: Go, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.png"):
        (folder / name).touch()
    with pytest.raises(BadUseError, match=r"a\.jpg cannot be read as an image"):
        bright(source=str(folder))
    assert not (tmp_path / "runs").exists()


def test_a_list_of_images_may_begin_with_a_byte_order_mark(bright: Go, tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.zeros((3, 300, 300), np.uint8))
    (tmp_path / "list.txt").write_text("a.tif\r\n", encoding="utf-8-sig")
    assert len(bright(source=str(tmp_path / "list.txt")).images) == 1


def test_dota_names_must_tell_images_apart(bright: Go, tmp_path: Path, scene: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "scene.tif").write_bytes(scene.read_bytes())
    (tmp_path / "list.txt").write_text("scene.tif\nother/scene.tif\n")
    with pytest.raises(BadUseError, match="without suffix and folder"):
        bright(source=str(tmp_path / "list.txt"), formats=["dota"])
    predicted = bright(source=str(tmp_path / "list.txt"), formats=["geojson"])
    assert sorted(p.name for p in predicted.files) == ["scene-2.geojson", "scene.geojson"]
    (tmp_path / "a b.tif").write_bytes(scene.read_bytes())
    with pytest.raises(BadUseError, match="rename"):
        bright(source=str(tmp_path / "a b.tif"), formats=["task2"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"source": None}, "source= missing"),
        ({"source": "nowhere.tif"}, "source=nowhere.tif does not exist"),
        ({"source": "no*.tif"}, "matches no image"),
        ({"slice": 8}, "slice=8 must be a whole number of at least 32"),
        ({"overlap": 1.0}, "overlap=1.0 must be a finite number"),
        ({"ovrelap": 0.3}, "did you mean 'overlap'"),
        ({"formats": "geojson,dotta"}, "did you mean 'dota'"),
        ({"stretch": [98, 2]}, "the lower first"),
        ({"stretch": "atuo"}, "did you mean 'auto'"),
        ({"bands": [1, 2]}, "bands=.1, 2. are 2, the model takes 3"),
        ({"bands": [1, 2, 7]}, "has 3 bands"),
        ({"memory": 0.001}, "batch=4 of 200 px take 4 MiB"),
        ({"conf": 2}, "conf"),
        ({"classes": 2}, "classes=2: the model has 2 classes, 0 to 1"),
        ({"classes": [0, -1]}, "the model has 2 classes, 0 to 1"),
        ({"classes": 2, "slice": None}, "the model has 2 classes, 0 to 1"),
        ({"show": True}, "show= cannot go with slice="),
        ({"slice": None, "overlap": 0.2}, "overlap= only mean something with slice="),
        ({"mode": "train"}, "mode= cannot be given"),
    ],
)
def test_bad_use_is_one_line(bright: Go, scene: Path, keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadUseError, match=message) as caught:
        bright(**{"source": str(scene), **keys})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_missing_package_is_named_with_the_command(bright: Go, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(BadUseError, match=r"slice= needs rasterio: pip install 'ds2d2-yolo\[geo\]'"):
        bright(source=str(scene))


def test_what_the_geojson_of_a_plain_prediction_lacks_is_named_before_it_predicts(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    monkeypatch.setattr(tile_detector, "load_detector", lambda _: SimpleNamespace(task="obb", names=NAMES))
    monkeypatch.setattr(tile_detector, "plain_results", lambda *_: pytest.fail("predicts first"))
    with pytest.raises(BadUseError, match=r"formats=geojson of a TIFF or JPEG 2000 needs rasterio: pip install"):
        predict(model="model.pt", source=str(scene), formats="geojson")


def test_folders_without_images_and_files_that_are_none(bright: Go, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.tif").write_bytes(b"no image")
    (tmp_path / "list.txt").write_text("gone.tif\n")
    for source, message in (("empty", "folder without images"), ("bad.tif", "cannot be read as an image"),
                         ("list.txt", "gone.tif, which does not exist")):  # fmt: skip
        with pytest.raises(BadUseError, match=message):
            bright(source=str(tmp_path / source))


def test_each_image_has_a_file_name_of_its_own() -> None:
    names = unique_stems([Path("a.png"), Path("a.tif"), Path("a-2.png"), Path("A.jpg"), Path("b.png")])
    assert names == ["a", "a-2", "a-2-2", "A-3", "b"]


def test_resume_is_a_word_and_no_other_run() -> None:
    assert {"resume", "workers", "plots"} <= NOT_DECIDING


@pytest.mark.parametrize("save", [False, True])
def test_pictures_without_tiles_are_those_of_ultralytics(
    tmp_path: Path, checkpoint: Callable[..., Path], save: bool
) -> None:
    path = write_raster(
        tmp_path / "a.png", np.zeros((3, 96, 96), np.uint8), **{"driver": "PNG", **dict.fromkeys(TILED)}
    )
    keys = {"imgsz": 96, "device": "cpu", "save": save, "project": str(tmp_path / "runs"), "name": "p"}
    predict(model=str(checkpoint("yolov8n.yaml")), source=str(path), formats="picture,csv", **keys)
    names = {p.name for p in (tmp_path / "runs" / "p").iterdir()}
    assert "detections.csv" in names
    assert {n for n in names if n.startswith("a.")} <= {"a.png", "a.jpg"}
    assert len(names) == 2
