"""Writing the data set: whole or not at all, the same whatever the number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from ds2d2_yolo.scenes import NAMES, dataset, write_dataset

DATA = Path(__file__).resolve().parents[2] / "data"


def contents(root: Path) -> dict[str, bytes]:
    """Return every file under a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def run(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start a script that has no guard of its main module."""
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    path = os.pathsep.join([str(DATA.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen([sys.executable, str(script)], env=environment, text=True, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def serial_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set drawn without further processes."""
    root = tmp_path_factory.mktemp("serial_dataset") / "scenes"
    write_dataset(root, train=3, val=2, imgsz=320, workers=1)
    return root


def test_files_lie_where_ultralytics_looks_for_them(serial_dataset: Path) -> None:
    names = sorted(contents(serial_dataset))
    assert len(names) == 10
    assert sum(name.endswith(".jpg") for name in names) == 5
    for image in serial_dataset.glob("images/*/*.jpg"):
        assert (serial_dataset / "labels" / image.parent.name / f"{image.stem}.txt").is_file()
        assert cv2.imread(str(image)).shape == (320, 320, 3)


def test_label_lines_hold_a_class_and_four_corners(serial_dataset: Path) -> None:
    rows = [line.split() for path in serial_dataset.glob("labels/*/*.txt") for line in path.read_text().splitlines()]
    assert rows
    assert {len(row) for row in rows} == {9}
    corners = np.array([row[1:] for row in rows], float)
    assert corners.min() >= 0
    assert corners.max() <= 1
    assert {int(row[0]) for row in rows} <= set(range(len(NAMES)))


def test_a_script_without_a_main_guard_draws_the_same_in_three_processes(serial_dataset: Path, tmp_path: Path) -> None:
    code = (
        "from ds2d2_yolo.scenes import write_dataset\n"
        f"write_dataset({str(tmp_path / 'scenes')!r}, train=3, val=2, imgsz=320, workers=3)\n"
    )
    process = run(code, tmp_path)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert errors.strip() == "scenes: 5/5"
    assert contents(tmp_path / "scenes") == contents(serial_dataset)


def test_an_image_does_not_depend_on_the_size_of_the_set(serial_dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "scenes", train=1, val=1, imgsz=320, workers=1)
    expected = contents(serial_dataset)
    assert all(expected[name] == data for name, data in contents(tmp_path / "scenes").items())


@pytest.mark.skipif(sys.platform == "win32", reason="a kill on Windows leaves files open for a moment")
def test_a_kill_leaves_no_data_set_and_no_processes(tmp_path: Path) -> None:
    code = (
        "from ds2d2_yolo.scenes import write_dataset\n"
        f"write_dataset({str(tmp_path / 'scenes')!r}, 500, 1, imgsz=320, workers=2)\n"
    )
    process = run(code, tmp_path)
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob("scenes.part-*/labels/train/*.txt")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    time.sleep(2.0)  # a worker in the middle of an image ends too
    before = len(list(tmp_path.glob("scenes.part-*/labels/train/*.txt")))
    time.sleep(1.5)
    assert len(list(tmp_path.glob("scenes.part-*/labels/train/*.txt"))) == before < 500
    assert not (tmp_path / "scenes").exists()
    write_dataset(tmp_path / "scenes", train=1, val=1, imgsz=320, workers=1)
    assert len(contents(tmp_path / "scenes")) == 4


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def fail(*_: int) -> None:
        drawn.append(1)
        raise OSError("disk full")

    monkeypatch.setattr(dataset, "draw_scene", fail)
    with pytest.raises(OSError, match="disk full"):
        write_dataset(tmp_path / "scenes", train=1, val=1, imgsz=320, workers=1)
    assert drawn
    assert not list(tmp_path.iterdir())


def test_a_failing_process_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset.sys, "executable", "/bin/false" if os.path.exists("/bin/false") else sys.executable)
    if dataset.sys.executable != "/bin/false":
        pytest.skip("needs /bin/false as a process that fails")
    with pytest.raises(RuntimeError, match="workers=1"):
        write_dataset(tmp_path / "scenes", train=2, val=1, imgsz=320, workers=2)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(FileExistsError, match="remove it"):
        write_dataset(tmp_path, train=1, val=1, imgsz=320, workers=1)
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "keep"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    write_dataset(tmp_path / "scenes", train=1, val=1, imgsz=320, workers=1)
    assert len(contents(tmp_path / "scenes")) == 4


def test_old_leftovers_are_removed_and_new_ones_kept(tmp_path: Path) -> None:
    old, new = tmp_path / "scenes.part-1", tmp_path / "scenes.part-2"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (1.0, 1.0))
    write_dataset(tmp_path / "scenes", train=1, val=1, imgsz=320, workers=1)
    assert not old.exists()
    assert new.exists()


def test_another_process_that_was_first_wins(tmp_path: Path) -> None:
    part, root = tmp_path / "scenes.part-9", tmp_path / "scenes"
    for folder in (part, root):
        (folder / "labels" / "val").mkdir(parents=True)
    (root / "labels" / "val" / "first.txt").touch()
    dataset._publish(part, root)
    assert list(contents(root)) == [os.path.join("labels", "val", "first.txt")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"train": 0}, "train=0"), ({"val": -1}, "val=-1"), ({"seed": -1}, "seed=-1"), ({"imgsz": 642}, "imgsz=642")],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "scenes", **{"train": 1, "val": 1, **wrong})
    assert not list(tmp_path.iterdir())


def test_opencv_gets_its_threads_back(serial_dataset: Path, tmp_path: Path) -> None:
    threads = cv2.getNumThreads()
    write_dataset(tmp_path / "scenes", train=1, val=1, imgsz=320, workers=1)
    assert cv2.getNumThreads() == threads


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_is_reported_up_to_the_last_image(
    workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int]] = []
    write_dataset(tmp_path / "scenes", 2, 1, imgsz=320, workers=workers, progress=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (3, 3)
    assert seen == sorted(seen)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "scenes"),
    [
        ("aerial-scenes", {"train": 256, "val": 64, "seed": 0}),
        ("aerial-scenes-large", {"train": 2048, "val": 256, "seed": 0}),
        ("aerial-scenes-small", {"train": 192, "val": 64, "imgsz": 320, "seed": 0}),
        ("aerial-scenes-teacher", {"train": 1024, "val": 64, "imgsz": 320, "seed": 1}),
    ],
)
def test_the_yaml_is_drawn_and_read_by_ultralytics(name: str, scenes: dict[str, int], tmp_path: Path) -> None:
    utils = pytest.importorskip("ultralytics.data.utils")
    settings = yaml.safe_load((DATA / f"{name}.yaml").read_text(encoding="utf-8"))
    assert settings["scenes"] == scenes
    assert settings["names"] == dict(enumerate(NAMES))
    assert settings["path"] == name
    settings["path"], settings["scenes"] = str(tmp_path / "drawn"), {"train": 2, "val": 1, "seed": 0, "imgsz": 320}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    data = utils.check_det_dataset(str(tmp_path / "small.yaml"))
    assert len(list(Path(data["train"]).iterdir())) == 2
    assert len(list(Path(data["val"]).iterdir())) == 1
    for image in Path(data["train"]).glob("*.jpg"):
        label = tmp_path / "drawn" / "labels" / "train" / f"{image.stem}.txt"
        checked = utils.verify_image_label((str(image), str(label), "", False, len(NAMES), 0, 0, False))
        assert checked[0] == str(image), checked[-1]
        assert len(checked[1]) == len(label.read_text().splitlines())
