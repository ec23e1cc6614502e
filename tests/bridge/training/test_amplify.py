"""An amplifier on its own: the teacher's classes that the data have, what is kept, and what is refused."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.data.utils import load_dataset_cache_file
from ultralytics.utils import __version__ as ultralytics_version

from ds2d2_yolo import __version__
from ds2d2_yolo.bridge.models.amplifier_store import amplifier_folder, load_amplifier
from ds2d2_yolo.bridge.training.amplifier_trainer import AmplifierOBBTrainer, AmplifierTrainer
from ds2d2_yolo.bridge.training.amplify import AmplifierResult, amplify
from ds2d2_yolo.errors import BadUseError
from tests.helpers.taught import CONF, NAMES, SIZE, rename, write_taught

pytestmark = pytest.mark.usefixtures("unhurried")
KEYS = {
    "imgsz": SIZE, "batch": 4, "nbs": 4, "device": "cpu", "optimizer": "AdamW", "lr0": 0.0003, "warmup_epochs": 0,
    "mosaic": 0.0, "seed": 3, "conf": CONF, "amplifier_epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A teacher of oriented boxes and a data set that it knows."""
    return write_taught(tmp_path_factory.mktemp("taught"), "obb")


@pytest.fixture
def run(taught: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AmplifierResult]:
    """Amplify on some data, by default the teacher's own, in an empty working folder and with nothing kept."""
    monkeypatch.setattr("ds2d2_yolo.bridge.models.amplifier_store.USER_CONFIG_DIR", tmp_path / "config")
    (tmp_path / "working_folder").mkdir()
    monkeypatch.chdir(tmp_path / "working_folder")

    def go(data: Path | None = None, **keys: Any) -> AmplifierResult:
        return amplify(taught[0], data or taught[1], **{**KEYS, **keys})

    return go


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs of each training that was begun."""
    seen: list[int] = []
    original = AmplifierOBBTrainer.train

    def train(self: AmplifierOBBTrainer) -> None:
        seen.append(self.epochs)
        original(self)

    monkeypatch.setattr(AmplifierOBBTrainer, "train", train)
    return seen


def same_head(first: AmplifierResult, second: AmplifierResult) -> bool:
    """Return whether two amplifiers have the same weights to the bit."""
    first_head, second_head = (load_amplifier(r.file)[0] for r in (first, second))
    return first_head.keys() == second_head.keys() and all(
        torch.equal(first_head[k], second_head[k]) for k in first_head
    )


def test_the_teachers_size_is_that_of_its_amplifier(run: Callable[..., AmplifierResult], trainings: list[int]) -> None:
    """A run whose teacher sees more finds the amplifier of that size, and not that of the student's."""
    half = run(imgsz=SIZE // 2, teacher_imgsz=SIZE)
    assert half.card.imgsz == SIZE
    assert run(imgsz=SIZE).file == half.file
    assert trainings == [1]


@pytest.mark.slow
def test_another_order_gives_the_same_amplifier(
    taught: tuple[Path, Path], run: Callable[..., AmplifierResult], tmp_path: Path
) -> None:
    plain = run()
    turned = rename(taught[1], ("Blue", "red", "GREEN"), tmp_path / "turned", {0: 1, 1: 2, 2: 0})
    mapped = run(turned)
    assert mapped.file != plain.file
    assert mapped.card.shared == ("Blue", "red", "GREEN")
    assert mapped.card.classes == plain.card.classes == NAMES
    assert same_head(plain, mapped)
    measured = [(c.map50, c.map50_95, c.teacher_map50, c.teacher_map50_95) for c in (plain.card, mapped.card)]
    assert measured[0] == measured[1]
    assert min(measured[0]) > 0
    in_training = dict(zip(*csv.reader(mapped.file.with_suffix(".csv").open()), strict=True))
    assert mapped.card.map50 == pytest.approx(float(in_training["metrics/mAP50(B)"]), abs=0.01)
    assert mapped.card.map50 < mapped.card.teacher_map50 - 0.02
    cached = load_dataset_cache_file(tmp_path / "turned" / "labels" / "train.cache")["labels"]
    assert len(cached) == 8
    for label in cached:  # the data's own classes, not the teacher's
        text = Path(label["im_file"].replace("images", "labels")).with_suffix(".txt").read_text()
        assert label["cls"].ravel().tolist() == [int(row.split()[0]) for row in text.splitlines()]


def test_partial_overlap_is_as_if_the_other_boxes_were_not_there(
    taught: tuple[Path, Path], run: Callable[..., AmplifierResult], tmp_path: Path
) -> None:
    apart = rename(taught[1], ("boat", "blue", "car", "red"), tmp_path / "apart", {0: 3, 1: 0, 2: 1})
    without = rename(taught[1], NAMES, tmp_path / "without", {0: 0, 2: 2})
    mapped, plain = run(apart, cls_pw=0.5), run(without, cls_pw=0.5)
    assert mapped.card.shared == ("blue", "red")
    assert same_head(plain, mapped)
    assert (mapped.card.map50, mapped.card.teacher_map50) == (plain.card.map50, plain.card.teacher_map50)
    assert mapped.card.teacher_map50 > 0
    head = load_amplifier(mapped.file)[0]
    assert head["cv3.0.2.weight"].shape[0] == len(NAMES)


def test_nothing_in_common_is_refused(
    taught: tuple[Path, Path], run: Callable[..., AmplifierResult], tmp_path: Path
) -> None:
    strange = rename(taught[1], ("a", "b", "c"), tmp_path / "strange", {0: 0, 1: 1, 2: 2})
    with pytest.raises(BadUseError, match=r"no class is shared: the data have a, b, c; .* name the classes alike"):
        run(strange)
    apart = rename(taught[1], ("red", "boat"), tmp_path / "apart", {0: 0, 1: 1})
    with pytest.raises(BadUseError, match=r"1 of the data's 2 classes .*, and classes=1 takes none of these"):
        run(apart, classes=1)
    rare = rename(taught[1], ("red", "x", "y"), tmp_path / "rare", {1: 1, 2: 2})
    with pytest.raises(BadUseError, match="no training label is of a class that the teacher has"):
        run(rare)
    assert not list((tmp_path / "working_folder").iterdir())


def test_is_found_again_by_content(
    run: Callable[..., AmplifierResult], trainings: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(amplifier_epochs=2)
    message = caplog.messages[-1]
    assert message == f"DS2D2: high-frequency amplifier kept: {first.file} ({first.card.reached})"
    again = run(amplifier_epochs=None, epochs=4)  # a quarter: fewer than were trained
    assert caplog.messages[-1] == message.replace("kept:", "found:")
    assert trainings == [2]
    assert again == first
    assert first.card.ultralytics == ultralytics_version
    assert (first.card.torch, first.card.ds2d2) == (str(torch.__version__), __version__)
    run(wavelet="db2")
    assert trainings == [2, 1]
    assert not list((tmp_path / "working_folder").iterdir())


@pytest.mark.slow
def test_more_epochs_replace_it_and_so_does_damage(run: Callable[..., AmplifierResult], trainings: list[int]) -> None:
    first = run(amplifier_epochs=1)
    more = run(amplifier_epochs=None, epochs=8)
    assert trainings == [1, 2]
    assert more.file == first.file
    assert (first.card.epochs, more.card.epochs, load_amplifier(more.file)[1].epochs) == (1, 2, 2)
    assert sorted(p.suffix for p in amplifier_folder().iterdir()) == [".csv", ".lock", ".safetensors"]
    first.file.write_bytes(b"broken")
    assert run(amplifier_epochs=1) == first
    assert trainings == [1, 2, 1]


def test_goes_on_where_it_was_cut_off(
    run: Callable[..., AmplifierResult], trainings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []
    original = AmplifierOBBTrainer.save_model

    def cut(self: AmplifierOBBTrainer) -> bool:
        starts.append(self.start_epoch)
        saved = original(self)
        if len(starts) == 1:
            raise KeyboardInterrupt
        return saved

    monkeypatch.setattr(AmplifierOBBTrainer, "save_model", cut)
    with pytest.raises(KeyboardInterrupt):
        run(amplifier_epochs=3)
    assert run(amplifier_epochs=3).card.epochs == 3
    assert starts == [0, 1, 1]
    assert not [p for p in amplifier_folder().iterdir() if p.is_dir()]


@pytest.mark.slow
def test_an_unfinished_training_of_an_earlier_version_is_dropped(
    run: Callable[..., AmplifierResult], trainings: list[int]
) -> None:
    """Its checkpoints name modules that are no more; Ultralytics would look for packages of these names."""
    first = run()
    first.file.unlink()
    earlier = amplifier_folder() / f"{first.card.key}-1" / "weights"
    earlier.mkdir(parents=True)
    (earlier / "last.pt").write_bytes(b"names modules that are no more")
    assert run() == first
    assert trainings == [1, 1]
    assert not earlier.parent.exists()


def test_upright_boxes(tmp_path: Path, run: Callable[..., AmplifierResult], monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[type] = []
    original = AmplifierTrainer.train
    monkeypatch.setattr(AmplifierTrainer, "train", lambda self: (kinds.append(type(self)), original(self)))
    teacher, data = write_taught(tmp_path / "upright", "detect")
    card = amplify(teacher, data, **KEYS).card
    assert kinds == [AmplifierTrainer]
    keys = {"data": str(data), "imgsz": SIZE, "batch": 8, "conf": CONF, "device": "cpu", "plots": False}
    teacher_metrics = YOLO(teacher).val(**keys, verbose=False).box
    assert (card.teacher_map50, card.teacher_map50_95) == (float(teacher_metrics.map50), float(teacher_metrics.map))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"wavlet": "haar"}, r"unknown key: 'wavlet' \(did you mean 'wavelet'\?\); 'ds2d2-yolo help amplify'"),
        ({"imgz": 96}, r"'imgz' \(did you mean 'imgsz'\?\)"),
        ({"student": "s.pt"}, "unknown key: 'student'"),
        ({"wavelet": "har"}, "wavelet='har' must be a discrete wavelet"),
        ({"imgsz": "big"}, "imgsz"),
        ({"project": "p", "resume": True}, "project=, resume= has no meaning for an amplifier"),
        ({"teacher": None}, "teacher= missing"),
        ({"data": None}, "data= missing: ds2d2-yolo amplify"),
        ({"data": "nowhere.yaml"}, r"data=nowhere\.yaml: "),
    ],
)
def test_bad_use_is_refused(keys: dict[str, Any], message: str, taught: tuple[Path, Path]) -> None:
    with pytest.raises(BadUseError, match=message):
        amplify(**{"teacher": taught[0], "data": taught[1], **keys})
