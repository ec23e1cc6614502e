"""What a preparation made: counts for every image, totals for every split, and the summary table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NAMED = 20  # broken files in the summary; the rest is in the list


@dataclass(frozen=True)
class Entry:
    """What became of one published image; a line of the journal.

    Attributes:
        split (str): Its split.
        name (str): Its name without suffix.
        stamp (list[int]): Bytes and time of change, in ns, of image and annotation: an image is made again when they
            change.
        boxes (int): Published boxes. Always `kept` + the number in `dropped`.
        kept (int): Those that are in at least one written image.
        copies (int): Label lines written; with tiles a box may have several.
        dropped (list[list[str]]): Place, class and reason of every box that is in none.
        files (list[str]): Files written, under `out`.
        broken (str): Why nothing was written; empty if it was.
    """

    split: str
    name: str
    stamp: list[int] = field(default_factory=list)
    boxes: int = 0
    kept: int = 0
    copies: int = 0
    dropped: list[list[str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    broken: str = ""

    @property
    def images(self) -> int:
        """Number of images written."""
        return sum(file.startswith("images/") for file in self.files)


@dataclass(frozen=True)
class Prepared:
    """A data set in YOLO layout.

    Attributes:
        dataset (str): Name of the data set.
        task (str): 'detect' or 'obb'.
        out (Path): Its folder.
        data (str): What `data=` takes: the packaged YAML where that finds it, otherwise the one in `out`.
        classes (tuple[str, ...]): Class names.
        labels (tuple[str, ...]): The folders of the source that the labels came from.
        entries (list[Entry]): What became of each published image.
    """

    dataset: str
    task: str
    out: Path
    data: str
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    entries: list[Entry]

    @property
    def broken(self) -> list[Entry]:
        """Images that could not be prepared."""
        return [e for e in self.entries if e.broken]

    def totals(self, split: str | None = None) -> dict[str, int]:
        """Return the counts of a split, or of all.

        Args:
            split (str | None): The split; None is all of them.

        Returns:
            (dict[str, int]): 'sources', 'broken', 'images', 'boxes', 'kept', 'dropped' and 'copies'.
        """
        found = [e for e in self.entries if split in (None, e.split)]
        return {
            "sources": len(found), "broken": sum(bool(e.broken) for e in found),
            "images": sum(e.images for e in found), "boxes": sum(e.boxes for e in found),
            "kept": sum(e.kept for e in found), "dropped": sum(len(e.dropped) for e in found),
            "copies": sum(e.copies for e in found),
        }  # fmt: skip

    def reasons(self) -> dict[str, int]:
        """Return how many boxes were dropped for each reason, the most frequent first."""
        return dict(Counter(drop[2] for e in self.entries for drop in e.dropped).most_common())

    def __str__(self) -> str:
        """Return the summary table."""
        splits = list(dict.fromkeys(e.split for e in self.entries))
        head = ["split", "sources", "broken", "images", "boxes in", "kept", "dropped", "label lines"]
        rows = [[split, *map(str, self.totals(split).values())] for split in splits]
        if len(splits) > 1:
            rows.append(["all", *map(str, self.totals().values())])
        lines = [f"{self.dataset}: {len(self.classes)} classes, {self.task}, {self.out}", *table([head, *rows])]
        lines.append(f"labels from {', '.join(self.labels)}")
        unknown = Counter(d[1] for e in self.entries for d in e.dropped if d[2] == "unknown class")
        for reason, count in self.reasons().items():
            which = ", ".join(map(shown, sorted(unknown)[:10])) if reason == "unknown class" else ""
            lines.append(f"dropped, {reason}: {count}" + (f" ({which})" if which else ""))
        lines += [f"broken: {said}" for said in named(self.broken)]
        return "\n".join([*lines, f"train with data={self.data}"])


def named(broken: Sequence[Entry]) -> list[str]:
    """Return broken images by name with the reason, one line each, at most 20."""
    lines = [f"{e.split}/{shown(e.name)}: {e.broken}" for e in broken[:NAMED]]
    return [*lines, f"and {len(broken) - NAMED} more, see broken.csv"] if len(broken) > NAMED else lines


def shown(name: str) -> str:
    """Return a name from somebody else's file as it can be printed on a line."""
    return name[:80] if name.isprintable() else ascii(name[:80])


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return rows of text in columns; all but the first column are numbers."""
    listed = list(rows)
    widths = [max(len(row[i]) for row in listed) for i in range(len(listed[0]))]
    lines = []
    for first, *numbers in listed:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines
