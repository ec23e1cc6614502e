"""Whole preparations: what is made, what is dropped, what is refused, and that Ultralytics trains from it."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from shapely.geometry import Polygon, box

from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.prepare import list_data, prepare, run
from ds2d2_yolo.prepare.registry import PUBLISHED
from ds2d2_yolo.prepare.result import Prepared
from tests.helpers.progress import recorded_tasks
from tests.helpers.published import (
    bndbox,
    dior,
    dota,
    dota_line,
    draw,
    hit_uav,
    objects_in_text,
    real_dior,
    real_dota,
    tree,
    write,
)

SHIP = bndbox("ship", 8, 6, 40, 30)
SMALL = {"crop_size": 128, "gap": 32}
DIOR = {"train/1": SHIP, "val/2": SHIP, "test/3": SHIP}
DOTA = {"train/P1": dota_line(10, 10, 20, 10), "val/P2": dota_line(10, 10, 20, 10), "test/P3": ""}


def rows(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.reader(opened))[1:]


def labels(out: Path, split: str) -> dict[str, list[str]]:
    return {f.stem: f.read_text().splitlines() for f in sorted((out / "labels" / split).glob("*.txt"))}


def check_loads(made: Prepared) -> None:
    """Ultralytics finds every image and every box, and nothing wrong with any."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset, img2label_paths, verify_image_label

    data = check_det_dataset(str(made.out / "data.yaml"))
    assert tuple(data["names"].values()) == made.classes
    for split in {e.split for e in made.entries}:
        images = sorted(map(str, (made.out / "images" / split).iterdir()))
        verified = [
            verify_image_label((i, t, "", False, len(made.classes), 0, 0, False))
            for i, t in zip(images, img2label_paths(images), strict=True)
        ]
        assert [f[9] for f in verified if f[9]] == []  # no message
        assert sum(f[8] for f in verified) == 0  # none corrupt
        assert sum(len(f[1]) for f in verified) == made.totals(split)["copies"]
    # two steps of its loader, as a training takes them
    hyp = get_cfg(overrides={"task": made.task})
    dataset = YOLODataset(img_path=data["train"], data=data, task=made.task, imgsz=64, augment=False, hyp=hyp)
    assert sum(len(label["cls"]) for label in dataset.labels) == made.totals("train")["copies"]
    assert dataset[0]["bboxes"].shape[1] == (5 if made.task == "obb" else 4)


def test_dior(tmp_path: Path) -> None:
    more = bndbox("Expressway-Service-area", 0, 0, 80, 60) + bndbox("TennisCourt", -5, 50, 85, 70)
    source = dior(tmp_path / "DIOR", {**DIOR, "train/1": SHIP + more})
    made = prepare("dior", source=source, out=tmp_path / "out")
    assert labels(tmp_path / "out", "train") == {
        "1": [
            "13 0.300000 0.300000 0.400000 0.400000",
            "7 0.500000 0.500000 1.000000 1.000000",
            "16 0.500000 0.916667 1.000000 0.166667",
        ]
    }
    assert made.totals() == {
        "sources": 3, "broken": 0, "images": 3, "boxes": 5, "kept": 5, "dropped": 0, "copies": 5,
    }  # fmt: skip
    assert made.task == "detect"
    assert "evil" not in str(sorted(tmp_path.rglob("*")))
    check_loads(made)


def test_links_inside_the_source_are_followed_under_their_own_names(tmp_path: Path) -> None:
    source = dota(tmp_path / "DOTA", DOTA)
    for split, name in (("train", "P1"), ("val", "P2")):
        image = source / split / "images" / f"{name}.png"
        image.symlink_to(image.rename(source / f"elsewhere-{split}.png"))
    prepare("dota", source=source, out=tmp_path / "out")
    assert sorted(p for p in tree(tmp_path / "out") if p.startswith("images/")) == [
        "images/test/P3__1024__0___0.jpg", "images/train/P1__1024__0___0.jpg", "images/val/P2__1024__0___0.jpg",
    ]  # fmt: skip
    source = dior(tmp_path / "DIOR", DIOR)
    image = source / "JPEGImages-test" / "3.jpg"
    image.symlink_to(image.rename(source / "elsewhere.jpg"))
    prepare("dior", source=source, out=tmp_path / "dior")
    placed = tmp_path / "dior" / "images" / "test" / "3.jpg"
    assert placed.is_file()
    assert not placed.is_symlink()


@pytest.mark.parametrize("images", ["link", "copy"])
def test_images_are_linked_or_copied(images: str, tmp_path: Path) -> None:
    source = dior(tmp_path / "DIOR", DIOR)
    prepare("dior", source=source, out=tmp_path / "out", images=images)
    source_image = source / "JPEGImages-trainval" / "1.jpg"
    prepared_image = tmp_path / "out" / "images" / "train" / "1.jpg"
    assert prepared_image.read_bytes() == source_image.read_bytes()
    assert os.path.samefile(prepared_image, source_image) is (images == "link")


def test_every_reason_is_counted_and_written_down(tmp_path: Path) -> None:
    lines = [
        dota_line(10, 10, 20, 10),  # kept
        dota_line(10, 10, 20, 10),  # duplicate
        dota_line(50, 10, 20, 10, difficult=1),
        dota_line(50, 40, 20, 10, "container-crane"),  # v1.5 alone has it
        dota_line(50, 60, 0, 10),
        dota_line(400, 60, 10, 10),
        dota_line(20, 20, 250, 150),  # larger than a tile
        dota_line(110, 60, 10, 10, "Large Vehicle".replace(" ", "-")),  # in two tiles
    ]
    source = dota(tmp_path / "DOTA", {**DOTA, "train/P1": "\r\n".join(lines)})
    made = prepare("dota", source=source, out=tmp_path / "out", difficult="drop", **SMALL)
    assert made.reasons() == {
        "duplicate": 1, "unknown class": 1, "difficult": 1, "degenerate": 1, "outside the image": 1,
        "cut by the border of every tile": 1,
    }  # fmt: skip
    total = made.totals("train")
    assert (total["boxes"], total["kept"], total["dropped"], total["copies"]) == (8, 2, 6, 3)
    assert ["train", "P1", "line 9", "plane", "cut by the border of every tile"] in rows(tmp_path / "out/dropped.csv")
    assert rows(tmp_path / "out" / "images.csv")[0] == ["train", "P1", "8", "2", "6", "3", "6", ""]
    assert "dropped, unknown class: 1 (container-crane)" in str(made)
    # the plane is in the first tile, the large vehicle (class 9) in the first two
    first = labels(tmp_path / "out", "train")
    assert {name: [line.split()[0] for line in first[name]] for name in first} == {
        "P1__128__0___0": ["0", "9"], "P1__128__96___0": ["9"],
    }  # fmt: skip
    check_loads(made)
    with_difficult = prepare("dota", source=source, out=tmp_path / "kept", version=1.5, **SMALL)
    assert with_difficult.totals("train")["kept"] == 4
    assert len(with_difficult.classes) == 16


def test_tiles_and_their_labels_to_the_pixel(tmp_path: Path) -> None:
    source = dota(tmp_path / "DOTA", {**DOTA, "train/P1": dota_line(100, 60, 20, 10)})
    prepare("dota", source=source, out=tmp_path / "out", **SMALL)
    # 300 x 200 px in tiles of 128 every 96: x 0, 96, 172 and y 0, 72
    names = {f"P1__128__{x}___{y}" for x in (0, 96, 172) for y in (0, 72)}
    assert {f.stem for f in (tmp_path / "out" / "images" / "train").iterdir()} == names
    corners = np.array([[100, 60], [120, 60], [120, 70], [100, 70]])
    expected = {
        f"P1__128__{x}___0": ["0 " + " ".join(f"{v:.6f}" for v in ((corners - [x, 0]) / 128).ravel())] for x in (0, 96)
    }
    assert labels(tmp_path / "out", "train") == expected
    assert not (tmp_path / "out" / "labels" / "test").exists()


def test_a_small_image_is_one_tile_and_nothing_beyond_it_is_kept(tmp_path: Path) -> None:
    """The window of 1024 px reaches beyond the image of 300 x 200 px, and so does a box."""
    lines = [dota_line(250, 100, 100, 50), dota_line(500, 100, 100, 50)]
    made = prepare("dota", source=dota(tmp_path / "DOTA", {**DOTA, "train/P1": "\n".join(lines)}), out=tmp_path / "out")
    assert labels(tmp_path / "out", "train") == {
        "P1__1024__0___0": ["0 0.833333 0.500000 1.000000 0.500000 1.000000 0.750000 0.833333 0.750000"]
    }
    assert made.reasons() == {"outside the image": 1}
    check_loads(made)


def test_an_object_wider_than_its_tile_does_not_cost_the_tile(tmp_path: Path) -> None:
    """Ultralytics leaves out a tile with a label that is wider than the tile by more than 1 %."""
    made = prepare(
        "dota", source=dota(tmp_path / "DOTA", {**DOTA, "train/P1": dota_line(5, 50, 160, 20)}), out=tmp_path / "out",
        **SMALL,
    )  # fmt: skip
    assert labels(tmp_path / "out", "train")["P1__128__0___0"][0].split()[3] == "1.000000"
    check_loads(made)


def test_multi_scale_and_background(tmp_path: Path) -> None:
    source = dota(tmp_path / "DOTA", DOTA)
    many = prepare("dota", source=source, out=tmp_path / "many", rates=[0.5, 1.0, 1.5], **SMALL)
    sides = {f.stem.split("__")[1] for f in (tmp_path / "many" / "images" / "train").iterdir()}
    assert sides == {"256", "128", "85"}
    bare = prepare("dota", source=source, out=tmp_path / "bare", background=False, **SMALL)
    assert bare.totals("train")["images"] == 1
    assert bare.totals("test")["images"] == 6  # those of the test split all stay
    assert many.totals("train")["copies"] == 3
    check_loads(many)
    check_loads(bare)


def test_workers_change_nothing(tmp_path: Path) -> None:
    texts = {f"{split}/P{i}": dota_line(i, i, 20, 10) for i in range(6) for split in ("train", "val")}
    source = dota(tmp_path / "DOTA", texts)
    prepare("dota", source=source, out=tmp_path / "a", **SMALL)
    prepare("dota", source=source, out=tmp_path / "b", workers=3, **SMALL)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    ("folder", "version"),
    [
        ("labelTxt", 1.0), ("labelTxt-v1.0", 1.0), ("labelTxt-v1.0/labelTxt", 1.0), ("labelTxt", 1.5),
        ("labelTxt-v1.5/DOTA-v1.5_{split}", 1.5), ("labelTxt-v1.5", 1.5),
    ],
)  # fmt: skip
def test_label_folders_as_the_archives_unpack(folder: str, version: float, tmp_path: Path) -> None:
    source = dota(tmp_path / "DOTA", {k: DOTA[k] for k in ("train/P1", "val/P2")})
    for split in ("train", "val"):
        (source / split / "labelTxt").rename(source / split / "kept")
        target = source / split / folder.format(split=split)
        target.parent.mkdir(parents=True, exist_ok=True)
        (source / split / "kept").rename(target)
        # never taken: horizontal labels, and those of another version
        other = "1.0" if version == 1.5 else "1.5"
        for wrong in (f"labelTxt-v{version}/Train_Task2_gt/trainset_reclabelTxt", f"labelTxt-v{other}/labelTxt"):
            write(source / split / wrong / "P9.txt", "broken")
    made = prepare("dota", source=source, out=tmp_path / "out", version=version)
    assert made.labels == tuple(f"{split}/{folder.format(split=split)}" for split in ("train", "val"))
    assert made.totals()["kept"] == 2


def test_hit_uav_as_published(tmp_path: Path) -> None:
    inner = "<robndbox><cx>30</cx><cy>20</cy><w>10</w><h>6</h><angle>0</angle></robndbox>"
    named = [f"<object><name>{n}</name>{inner.replace('30', str(20 + 9 * i))}</object>"
             for i, n in enumerate(("Person", "OtherVehicle", "DontCare"))]  # fmt: skip
    source = hit_uav(tmp_path / "clone" / "rotate_xml", dict.fromkeys(DIOR, "".join(named)))
    made = prepare("hit-uav", source=tmp_path / "clone", out=tmp_path / "out")
    assert made.reasons() == {"published without a class": 3}
    assert [line[0] for line in labels(tmp_path / "out", "train")["1"]] == ["0", "3"]
    check_loads(made)
    assert prepare("hit-uav", source=source, out=tmp_path / "again").totals() == made.totals()


def test_hit_uav_in_yolo_layout(shared: Path, tmp_path: Path) -> None:
    """The real subset: what it holds comes out as it is."""
    published = shared / "data" / "hituav_obb"
    source = tmp_path / "subset"
    for split in ("train", "val"):
        for image in sorted((published / "images" / split).iterdir())[:12]:
            write(source / "images" / split / image.name, image.read_bytes())
            text = published / "labels" / split / f"{image.stem}.txt"
            write(source / "labels" / split / text.name, text.read_bytes())
    write(source / "data.yaml", (published / "data.yaml").read_bytes())
    with pytest.raises(BadUseError, match=r"classes of its own \(person, vehicle, bicycle\).*say out="):
        prepare("hit-uav", source=source)
    made = prepare("hit-uav", source=source, out=tmp_path / "out")
    assert made.classes == ("person", "vehicle", "bicycle")
    for file in sorted((source / "labels").rglob("*.txt")):
        copied = tmp_path / "out" / file.relative_to(source)
        assert (copied.read_text() if copied.exists() else "") == file.read_text()
    check_loads(made)


def test_images_without_labels_are_background(tmp_path: Path) -> None:
    source = tmp_path / "layout"
    for split in ("train", "val"):
        for name in ("a", "b", "c"):
            draw(source / "images" / split / f"{name}.png", 80, 60)
        write(source / "labels" / split / "a.txt", "0 0.5 0.5 0.2 0.2\n")
        write(source / "labels" / split / "c.txt", "")
    write(source / "data.yaml", "names: [car]\n")
    first = prepare("hit-uav", source=source, out=tmp_path / "first")
    assert first.totals("train") == {
        "sources": 3, "broken": 0, "images": 3, "boxes": 1, "kept": 1, "dropped": 0, "copies": 1,
    }  # fmt: skip
    assert "images without boxes: 4" in str(first)
    second = prepare("hit-uav", source=first.out, out=tmp_path / "second")
    assert second.totals() == first.totals()
    for folder in ("images", "labels"):
        assert tree(second.out / folder) == tree(first.out / folder)
    check_loads(first)


def test_every_preparation_can_be_prepared_again(tmp_path: Path) -> None:
    published = {
        "dota": dota(tmp_path / "DOTA", {**DOTA, "train/P4": ""}),
        "dior": dior(tmp_path / "DIOR", {**DIOR, "train/4": ""}),
    }
    for name, source in published.items():
        first = prepare(name, source=source, out=tmp_path / f"{name}-1")
        second = prepare("hit-uav", source=first.out, out=tmp_path / f"{name}-2")
        assert (second.totals()["images"], second.totals()["boxes"]) == (
            first.totals()["images"], first.totals()["copies"],
        )  # fmt: skip


def test_class_indices_of_a_yolo_layout_may_be_written_as_decimals(tmp_path: Path) -> None:
    root = tmp_path / "layout"
    draw(root / "images/train/a.png", 64, 48)
    np.savetxt(write(root / "labels/train/a.txt", ""), [[1, 0.5, 0.5, 0.25, 0.25]])
    write(root / "data.yaml", "names: [car, person]\n")
    prepare("hit-uav", source=root, out=tmp_path / "out", splits="train")
    assert (tmp_path / "out/labels/train/a.txt").read_text() == "1 0.500000 0.500000 0.250000 0.250000\n"


@pytest.mark.parametrize("index", ["0.5", "nan", "-1", "2", "1e400", "car"])
def test_what_is_no_class_index_makes_an_image_of_a_yolo_layout_broken(tmp_path: Path, index: str) -> None:
    root = tmp_path / "layout"
    draw(root / "images/train/a.png", 64, 48)
    write(root / "labels/train/a.txt", f"{index} 0.5 0.5 0.25 0.25\n")
    write(root / "data.yaml", "names: [car, person]\n")
    with pytest.raises(DS2D2Error, match=rf"line 1: class '{index}' is none of the 2 classes"):
        prepare("hit-uav", source=root, out=tmp_path / "out", splits="train")


def test_a_yolo_layout_without_any_label_file_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "layout"
    for split in ("train", "val"):
        draw(source / "images" / split / "a.png", 80, 60)
        (source / "labels" / split).mkdir(parents=True)
    write(source / "data.yaml", "names: [car]\n")
    with pytest.raises(BadUseError, match=r"has no label files: looked for labels/train/\*\.txt"):
        prepare("hit-uav", source=source, out=tmp_path / "out")


def test_dota_classes_with_spaces(tmp_path: Path) -> None:
    text = f"{dota_line(10, 10, 20, 10, 'small vehicle')}\n{dota_line(50, 10, 20, 10, 'soccer ball field', 1)}"
    without_difficult = dota_line(10, 10, 20, 10, "large vehicle").removesuffix(" 0")
    made = prepare("dota", source=dota(tmp_path / "DOTA", {"train/P1": text, "val/P2": without_difficult}),
                   out=tmp_path / "out")  # fmt: skip
    assert (made.totals()["kept"], made.totals()["broken"]) == (3, 0)
    names = [made.classes[int(line.split()[0])] for split in ("train", "val")
             for lines in labels(made.out, split).values() for line in lines]  # fmt: skip
    assert names == ["small vehicle", "soccer ball field", "large vehicle"]


@pytest.mark.parametrize("name", ["dior", "dior-r"])
def test_real_dior(name: str, shared: Path, tmp_path: Path) -> None:
    source = real_dior(shared, tmp_path / "DIOR")
    made = prepare(name, source=source, out=tmp_path / "out")
    kind = "Oriented" if name == "dior-r" else "Horizontal"
    published = sum(map(objects_in_text, (source / "Annotations" / f"{kind} Bounding Boxes").iterdir()))
    total = made.totals()
    assert published == total["boxes"] == total["kept"] + total["dropped"] > 0
    assert total["dropped"] == 0
    check_loads(made)


def test_real_dota(shared: Path, tmp_path: Path) -> None:
    source = real_dota(shared, tmp_path / "DOTA")
    made = prepare("dota", source=source, out=tmp_path / "out")
    total = made.totals()
    assert sum(map(objects_in_text, source.glob("*/labelTxt/*.txt"))) == total["boxes"] == 984
    assert total["boxes"] == total["kept"] + total["dropped"]
    assert total["kept"] > 980
    check_loads(made)
    # the label lines of each tile against a count without Ultralytics' choice and without ours
    for file in source.glob("*/labelTxt/*.txt"):
        rows_of_file = [line.split()[:8] for line in file.read_text().splitlines() if len(line.split()) > 8]
        quads = [Polygon(np.reshape(row, (4, 2)).astype(float)) for row in rows_of_file]
        for tile in (made.out / "images" / file.parts[-3]).glob(f"{file.stem}__*.jpg"):
            side, x, y = (int(v) for v in tile.stem.replace("___", "__").split("__")[1:])
            window = box(x, y, x + side, y + side)
            expected = sum(q.intersection(window).area >= 0.7 * q.area for q in quads)
            assert len(labels(made.out, file.parts[-3]).get(tile.stem, [])) == expected, tile.name


def test_images_and_labels_as_ultralytics_lays_them_out(tmp_path: Path) -> None:
    old = dota(tmp_path / "old", {k: DOTA[k] for k in ("train/P1", "val/P2")})
    for split in ("train", "val"):
        for folder, place in (("images", f"images/{split}"), ("labelTxt", f"labels/{split}_original")):
            (tmp_path / "DOTA" / place).parent.mkdir(parents=True, exist_ok=True)
            (old / split / folder).rename(tmp_path / "DOTA" / place)
    made = prepare("dota", source=tmp_path / "DOTA", out=tmp_path / "out", splits=["val", "train"])
    assert made.labels == ("labels/train_original", "labels/val_original")
    assert made.totals()["kept"] == 2
    check_loads(made)


def test_horizontal_hit_uav(tmp_path: Path) -> None:
    hit_uav(tmp_path / "clone" / "normal_xml", dict.fromkeys(DIOR, bndbox("Bicycle", 8, 6, 40, 30)))
    made = prepare("hit-uav", source=tmp_path / "clone", out=tmp_path / "out", splits="train, val")
    assert made.task == "detect"
    assert labels(made.out, "val") == {"2": ["2 0.300000 0.300000 0.400000 0.400000"]}
    assert "test" not in (made.out / "data.yaml").read_text()
    check_loads(made)


def test_it_goes_where_the_packaged_yaml_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "datasets_dir", lambda: tmp_path / "datasets")
    made = prepare("dior", source=dior(tmp_path / "DIOR", DIOR))
    assert made.out == tmp_path / "datasets" / PUBLISHED["dior"].description()["path"]
    assert made.data == "dior.yaml"
    assert "train with data=dior.yaml" in str(made)


def test_packaged_yamls() -> None:
    for name, known in PUBLISHED.items():
        content = known.description()
        assert list(content["names"]) == list(range(len(content["names"])))
        assert "download" not in content
        assert not Path(content["path"]).is_absolute()
        assert [content[split] for split in ("train", "val")] == ["images/train", "images/val"]
        assert f"{known.yaml} " in list_data(), name
    assert [len(p.classes()) for p in PUBLISHED.values()] == [15, 16, 20, 20, 4]
    assert len({p.description()["path"] for p in PUBLISHED.values()}) == len(PUBLISHED)
    assert "aerial-scenes.yaml" in list_data()


def test_list_says_where_the_yamls_lie_for_yolo() -> None:
    """Ultralytics' own command knows none of their names."""
    place = list_data().split("for yolo: data=")[1]
    assert Path(place.replace("NAME", "dota.yaml")).is_file()


def test_classes_are_in_the_order_of_ultralytics() -> None:
    from ultralytics.utils import ROOT

    for name, ultralytics_name in (("dota", "DOTAv1"), ("dota-v1.5", "DOTAv1.5")):
        text = (ROOT / "cfg" / "datasets" / f"{ultralytics_name}.yaml").read_text(encoding="utf-8")
        assert PUBLISHED[name].description()["names"] == yaml.safe_load(text)["names"]


def test_the_record_says_from_what_and_how(tmp_path: Path) -> None:
    source = dota(tmp_path / "DOTA", DOTA)
    prepare("dota", source=source, out=tmp_path / "out", **SMALL)
    record = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert record["state"] == "finished"
    assert record["identity"]["source"] == str(source)
    assert record["identity"]["crop_size"] == 128
    assert record["totals"]["train"]["kept"] == 1


@pytest.mark.parametrize(
    ("dataset", "keys", "message"),
    [
        ("dotta", {}, "did you mean 'dota'"),
        ("dior", {"source": None}, "source= missing"),
        ("dior", {"source": "nowhere"}, "does not exist"),
        ("dior", {"source": "{dota}/train/images/P1.png"}, "is no folder"),
        ("dior", {"crop_size": 512}, "crop_size= is for dota alone"),
        ("dior", {"source": "{dota}"}, r"lacks images \(JPEGImages-trainval.*split lists"),
        ("dota", {"source": "{dior}"}, "lacks train and val: looked for train/images"),
        ("dota", {"source": "{dota}/train"}, r"not the folder itself: say source=.*DOTA$"),
        ("dior", {"source": "{dior}/.."}, r"not the folder itself: say source=.*DIOR$"),
        ("hit-uav", {"source": "{dota}"}, "is no HIT-UAV: looked for rotate_xml"),
        ("dota", {"source": "{dota}", "version": 1.5, "splits": ["test", "val"]}, "no oriented labels v1.5 for val"),
        ("dior", {"source": "{dior}", "out": "{dior}/out"}, "lie in each other"),
        ("dior", {"source": "{dior}", "out": "{dior}/.."}, "lie in each other"),
        ("dior", {"source": "{dior}", "out": "{dota}"}, "holds files that this command did not make"),
        ("dior", {"source": "{dior}", "out": "{dota}/train/images/P1.png"}, "is a file"),
    ],
)
def test_bad_use_is_one_line_before_anything_is_written(
    dataset: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    places = {"dota": dota(tmp_path / "DOTA", DOTA), "dior": dior(tmp_path / "DIOR", DIOR)}
    (places["dota"] / "val" / "labelTxt").rename(places["dota"] / "val" / "labelTxt-v1.0")
    before = tree(tmp_path)
    options = {k: v.format(**places) if isinstance(v, str) else v for k, v in keys.items()}
    with pytest.raises(BadUseError, match=message) as caught:
        prepare(dataset, **{"source": str(places["dior"]), "out": str(tmp_path / "out"), **options})
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_the_progress_counts_the_images_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = recorded_tasks(run, monkeypatch)
    source = dior(tmp_path / "DIOR", DIOR)
    for _ in range(2):
        prepare("dior", source=source, out=tmp_path / "out", verbose=False)
    assert [(task.completed, task.total) for task in tasks] == [(len(DIOR), len(DIOR))] * 2
    assert tasks[1].remaining() is None, "nothing was left to do"
    assert capsys.readouterr().err == ""


def test_broken_files_are_named_and_the_rest_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = {f"train/{n}": SHIP for n in ("fine", "nan", "cut", "text", "noimage", "noxml", "other", "tiny", "link")}
    source = dior(tmp_path / "DIOR", {**fine, **DIOR})
    images, annotations = source / "JPEGImages-trainval", source / "Annotations" / "Horizontal Bounding Boxes"
    write(annotations / "nan.xml", (annotations / "nan.xml").read_text().replace("40", "NaN"))
    write(images / "cut.jpg", (images / "cut.jpg").read_bytes()[:-200])
    write(images / "text.jpg", "no image")
    (images / "noimage.jpg").unlink()
    (annotations / "noxml.xml").unlink()
    draw(images / "other.jpg", 90, 60)
    draw(images / "tiny.jpg", 9, 60)
    secret = draw(tmp_path / "secret.jpg", 80, 60)
    # what a name could reach from the source, from out and from its folders is there, and must stay
    victims = [write(f / "victim", "keep") for f in (tmp_path, tmp_path / "DIOR", tmp_path / "out-side")]
    hostile = ["..", "../victim", "../../victim", "../../../victim", "../../../out-side/victim", str(victims[0])]
    (images / "link.jpg").unlink()
    (images / "link.jpg").symlink_to(secret)
    listed = source / "ImageSets" / "Main" / "train.txt"
    listed.write_bytes(listed.read_bytes() + b"\r\n".join([*map(str.encode, hostile), b"fine.jpg"]))
    with pytest.raises(DS2D2Error, match=r"14 of 18 images are broken, named in .*broken.csv") as caught:
        prepare("dior", source=source, out=tmp_path / "out")
    assert caught.value.status == 1
    assert "\n" not in str(caught.value)
    reasons = {name: reason for _, name, reason in rows(tmp_path / "out" / "broken.csv")}
    assert reasons.pop("cut").startswith("cut.jpg is no whole image: ")
    assert reasons.pop("noimage").startswith("no image of this name in JPEGImages-test, JPEGImages-trainval and ")
    assert reasons.pop("noxml").startswith("no annotation of this name in ")
    assert reasons == {
        "nan": "nan.xml object 1 xmax: 'NaN' is no coordinate in an image",
        "text": "text.jpg is no image",
        "other": "other.xml is for an image of 80 x 60 px, which has 90 x 60",
        "tiny": "tiny.jpg has 9 x 60 px; Ultralytics needs 10 or more a side",
        "link": "link.jpg is a link that leads out of the source",
        **dict.fromkeys(hostile, "its name is no plain file name"),
    }
    out, err = capsys.readouterr()
    assert "broken: train/nan: nan.xml object 1" in out
    assert "images of dior" in err
    assert "images of dior" not in out
    assert [v.read_text() for v in victims] == ["keep"] * 3
    prepared = ("train/fine", "train/1", "val/2", "test/3")
    expected = {f"images/{name}.jpg" for name in prepared} | {f"labels/{name}.txt" for name in prepared}
    assert {p for p in tree(tmp_path / "out") if p.startswith(("images/", "labels/"))} == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    source = dior(tmp_path / "DIOR", {**DIOR, "train/4": SHIP})
    (source / "JPEGImages-trainval" / "4.jpg").unlink()
    os.mkfifo(source / "JPEGImages-trainval" / "4.jpg")
    with pytest.raises(DS2D2Error, match=r"1 of 4 images are broken.*train/4: no image of this name"):
        prepare("dior", source=source, out=tmp_path / "out")


def test_files_that_were_mended_are_taken_up(tmp_path: Path) -> None:
    source = dior(tmp_path / "DIOR", {**DIOR, "train/4": SHIP})
    folder = source / "Annotations" / "Horizontal Bounding Boxes"
    sound = (folder / "4.xml").read_text()
    write(folder / "4.xml", "<annotation>")
    with pytest.raises(DS2D2Error, match="1 of 4 images are broken"):
        prepare("dior", source=source, out=tmp_path / "out")
    write(folder / "4.xml", sound)
    write(folder / "1.xml", sound.replace(SHIP, ""))  # has no object any more
    made = prepare("dior", source=source, out=tmp_path / "out")
    assert made.broken == []
    assert set(labels(tmp_path / "out", "train")) == {"4"}
    prepare("dior", source=source, out=tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")
    (source / "ImageSets" / "Main" / "train.txt").write_text("1")  # 4 is gone from the list
    assert prepare("dior", source=source, out=tmp_path / "out").totals("train")["images"] == 1
    assert [f.name for f in (tmp_path / "out" / "images" / "train").iterdir()] == ["1.jpg"]
