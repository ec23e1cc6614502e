"""The classes of a teacher and of a data set, matched by name; their indices are never compared."""

from __future__ import annotations

import re
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

MAX_LISTED_NAMES = 8  # names of a list that a line of text shows
SEPARATORS = re.compile(r"[-_\s]+")


@dataclass(frozen=True)
class ClassMap:
    """Which class of a data set is which class of a teacher.

    Attributes:
        teacher (tuple[str, ...]): The teacher's classes, in the order of its outputs.
        data (tuple[str, ...]): The data's classes, in the order of their indices.
        pairs (tuple[tuple[int, int], ...]): Data index and teacher index of each shared class, by data index.

    Examples:
        >>> match_classes(["ship", "storage tank"], ["plane", "storage-tank"]).pairs
        ((1, 1),)
    """

    teacher: tuple[str, ...]
    data: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def shared(self) -> tuple[str, ...]:
        """(tuple[str, ...]): The shared classes as the data name them, in the data's order."""
        return tuple(self.data[d] for d, _ in self.pairs)

    @property
    def teacher_columns(self) -> tuple[int, ...]:
        """(tuple[int, ...]): The teacher's indices of the shared classes, ascending."""
        return tuple(sorted(t for _, t in self.pairs))

    @property
    def data_columns(self) -> tuple[int, ...]:
        """(tuple[int, ...]): The data's indices of the shared classes, in the order of `teacher_columns`."""
        return tuple(d for d, _ in sorted(self.pairs, key=lambda pair: pair[1]))

    @property
    def compared_columns(self) -> tuple[list[int] | None, list[int] | None]:
        """The columns to compare, the teacher's and the student's; None is all of them.

        Without a shared class no predictions are compared, and all of the teacher's classes may weigh its features.
        """
        theirs, mine = self.teacher_columns, self.data_columns
        if not theirs:
            return None, None
        return (
            None if len(theirs) == len(self.teacher) else list(theirs),
            None if mine == tuple(range(len(self.data))) else list(mine),
        )

    @property
    def identical(self) -> bool:
        """(bool): Whether both have the same names in the same order."""
        return self.teacher == self.data

    def restrict_to(self, classes: Sequence[int] | int | None) -> ClassMap:
        """Return the map of the data's classes that a run takes (Ultralytics' `classes=`); None is all."""
        if classes is None:
            return self
        taken = {classes} if isinstance(classes, int) else set(classes)
        return replace(self, pairs=tuple((d, t) for d, t in self.pairs if d in taken))

    def describe(self) -> str:
        """Return what was found, in one line; long lists are cut."""
        if self.identical:
            return "the teacher's classes are the data's"
        count = len(self.pairs)
        if not count:
            return (
                f"no class is shared: the data have {join_names(self.data)}; the teacher has {join_names(self.teacher)}"
            )
        matched, columns = {d for d, _ in self.pairs}, self.teacher_columns
        extra = [name for i, name in enumerate(self.data) if i not in matched]
        lacking = [name for i, name in enumerate(self.teacher) if i not in columns]
        if not extra and not lacking:
            ordered = [t for _, t in self.pairs] == list(columns)
            return f"the teacher's classes are the data's, {'written differently' if ordered else 'in another order'}"
        verb = "is" if count == 1 else "are"
        some = f"{count} of the data's {len(self.data)} classes {verb} shared"
        first = some if extra else "the teacher has all classes of the data"
        said = [f"{first}: {join_names(self.shared)}"]
        said += [f"the data alone have {join_names(extra)}"] if extra else []
        said += [f"the teacher alone has {join_names(lacking)}"] if lacking else []
        return "; ".join(said)


def match_classes(teacher: Sequence[str], data: Sequence[str]) -> ClassMap:
    """Match the classes of a teacher to those of a data set by name.

    Equal names match first, then those that differ in case and separators alone: 'storage-tank' is 'Storage Tank'. A
    name that could mean two classes of one side matches none of the other's.

    Args:
        teacher (Sequence[str]): The teacher's classes, in the order of its outputs.
        data (Sequence[str]): The data's classes, in the order of their indices.

    Returns:
        (ClassMap): The pairs; none where no name is in both.
    """
    mine, theirs = tuple(data), tuple(teacher)
    if mine == theirs:  # also where a name comes twice: the teacher was trained on these
        return ClassMap(theirs, mine, tuple((i, i) for i in range(len(mine))))
    found = _unique_pairs(mine, theirs)
    taken = set(found.values())
    for d, t in _unique_pairs([_plain(n) for n in mine], [_plain(n) for n in theirs]).items():
        if d not in found and t not in taken:
            found[d] = t
    return ClassMap(theirs, mine, tuple(sorted(found.items())))


def match_run_classes(teacher: Sequence[str], data: Mapping[str, Any], args: Namespace) -> ClassMap:
    """Match the classes of a teacher to those that a run takes of its data (Ultralytics' `classes=`).

    Args:
        teacher (Sequence[str]): The teacher's classes, in the order of its outputs.
        data (Mapping[str, Any]): The run's data set; with `single_cls` its names are one.
        args (Namespace): The run's Ultralytics settings.

    Returns:
        (ClassMap): Without the pairs that the run leaves out. `classes=` picks among the labels' own indices before
            `single_cls` makes one class of them: that class is taken then.
    """
    found = match_classes(teacher, class_names(data["names"]))
    return found if args.single_cls else found.restrict_to(args.classes)


def class_names(names: Mapping[int, Any]) -> tuple[str, ...]:
    """Return the names of a model or of a data set in the order of their indices."""
    return tuple(str(names[i]) for i in sorted(names))


def join_names(names: Sequence[str]) -> str:
    """Return names as text, at most `MAX_LISTED_NAMES` of them."""
    more = len(names) - MAX_LISTED_NAMES
    return ", ".join(names[:MAX_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")


def _plain(name: str) -> str:
    """Return a name without what people write differently: case and separators."""
    return SEPARATORS.sub(" ", name.casefold()).strip()


def _unique_pairs(data: Sequence[str], teacher: Sequence[str]) -> dict[int, int]:
    """Return the teacher's index by the data's index of each name that both sides have exactly once."""
    here, there = Counter(data), Counter(teacher)
    return {d: teacher.index(name) for d, name in enumerate(data) if here[name] == 1 and there[name] == 1}
