"""Annotation files of every kind, sound and broken."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d2_yolo.prepare import source_folder as folders
from ds2d2_yolo.prepare.formats.dota import read_dota
from ds2d2_yolo.prepare.formats.voc import voc_reader
from ds2d2_yolo.prepare.records import BrokenFileError
from tests.helpers.published import bndbox, objects_in_text, write

QUAD = ("left_top", "right_top", "right_bottom", "left_bottom")
BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""


def xml(objects: str, size: str = "<size><width>80</width><height>60</height></size>") -> str:
    return f"<annotation>{size}{objects}</annotation>"


def test_dota_lines(tmp_path: Path) -> None:
    text = (
        "\ufeffimagesource:GoogleEarth\r\ngsd:null\r\n\r\n"
        "10 20 30.5 20 30.5 40 10 40 large-vehicle 1\r\n1 2 3 4 5 6 7 8 plane\r\n"
    )
    annotation = read_dota(write(tmp_path / "P1.txt", text), 100, 100)
    assert annotation.size is None
    assert [(b.place, b.name, b.difficult) for b in annotation.boxes] == [
        ("line 4", "large-vehicle", True), ("line 5", "plane", False),
    ]  # fmt: skip
    np.testing.assert_array_equal(annotation.boxes[0].corners, [[10, 20], [30.5, 20], [30.5, 40], [10, 40]])


def test_dota_classes_with_spaces(tmp_path: Path) -> None:
    text = "1 2 3 4 5 6 7 8 large vehicle 1\n1 2 3 4 5 6 7 8 soccer ball field 0\n1 2 3 4 5 6 7 8 small vehicle\n"
    annotation = read_dota(write(tmp_path / "P1.txt", text), 100, 100, classes={"smallvehicle"})
    assert [(b.name, b.difficult) for b in annotation.boxes] == [
        ("large vehicle", True), ("soccer ball field", False), ("small vehicle", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"1 2 3 4 5 6 7 8", "line 1 has 8 fields"),
        (b"1 2 3 4 5 6 7 nan plane 0", "line 1: 'nan' is no coordinate"),
        (b"1 2 3 4 5 6 7 inf plane 0", "'inf' is no coordinate"),
        (b"1 2 3 4 5 6 7 1e300 plane 0", "'1e300' is no coordinate"),
        (b"1 2 3 4 5 6 7 x plane 0", "'x' is no coordinate"),
        (b"1 2 3 4 5 6 7 8 plane hard", "difficult is 'hard'"),
        (b"1 2 3 4 5 6 7 8 large plane hard", "difficult is 'hard'"),
        (b"1 2 3 4 5 6 7 8 fl\xe4che 0", r"is no UTF-8 text \(byte 18\)"),
        (b"\xff\xfe1\x00", "is no UTF-8 text"),
    ],
)
def test_broken_dota_files(text: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenFileError, match=message):
        read_dota(write(tmp_path / "P1.txt", text), 100, 100)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_named_as_broken(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = write(tmp_path_factory.getbasetemp() / "any", content)
    for read in (read_dota, voc_reader(True), voc_reader(False)):
        with suppress(BrokenFileError):
            read(file, 100, 100)


def test_horizontal_objects(tmp_path: Path) -> None:
    objects = bndbox("ship", 1, 2, 30, 40) + bndbox(" golffield ", 5.5, 6, 7, 8)
    annotation = voc_reader(False)(write(tmp_path / "1.xml", "\ufeff" + xml(objects)), 0, 0)
    assert annotation.size == (80, 60)
    assert [b.name for b in annotation.boxes] == ["ship", "golffield"]
    np.testing.assert_array_equal(annotation.boxes[0].corners, [[1, 2], [30, 2], [30, 40], [1, 40]])


def test_four_corners(tmp_path: Path) -> None:
    values = dict(zip(QUAD, [(492, 574), (533, 562), (560, 656), (519, 667)], strict=True))
    inner = "".join(f"<x_{k}>{x}</x_{k}><y_{k}>{y}</y_{k}>" for k, (x, y) in reversed(values.items()))
    text = f"<object><name>ship</name><difficult>1</difficult><robndbox>{inner}</robndbox><angle>-16</angle></object>"
    box = voc_reader(True)(write(tmp_path / "1.xml", xml(text, "")), 0, 0).boxes[0]
    assert box.difficult
    np.testing.assert_array_equal(box.corners, list(values.values()))


def test_centre_sides_and_angle(tmp_path: Path) -> None:
    """An object of HIT-UAV as published, against the corners that its authors' conversion gives."""
    inner = "<cx>541.4444</cx><cy>290.5556</cy><w>18.5268</w><h>27.3269</h><angle>0.361802</angle>"
    text = f"<object><type>robndbox</type><name>Car</name><robndbox>{inner}</robndbox></object>"
    box = voc_reader(True)(write(tmp_path / "1.xml", xml(text)), 0, 0).boxes[0]
    expected = [[0.840027, 0.536129], [0.867101, 0.548937], [0.851987, 0.598854], [0.824913, 0.586046]]
    np.testing.assert_allclose(box.corners / [640, 512], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "oriented", "message"),
    [
        ("<annotation><object>", False, "is no well-formed XML"),
        ("", False, "is no well-formed XML"),
        (BOMB, False, "declares entities"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>', False, "entities"),
        (xml(bndbox("ship", 1, 2, "nan", 4)), False, "object 1 xmax: 'nan' is no coordinate"),
        (xml(bndbox("ship", 1, 2, "", 4)), False, "object 1 xmax: '' is no coordinate"),
        (xml(bndbox("ship", 1, 2, 3, 4)), True, "has no robndbox: is this the folder of the horizontal boxes"),
        (xml(bndbox("", 1, 2, 3, 4)), False, "object 1 has no name"),
        (xml("", "<size><width>inf</width><height>1</height></size>"), False, "size/width"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', False, "is no well-formed XML"),
        (b'<?xml version="1.0" encoding="utf-8"?><annotation>\xff</annotation>', False, "is no well-formed XML"),
    ],
)
def test_broken_xml(text: str | bytes, oriented: bool, message: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenFileError, match=message):
        voc_reader(oriented)(write(tmp_path / "1.xml", text), 0, 0)


def test_deep_xml_does_no_harm(tmp_path: Path) -> None:
    text = xml("<a>" * 200_000 + "</a>" * 200_000 + bndbox("ship", 1, 2, 30, 40))
    assert len(voc_reader(False)(write(tmp_path / "1.xml", text), 0, 0).boxes) == 1


def test_gigantic_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_TEXT_BYTES", 1000)
    file = write(tmp_path / "1.xml", xml(" " * 1000))
    with pytest.raises(BrokenFileError, match="which no annotation has"):
        voc_reader(False)(file, 0, 0)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "C:x", "a\0b", "a\nb"])
def test_names_that_lead_elsewhere_are_not_plain(name: str) -> None:
    assert not folders.is_plain(name)
    assert all(map(folders.is_plain, ("P0001", "Übersicht 3.1")))


def test_real_files_are_read_whole(shared: Path) -> None:
    for file in sorted((shared / "data" / "dota_labels").glob("*.txt")):
        assert len(read_dota(file, 0, 0).boxes) == objects_in_text(file) > 0
    for kind, oriented in (("horizontal", False), ("oriented", True)):
        for file in sorted((shared / "data" / "dior_annotations" / kind).glob("*.xml")):
            annotation = voc_reader(oriented)(file, 0, 0)
            assert len(annotation.boxes) == objects_in_text(file) > 0
            assert annotation.size == (800, 800)
