"""Result of a preparation: counts per image, totals per split, and the summary table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ds2d2_yolo.utils.stretch import PERCENTILES

MAX_NAMED = 20  # broken files in the summary; broken.csv lists all


@dataclass(frozen=True)
class Entry:
    """Outcome of one published image; a line of the journal.

    Attributes:
        split (str): Its split.
        name (str): Its name without suffix.
        stamp (list[int]): Size in bytes and modification time in ns of image and annotation; an image is made again
            when they change.
        boxes (int): Published boxes. Always `kept` + the number in `dropped`.
        kept (int): Boxes in at least one written image.
        copies (int): Label lines written; with tiles a box may have several.
        dropped (list[list[str]]): Position, class and reason of every dropped box.
        files (list[str]): Written files, relative to `out`.
        broken (str): Reason why nothing was written; empty if the image was written.
        stretched (str): Sample type of a source of other than 8 bits, whose values were stretched; empty for 8 bits.
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
    stretched: str = ""

    @property
    def images(self) -> int:
        """Number of images written."""
        return sum(file.startswith("images/") for file in self.files)


@dataclass(frozen=True)
class Prepared:
    """A prepared data set in the YOLO layout.

    Attributes:
        dataset (str): Name of the data set.
        task (str): 'detect' or 'obb'.
        out (Path): Its folder.
        data (str): Value of `data=`: the packaged YAML if `out` is its folder, otherwise the YAML in `out`.
        classes (tuple[str, ...]): Class names.
        labels (tuple[str, ...]): Folders of the source that hold the labels.
        entries (list[Entry]): Outcome of each published image.
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
        """(list[Entry]): Images that could not be prepared."""
        return [e for e in self.entries if e.broken]

    def totals(self, split: str | None = None) -> dict[str, int]:
        """Return the counts of a split, or of all.

        Args:
            split (str | None): The split; None takes all.

        Returns:
            (dict[str, int]): 'sources', 'broken', 'images', 'boxes', 'kept', 'dropped' and 'copies'.
        """
        entries = [e for e in self.entries if split in (None, e.split)]
        return {
            "sources": len(entries), "broken": sum(bool(e.broken) for e in entries),
            "images": sum(e.images for e in entries), "boxes": sum(e.boxes for e in entries),
            "kept": sum(e.kept for e in entries), "dropped": sum(len(e.dropped) for e in entries),
            "copies": sum(e.copies for e in entries),
        }  # fmt: skip

    def reasons(self) -> dict[str, int]:
        """Return the number of dropped boxes by reason, the most frequent first."""
        return dict(Counter(drop[2] for e in self.entries for drop in e.dropped).most_common())

    def __str__(self) -> str:
        """Return the summary table."""
        splits = list(dict.fromkeys(e.split for e in self.entries))
        header = ["split", "sources", "broken", "images", "boxes in", "kept", "dropped", "label lines"]
        rows = [[split, *map(str, self.totals(split).values())] for split in splits]
        if len(splits) > 1:
            rows.append(["all", *map(str, self.totals().values())])
        lines = [f"{self.dataset}: {len(self.classes)} classes, {self.task}, {self.out}", *table([header, *rows])]
        lines.append(f"labels from {', '.join(self.labels)}")
        unknown = Counter(d[1] for e in self.entries for d in e.dropped if d[2] == "unknown class")
        for reason, count in self.reasons().items():
            which = ", ".join(map(shown, sorted(unknown)[:10])) if reason == "unknown class" else ""
            lines.append(f"dropped, {reason}: {count}" + (f" ({which})" if which else ""))
        if background := sum(e.split != "test" and not e.broken and not e.boxes for e in self.entries):
            lines.append(f"images without boxes: {background}")
        for dtype, count in Counter(e.stretched for e in self.entries if e.stretched).most_common():
            low, high = PERCENTILES
            lines.append(f"stretched to 8 bits, {dtype}: {count} (each band from its percentiles {low:g} to {high:g})")
        lines += [f"broken: {line}" for line in named(self.broken)]
        return "\n".join([*lines, f"train with data={self.data}"])


def named(broken: Sequence[Entry]) -> list[str]:
    """Return broken images with the reason, one line each, at most 20.

    Args:
        broken (Sequence[Entry]): Entries of broken images.

    Returns:
        (list[str]): The lines; the last one counts the others.
    """
    lines = [f"{e.split}/{shown(e.name)}: {e.broken}" for e in broken[:MAX_NAMED]]
    return [*lines, f"and {len(broken) - MAX_NAMED} more, see broken.csv"] if len(broken) > MAX_NAMED else lines


def shown(name: str) -> str:
    """Return a name from a foreign file in a form that prints on one line.

    Args:
        name (str): The name.

    Returns:
        (str): At most 80 characters; escaped if some do not print.
    """
    return name[:80] if name.isprintable() else ascii(name[:80])


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return rows of text in columns; all but the first column are right-aligned.

    Args:
        rows (Iterable[Sequence[str]]): Cells of the header and of each row.

    Returns:
        (list[str]): One line per row.
    """
    lines, all_rows = [], list(rows)
    widths = [max(map(len, column)) for column in zip(*all_rows, strict=True)]
    for first, *numbers in all_rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines
