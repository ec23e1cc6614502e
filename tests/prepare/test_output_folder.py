"""The folder that is made: gone on with after any kill, never written over, never left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.prepare import convert as make
from ds2d2_yolo.prepare import prepare
from ds2d2_yolo.prepare.output_folder import OutputFolder
from ds2d2_yolo.prepare.records import Item
from ds2d2_yolo.prepare.result import Entry
from tests.helpers.published import bndbox, dior, dota, dota_line, tree, write

SHIP = bndbox("ship", 8, 6, 40, 30)
DIOR = {"train/1": SHIP, "train/4": SHIP, "val/2": SHIP, "test/3": SHIP}


def entry(line: str) -> dict[str, object]:
    return dict(json.loads(line))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills children that it forked")
@pytest.mark.slow
def test_killed_at_random_it_ends_with_the_files_of_an_uninterrupted_run(tmp_path: Path) -> None:
    texts = {f"{s}/P{i}": dota_line(3 * i, 40 + i, 90, 20) for i in range(30) for s in ("train", "val")}
    source = dota(tmp_path / "DOTA", texts)
    command = [sys.executable, "-m", "tests.prepare.killing", str(source), str(tmp_path / "killed"), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "status=0"
    assert int(done.stdout.split("kills=")[-1].split()[0]) >= 3
    prepare("dota", source=source, out=tmp_path / "whole", crop_size=128, gap=32)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


def test_a_failure_half_way_leaves_what_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dior(tmp_path / "DIOR", DIOR)
    prepare("dior", source=source, out=tmp_path / "whole")
    steps = iter(range(100))

    def fails(name: str) -> object:
        real = getattr(make, name)

        def one(*arguments: object) -> object:
            if next(steps) == 2:
                raise OSError(28, "No space left on device")
            return real(*arguments)

        return one

    monkeypatch.setattr(make, "link_or_copy", fails("link_or_copy"))
    with pytest.raises(DS2D2Error, match=r"No space left on device; the same command goes on"):
        prepare("dior", source=source, out=tmp_path / "out")
    assert len((tmp_path / "out" / "prepared.jsonl").read_text().splitlines()) == 2
    prepare("dior", source=source, out=tmp_path / "out")
    assert next(steps) == 3 + 2  # two were there already
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_finished_one_is_not_made_again(tmp_path: Path) -> None:
    source = dior(tmp_path / "DIOR", DIOR)
    first = prepare("dior", source=source, out=tmp_path / "out", images="copy")
    file = tmp_path / "out" / "images" / "train" / "1.jpg"
    before, inode = tree(tmp_path / "out"), file.stat().st_ino
    again = prepare("dior", source=source, out=tmp_path / "out", images="copy", resume=True)
    assert str(again) == str(first)
    assert tree(tmp_path / "out") == before
    assert file.stat().st_ino == inode
    file.unlink()
    (tmp_path / "out" / "labels" / "val" / "2.txt").write_text("")  # a file that is there, and empty
    prepare("dior", source=source, out=tmp_path / "out", images="copy")
    assert tree(tmp_path / "out") == before


def test_a_kill_between_the_files_of_a_withdrawn_source_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = dior(tmp_path / "DIOR", DIOR), tmp_path / "out"
    prepare("dior", source=source, out=out)
    for file in source.rglob("1.*"):
        file.unlink()
    for text in source.rglob("train.txt"):
        text.write_text("4\n")
    real = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name == "train":
            raise KeyboardInterrupt
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare("dior", source=source, out=out)
    monkeypatch.setattr(Path, "unlink", real)
    assert prepare("dior", source=source, out=out).totals()["images"] == 3
    assert sorted(p.stem for p in (out / "images").rglob("*.*")) == ["2", "3", "4"]
    assert sorted(p.stem for p in (out / "labels").rglob("*.*")) == ["2", "3", "4"]


def test_what_is_left_of_an_image_without_its_label_goes_with_its_source(tmp_path: Path) -> None:
    source, out = dior(tmp_path / "DIOR", DIOR), tmp_path / "out"
    prepare("dior", source=source, out=out)
    (out / "labels" / "train" / "1.txt").unlink()
    for file in source.rglob("1.*"):
        file.unlink()
    for text in source.rglob("train.txt"):
        text.write_text("4\n")
    prepare("dior", source=source, out=out)
    assert sorted(p.stem for p in (out / "images").rglob("*.*")) == ["2", "3", "4"]


def test_labels_that_were_changed_are_noticed(tmp_path: Path) -> None:
    source = dior(tmp_path / "DIOR", DIOR)
    prepare("dior", source=source, out=tmp_path / "out")
    with (tmp_path / "out" / "labels" / "val" / "2.txt").open("a") as file:
        file.write("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DS2D2Error, match=r"val/2: 1 boxes in, 1 kept, 0 dropped, 2 label lines instead of 1"):
        prepare("dior", source=source, out=tmp_path / "out")
    (tmp_path / "out" / "labels" / "val" / "2.txt").unlink()  # as it says
    assert prepare("dior", source=source, out=tmp_path / "out").totals()["copies"] == 4


def test_other_options_need_overwrite(tmp_path: Path) -> None:
    source = dota(tmp_path / "DOTA", {"train/P1": dota_line(1, 1, 20, 10), "val/P2": ""})
    small = {"crop_size": 128, "gap": 32}
    prepare("dota", source=source, out=tmp_path / "out", **small)
    write(tmp_path / "out" / "notes.md", "mine")
    before = tree(tmp_path / "out")
    with pytest.raises(BadUseError, match=r"was made with crop_size=128 \(now 160\): say overwrite=True"):
        prepare("dota", source=source, out=tmp_path / "out", crop_size=160, gap=32)
    assert tree(tmp_path / "out") == before
    prepare("dota", source=source, out=tmp_path / "out", crop_size=160, gap=32, overwrite=True)
    prepare("dota", source=source, out=tmp_path / "fresh", crop_size=160, gap=32)
    assert tree(tmp_path / "out") == {**tree(tmp_path / "fresh"), "notes.md": b"mine"}


def test_an_overwrite_that_was_cut_off_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dior(tmp_path / "DIOR", DIOR)
    write(tmp_path / "out" / "images" / "train" / "old.jpg", "old")
    made = []
    real = make.Converter.convert

    def counted(self: make.Converter, item: Item) -> Entry:
        made.append(item.name)
        if len(made) == 3:
            raise KeyboardInterrupt
        return real(self, item)

    monkeypatch.setattr(make.Converter, "convert", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare("dior", source=source, out=tmp_path / "out", overwrite=True)
    prepare("dior", source=source, out=tmp_path / "out", overwrite=True)
    assert made == ["1", "4", "2", "2", "3"]
    assert "images/train/old.jpg" not in tree(tmp_path / "out")


@pytest.mark.parametrize("place", ["images", "labels", "images/train", "labels/val", ".prepare.lock", ".prepare-part"])
def test_nothing_is_written_or_removed_through_a_link(place: str, tmp_path: Path) -> None:
    source = dior(tmp_path / "DIOR", DIOR)
    outside = write(tmp_path / "outside" / "keep.txt", "keep").parent
    link = tmp_path / "out" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(outside, target_is_directory=True)
    with pytest.raises(BadUseError, match="is a link: nothing is written through it"):
        prepare("dior", source=source, out=tmp_path / "out", overwrite=True)
    assert tree(outside) == {"keep.txt": b"keep"}


@pytest.mark.parametrize("where", ["../victim", "../../victim", "images/train/../../../victim", "{root}/victim"])
def test_a_journal_of_somebody_else_leads_nowhere(where: str, tmp_path: Path) -> None:
    """A folder may come from a stranger: what its journal says is there is not removed anywhere else."""
    source = dior(tmp_path / "DIOR", DIOR)
    prepare("dior", source=source, out=tmp_path / "a" / "out")
    victims = [write(f / "victim", "keep") for f in (tmp_path, tmp_path / "a")]
    journal = tmp_path / "a" / "out" / "prepared.jsonl"
    lines = journal.read_text().splitlines()
    gone = {**entry(lines[0]), "name": "gone", "files": [where.format(root=tmp_path)]}
    changed = {**entry(lines[1]), "stamp": [0, 0, 0, 0], "files": [where.format(root=tmp_path)]}
    text = [
        json.dumps(gone),
        json.dumps(changed),
        "[]",
        '{"split": 3}',
        '{"split": [], "name": []}',
        "{",
        json.dumps({**gone, "files": 7}),
    ]
    journal.write_text("\n".join([*text, *lines[2:], '{"split": "tr']))
    assert prepare("dior", source=source, out=tmp_path / "a" / "out").totals()["kept"] == 4
    assert [v.read_text() for v in victims] == ["keep", "keep"]


def test_a_store_places_nothing_outside(tmp_path: Path) -> None:
    store = OutputFolder(tmp_path / "out", {})
    file = write(tmp_path / "file", "x")
    for place in ("../x", str(tmp_path / "x"), "images/../../x", "images/x", "elsewhere/train/x"):
        with pytest.raises(DS2D2Error, match="is no place in a data set"):
            store.place({place: file})
    assert file.exists()


def test_two_commands_do_not_share_a_folder(tmp_path: Path) -> None:
    source = dior(tmp_path / "DIOR", DIOR)
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".prepare.lock"), pytest.raises(BadUseError, match="another command"):
        prepare("dior", source=source, out=tmp_path / "out")
    prepare("dior", source=source, out=tmp_path / "out")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    source = dior(tmp_path / "DIOR", DIOR)
    with pytest.raises(BadUseError, match="cannot be written: "):
        prepare("dior", source=source, out=write(tmp_path / "file", "x") / "out")
