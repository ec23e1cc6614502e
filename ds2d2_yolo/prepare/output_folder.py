"""The folder that a preparation makes: whose it is, what is in it already, and how a file gets there whole."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout

from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.prepare.result import Entry
from ds2d2_yolo.utils.atomic_files import write_json, write_whole

RECORD, JOURNAL, PART = "prepared.json", "prepared.jsonl", ".prepare-part"
LOCK = ".prepare.lock"
LISTS = ("images.csv", "dropped.csv", "broken.csv")
OURS = (JOURNAL, PART, "images", "labels", "data.yaml", *LISTS, RECORD)  # removed in this order, the record last


class Store:
    """A folder with a journal of the images that are in it.

    A file reaches it in one step, by renaming, and the journal afterwards; files leave it before the journal forgets
    them. So whatever the moment of a kill, an image that the journal does not name is made again over what is there,
    and of one that it names without all its files the rest is removed when the journal is read.

    Args:
        out (Path): The folder.
        identity (Mapping[str, Any]): What it is made from and how, as plain values: a folder is gone on with when it
            was made from the same.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.out, self.identity = out, json.loads(json.dumps(identity))
        self.entries: dict[tuple[str, str], Entry] = {}

    @contextmanager
    def opened(self, overwrite: bool) -> Iterator[None]:
        """Hold the folder: made, locked, checked, and what is in it read.

        Args:
            overwrite (bool): Whether something else in it is replaced.

        Raises:
            BadUseError: If it holds something else, cannot be written, or another command is at work in it.
        """
        try:
            self._refuse(overwrite)  # before anything is written into a folder of somebody else
            self.out.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.out / LOCK)
            lock.acquire(timeout=0)
        except Timeout as e:
            raise BadUseError(f"another command is preparing out={self.out}: wait for it") from e
        except OSError as e:
            raise BadUseError(f"out={self.out} cannot be written: {e.strerror}") from e
        try:
            self._claim(overwrite)
            yield
            _remove(self.out / PART)
        finally:
            lock.release()

    def _refuse(self, overwrite: bool) -> tuple[bool, bool]:
        """Return whether the folder holds something, and whether that is this preparation's; raise if neither fits."""
        if not self.out.is_dir():
            if self.out.exists():
                raise BadUseError(f"out={self.out} is a file: name a folder")
            return False, False
        kinds = [self.out / name for name in ("images", "labels", PART, LOCK)]
        splits = [s for k in kinds if k.is_dir() for s in k.iterdir() if s.is_dir()]
        if link := next((p for p in (*kinds, *splits) if p.is_symlink()), None):
            raise BadUseError(f"{link} is a link: nothing is written through it, remove it first")
        there = any(f.name != LOCK and f not in self._left_over() for f in self.out.iterdir())
        record = self._record()
        same = record.get("identity") == self.identity
        if there and not same and not overwrite:
            raise BadUseError(f"{self._whose(record)}: say overwrite=True to replace it, or another out")
        return there, same and not (overwrite and record.get("state") == "finished")

    def _claim(self, overwrite: bool) -> None:
        """Make the folder this preparation's, and read its journal."""
        there, goes_on = self._refuse(overwrite)
        if there and not goes_on:
            for name in OURS:
                _remove(self.out / name)
        for left in (*self._left_over(), self.out / PART):
            _remove(left)
        write_json(self.out / RECORD, {"identity": self.identity, "state": "unfinished"})
        self._read_journal()

    def _left_over(self) -> list[Path]:
        """Return temporary files of the lists that a kill left."""
        return [f for name in OURS for f in self.out.glob(f".{name}.*.tmp")]

    def _record(self) -> dict[str, Any]:
        """Return the record that an earlier run left, empty if there is none."""
        try:
            found = json.loads((self.out / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _whose(self, record: dict[str, Any]) -> str:
        """Return what a folder holds that is not this preparation's."""
        theirs = record.get("identity")
        if not isinstance(theirs, dict):
            return f"out={self.out} holds files that this command did not make"
        differ = [k for k in self.identity if theirs.get(k) != self.identity[k]]
        said = ", ".join(f"{k}={theirs.get(k)} (now {self.identity[k]})" for k in differ if k != "classes")
        return f"out={self.out} was made with {said or 'other classes'}"

    def _read_journal(self) -> None:
        """Read the entries whose files are all there; what is left of the others goes, or nothing would count it."""
        partial: list[str] = []
        journal = self.out / JOURNAL
        lines = journal.read_bytes().decode("utf-8", "replace").split("\n")[:-1] if journal.is_file() else []
        for line in lines:  # a line that a kill cut short has no end, and is not among them
            try:
                entry = Entry(**json.loads(line))
                if not entry.broken and all(_is_ours(f) and _size(self.out / f) for f in entry.files):
                    self.entries[entry.split, entry.name] = entry
                else:
                    partial += [f for f in entry.files if _is_ours(f)]
            except (ValueError, TypeError, AttributeError):  # not written by this command
                continue
        for file in set(partial).difference(f for e in self.entries.values() for f in e.files):
            _remove(self.out / file)
        self._write_journal()

    def _write_journal(self) -> None:
        """Write the journal anew."""
        write_whole(self.out / JOURNAL, "".join(_line(e) for e in self.entries.values()))

    def forget(self, keys: Iterable[tuple[str, str]]) -> None:
        """Take images out of the folder and of the journal, because their sources changed or are gone."""
        gone = [self.entries.pop(key) for key in keys]
        for file in (f for entry in gone for f in entry.files):  # first: the journal still names what a kill leaves
            _remove(self.out / file)
        if gone:
            self._write_journal()

    @contextmanager
    def part(self) -> Iterator[Path]:
        """Give an empty folder for the files of an image that is being made; no name of the source is part of it."""
        (self.out / PART).mkdir(exist_ok=True)
        with TemporaryDirectory(dir=self.out / PART) as folder:
            yield Path(folder)

    def place(self, files: Mapping[str, Path]) -> None:
        """Move files into the folder, each in one step.

        Args:
            files (Mapping[str, Path]): Files of a part folder by their places under `out`.
        """
        for name, file in files.items():
            if not _is_ours(name):
                raise DS2D2Error(f"{name!r} is no place in a data set")
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, self.out / name)

    def add(self, entry: Entry) -> None:
        """Write down an image, after its files."""
        self.entries[entry.split, entry.name] = entry
        with (self.out / JOURNAL).open("a", encoding="utf-8", newline="\n") as journal:
            journal.write(_line(entry))

    def finish(self, order: Iterable[tuple[str, str]], yaml: str, record: Mapping[str, Any]) -> list[Entry]:
        """Count what is in the folder, and write its lists, its data YAML and its record.

        Args:
            order (Iterable[tuple[str, str]]): Split and name of every image, in the order of the lists.
            yaml (str): Content of data.yaml.
            record (Mapping[str, Any]): What the record holds besides its identity.

        Returns:
            (list[Entry]): All entries, in that order.

        Raises:
            DS2D2Error: If the labels in the folder are not those that were written down.
        """
        self.entries = {key: self.entries[key] for key in order}
        entries = list(self.entries.values())
        _check_counts(self.out, entries)
        self._write_journal()
        images = [[e.split, e.name, e.boxes, e.kept, len(e.dropped), e.copies, e.images, e.broken] for e in entries]
        _write_csv(self.out / LISTS[0], "split,image,boxes,kept,dropped,label_lines,images,broken", images)
        dropped = [[e.split, e.name, *d] for e in entries for d in e.dropped]
        _write_csv(self.out / LISTS[1], "split,image,place,class,reason", dropped)
        broken = [[e.split, e.name, e.broken] for e in entries if e.broken]
        _write_csv(self.out / LISTS[2], "split,image,reason", broken)
        write_whole(self.out / "data.yaml", yaml)
        write_json(self.out / RECORD, {"identity": self.identity, "state": "finished", **record})
        return entries


def _check_counts(out: Path, entries: Iterable[Entry]) -> None:
    """Raise DS2D2Error unless boxes in = kept + dropped, and the label files have the lines that were counted."""
    for entry in entries:
        labels = [out / f for f in entry.files if f.startswith("labels/")]
        lines = sum(file.read_bytes().count(b"\n") for file in labels)
        if entry.boxes != entry.kept + len(entry.dropped) or lines != entry.copies or entry.copies < entry.kept:
            raise DS2D2Error(
                f"{entry.split}/{entry.name}: {entry.boxes} boxes in, {entry.kept} kept, {len(entry.dropped)} dropped, "
                f"{lines} label lines instead of {entry.copies}; remove its files in labels/, and the same command "
                "makes them again"
            )


def _line(entry: Entry) -> str:
    """Return a line of the journal."""
    return json.dumps(asdict(entry), ensure_ascii=True) + "\n"


def _is_ours(file: str) -> bool:
    """Return whether a name in a journal is that of an image or label, and leads nowhere else."""
    parts = Path(file).parts
    return len(parts) == 3 and parts[0] in ("images", "labels") and ".." not in parts


def _size(file: Path) -> int:
    """Return the bytes of a file, 0 if it is not there."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there; what a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_csv(file: Path, head: str, rows: Iterable[Iterable[Any]]) -> None:
    """Write a list, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head.split(","))
    writer.writerows(rows)
    write_whole(file, text.getvalue())
