"""The output folder of a preparation: ownership, journal of its content, atomic placement of files."""

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
from ds2d2_yolo.utils.atomic_files import write_atomically, write_json

RECORD, JOURNAL = "prepared.json", "prepared.jsonl"
PARTS, LOCK = ".prepare-part", ".prepare.lock"
LISTS = ("images.csv", "dropped.csv", "broken.csv")
OUTPUTS = (JOURNAL, PARTS, "images", "labels", "data.yaml", *LISTS, RECORD)  # removed in this order, the record last


class OutputFolder:
    """A folder with a journal of its images.

    Files are renamed into the folder first and entered into the journal afterwards. They are removed from the folder
    first and from the journal afterwards. After a kill, an image without a journal entry is made again and replaces its
    files. If an entry lacks some of its files, the others are removed when the journal is read.

    Args:
        out (Path): The folder.
        identity (Mapping[str, Any]): Source and options as plain values; a folder of the same identity is continued.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.out, self.identity = out, json.loads(json.dumps(identity))
        self.entries: dict[tuple[str, str], Entry] = {}

    @contextmanager
    def opened(self, overwrite: bool) -> Iterator[None]:
        """Create, lock and check the folder, and read its journal, for the duration of the context.

        Args:
            overwrite (bool): Whether other content is replaced.

        Raises:
            BadUseError: If it holds other content, cannot be written, or another command uses it.
        """
        try:
            self._check_content(overwrite)  # before anything is written into a foreign folder
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
            _remove(self.out / PARTS)
        finally:
            lock.release()

    def _check_content(self, overwrite: bool) -> tuple[bool, bool]:
        """Return whether the folder has content, and whether to continue it; refuse foreign content and links."""
        if not self.out.is_dir():
            if self.out.exists():
                raise BadUseError(f"out={self.out} is a file: name a folder")
            return False, False
        kinds = [self.out / name for name in ("images", "labels", PARTS, LOCK)]
        splits = [s for k in kinds if k.is_dir() for s in k.iterdir() if s.is_dir()]
        if link := next((p for p in (*kinds, *splits) if p.is_symlink()), None):
            raise BadUseError(f"{link} is a link: nothing is written through it, remove it first")
        occupied = any(f.name != LOCK and f not in self._temporary_lists() for f in self.out.iterdir())
        record = self._record()
        same = record.get("identity") == self.identity
        if occupied and not same and not overwrite:
            raise BadUseError(f"{self._difference(record)}: say overwrite=True to replace it, or another out")
        return occupied, same and not (overwrite and record.get("state") == "finished")

    def _claim(self, overwrite: bool) -> None:
        """Take over the folder for this preparation, and read its journal."""
        occupied, continues = self._check_content(overwrite)
        if occupied and not continues:
            for name in OUTPUTS:
                _remove(self.out / name)
        for left in (*self._temporary_lists(), self.out / PARTS):
            _remove(left)
        write_json(self.out / RECORD, {"identity": self.identity, "state": "unfinished"})
        self._read_journal()

    def _temporary_lists(self) -> list[Path]:
        """Return temporary files of the lists that a killed process left."""
        return [f for name in OUTPUTS for f in self.out.glob(f".{name}.*.tmp")]

    def _record(self) -> dict[str, Any]:
        """Return the record of an earlier run, empty if it is missing."""
        try:
            record = json.loads((self.out / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _difference(self, record: dict[str, Any]) -> str:
        """Return how the content of the folder differs from this preparation."""
        identity = record.get("identity")
        if not isinstance(identity, dict):
            return f"out={self.out} holds files that this command did not make"
        differ = [k for k in self.identity if identity.get(k) != self.identity[k]]
        options = ", ".join(f"{k}={identity.get(k)} (now {self.identity[k]})" for k in differ if k != "classes")
        return f"out={self.out} was made with {options or 'other classes'}"

    def _read_journal(self) -> None:
        """Read the entries with complete files; files of the others are removed, since no entry would count them."""
        partial: list[str] = []
        journal = self.out / JOURNAL
        lines = journal.read_bytes().decode("utf-8", "replace").split("\n")[:-1] if journal.is_file() else []
        for line in lines:  # drops a line without an end, which a kill cut short
            try:
                entry = Entry(**json.loads(line))
                if not entry.broken and all(_is_data_file(f) and _size(self.out / f) for f in entry.files):
                    self.entries[entry.split, entry.name] = entry
                else:
                    partial += [f for f in entry.files if _is_data_file(f)]
            except (ValueError, TypeError, AttributeError):  # not a line of this command
                continue
        for file in set(partial).difference(f for e in self.entries.values() for f in e.files):
            _remove(self.out / file)
        self._write_journal()

    def _write_journal(self) -> None:
        """Rewrite the journal."""
        write_atomically(self.out / JOURNAL, "".join(_line(e) for e in self.entries.values()))

    def forget(self, keys: Iterable[tuple[str, str]]) -> None:
        """Remove images from the folder and the journal, because their sources changed or disappeared.

        Args:
            keys (Iterable[tuple[str, str]]): Split and name of the images.
        """
        gone = [self.entries.pop(key) for key in keys]
        for entry in gone:  # files first: after a kill the journal still names the remaining ones
            for file in entry.files:
                _remove(self.out / file)
        if gone:
            self._write_journal()

    @contextmanager
    def part(self) -> Iterator[Path]:
        """Provide an empty temporary folder for the files of one image; its name is independent of the source."""
        (self.out / PARTS).mkdir(exist_ok=True)
        with TemporaryDirectory(dir=self.out / PARTS) as folder:
            yield Path(folder)

    def place(self, files: Mapping[str, Path]) -> None:
        """Move files into the folder, each atomically.

        Args:
            files (Mapping[str, Path]): Files of a temporary folder by their paths under `out`.
        """
        for name, file in files.items():
            if not _is_data_file(name):
                raise DS2D2Error(f"{name!r} is no place in a data set")
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, self.out / name)

    def add(self, entry: Entry) -> None:
        """Enter an image into the journal, after its files are placed.

        Args:
            entry (Entry): Outcome of the image.
        """
        self.entries[entry.split, entry.name] = entry
        with (self.out / JOURNAL).open("a", encoding="utf-8", newline="\n") as journal:
            journal.write(_line(entry))

    def finish(self, order: Iterable[tuple[str, str]], yaml: str, record: Mapping[str, Any]) -> list[Entry]:
        """Check the counts of the folder, and write its lists, its data YAML and its record.

        Args:
            order (Iterable[tuple[str, str]]): Split and name of every image, in the order of the lists.
            yaml (str): Content of data.yaml.
            record (Mapping[str, Any]): Content of the record besides the identity.

        Returns:
            (list[Entry]): All entries, in that order.

        Raises:
            DS2D2Error: If the labels in the folder differ from the journal.
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
        write_atomically(self.out / "data.yaml", yaml)
        write_json(self.out / RECORD, {"identity": self.identity, "state": "finished", **record})
        return entries


def _check_counts(out: Path, entries: Iterable[Entry]) -> None:
    """Raise DS2D2Error unless the counts of boxes add up and the label files have the counted lines."""
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


def _is_data_file(file: str) -> bool:
    """Return whether a path of a journal is that of an image or label file inside the folder."""
    parts = Path(file).parts
    return len(parts) == 3 and parts[0] in ("images", "labels") and ".." not in parts


def _size(file: Path) -> int:
    """Return the size of a file in bytes, 0 if it is missing."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it exists; the target of a link stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_csv(file: Path, header: str, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV list atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header.split(","))
    writer.writerows(rows)
    write_atomically(file, text.getvalue())
