"""Options and whole files: what every mode relies on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.options import Options, option
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.atomic_files import replacing, write_atomically, write_json


@dataclass(frozen=True)
class Slicing(Options):
    """Options of a made-up mode."""

    overlap: float = option(0.2, ok.number(0, 0.9), "share of a tile that its neighbour repeats")
    tile: int = option(1024, ok.integer(32), "side of a tile in pixels")

    def _contradictions(self) -> list[str]:
        return ["overlap needs room"] if self.overlap and self.tile < 64 else []


def test_every_wrong_value_is_named_at_once() -> None:
    with pytest.raises(BadUseError, match=r"overlap=2 must be .*; tile='x' must be a whole number"):
        Slicing.of({"overlap": 2, "tile": "x"}, "predict")


def test_contradictions_are_looked_at_when_the_values_are_fine() -> None:
    with pytest.raises(BadUseError, match=r"^overlap needs room$"):
        Slicing(tile=32)


def test_unknown_keys_name_the_nearest_and_passing_keys_pass() -> None:
    assert Slicing.of({"imgsz": 640, "tile": 64}, "predict", passing=["imgsz"]).tile == 64
    with pytest.raises(BadUseError, match=r"'tle' \(did you mean 'tile'\?\); 'ds2d2-yolo help predict'"):
        Slicing.of({"tle": 64}, "predict", passing=["imgsz"])


@pytest.mark.parametrize(
    ("check", "takes"),
    [
        (ok.number(0), "0 or more"),
        (ok.number(0, 1), "0 to 1"),
        (ok.number(0, above=True), "above 0"),
        (ok.number(0, 1, above=True), "above 0 to 1"),
        (ok.optional(ok.many(ok.integer(1))), "list (whole, 1 or more)"),
        (ok.either(ok.one_of("auto"), ok.number(0)), "auto | 0 or more"),
        (ok.flag, "True | False"),
    ],
)
def test_a_check_says_what_it_takes(check: ok.Check, takes: str) -> None:
    assert check.takes == takes


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "x.json"
    write_json(file, {"a": "ü"})
    before = file.read_bytes()

    def fail() -> None:
        with replacing(file) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert file.read_bytes() == before == b'{\n  "a": "\xc3\xbc"\n}\n'
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(file.parent.iterdir()) == [file], "nothing temporary is left"
