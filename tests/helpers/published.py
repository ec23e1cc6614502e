"""Small data sets laid out as published, with images that carry their objects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

DIOR_XML = """<annotation>
  <filename>../../evil.jpg</filename>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  {objects}
</annotation>
"""


def draw(file: Path, width: int, height: int, quads: Sequence[Sequence[Sequence[float]]] = ()) -> Path:
    """Write an image with bright objects on a pattern."""
    rows, columns = np.mgrid[:height, :width]
    image = np.dstack([rows % 97, columns % 101, (rows + columns) % 89]).astype(np.uint8)
    for quad in quads:
        cv2.fillPoly(image, [np.int32(np.round(quad))], (60, 220, 200))
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image)
    return file


def write(file: Path, text: str | bytes) -> Path:
    """Write a file and its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def dota_line(x: float, y: float, w: float, h: float, name: str = "plane", difficult: int = 0) -> str:
    """Return a line of a labelTxt file with an upright rectangle."""
    quad = (x, y, x + w, y, x + w, y + h, x, y + h)
    return " ".join([*(f"{v:g}" for v in quad), name, str(difficult)])


def dota(root: Path, texts: Mapping[str, str], size: tuple[int, int] = (300, 200)) -> Path:
    """Write DOTA with images of one size; keys are such as 'train/P0001'."""
    for key, text in texts.items():
        split, name = key.split("/")
        draw(root / split / "images" / f"{name}.png", *size)
        if split != "test":
            write(root / split / "labelTxt" / f"{name}.txt", f"imagesource:GoogleEarth\r\ngsd:0.3\r\n{text}\r\n")
    return root


def bndbox(name: str, x1: object, y1: object, x2: object, y2: object) -> str:
    """Return a horizontal object in XML."""
    box = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    return f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"


def dior(root: Path, objects: Mapping[str, str], kind: str = "Horizontal", size: tuple[int, int] = (80, 60)) -> Path:
    """Write DIOR with images of one size; keys are such as 'train/00001', values their objects in XML."""
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for key, text in objects.items():
        split, name = key.split("/")
        lists[split].append(name)
        draw(root / f"JPEGImages-{'test' if split == 'test' else 'trainval'}" / f"{name}.jpg", *size)
        xml = DIOR_XML.format(width=size[0], height=size[1], objects=text)
        write(root / "Annotations" / f"{kind} Bounding Boxes" / f"{name}.xml", xml)
    for split, names in lists.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", "\r\n".join(names) + "\r\n")
    return root


def hit_uav(root: Path, objects: Mapping[str, str]) -> Path:
    """Write rotate_xml or normal_xml of HIT-UAV; as `dior`, with all annotations in one folder."""
    dior(root, objects)
    (root / "Annotations" / "Horizontal Bounding Boxes").rename(root / "kept")
    (root / "Annotations").rmdir()
    return (root / "kept").rename(root / "Annotations").parent


def real_dota(shared: Path, root: Path) -> Path:
    """Lay out the real DOTA labels with images that are as large as the labels need."""
    files = sorted((shared / "data" / "dota_labels").glob("*.txt"))
    for number, file in enumerate(files):
        split = "val" if number % 3 == 2 else "train"
        rows = [line.split() for line in file.read_text().splitlines() if len(line.split()) > 8]
        quads = np.array([[float(v) for v in row[:8]] for row in rows]).reshape(-1, 4, 2)
        width, height = (int(v) + 8 for v in quads.max((0, 1)))
        image = root / split / "images" / f"{file.stem}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(image), np.zeros((height, width, 3), np.uint8))  # large: one colour is quick to code
        write(root / split / "labelTxt" / file.name, file.read_bytes())
    return root


def real_dior(shared: Path, root: Path) -> Path:
    """Lay out the real DIOR annotations, horizontal and oriented, with drawn images of the published size."""
    folder = shared / "data" / "dior_annotations"
    names = sorted(f.stem for f in (folder / "horizontal").glob("*.xml"))
    lists = {"train": names[::3], "val": names[1::3], "test": names[2::3]}
    for split, members in lists.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", "\n".join(members))
        for name in members:
            for kind in ("Horizontal", "Oriented"):
                text = (folder / kind.lower() / f"{name}.xml").read_bytes()
                write(root / "Annotations" / f"{kind} Bounding Boxes" / f"{name}.xml", text)
            draw(root / f"JPEGImages-{'test' if split == 'test' else 'trainval'}" / f"{name}.jpg", 800, 800)
    return root


def objects_in_text(file: Path) -> int:
    """Count the objects of an annotation without the code under test."""
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix == ".xml":
        return text.count("<object>")
    return len(re.findall(r"^(?:\S+ ){8}\S+ \d\r?$", text, re.MULTILINE))


def tree(root: Path) -> dict[str, bytes]:
    """Return every file under a folder with its content; the lock is no part of the data."""
    return {
        f.relative_to(root).as_posix(): f.read_bytes()
        for f in sorted(root.rglob("*"))
        if f.is_file() and f.name != ".prepare.lock"
    }
