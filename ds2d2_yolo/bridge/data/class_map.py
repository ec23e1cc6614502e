"""Classes of a teacher and of a data set, matched by name, never by index."""

from __future__ import annotations

import re
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ds2d2_yolo.errors import BadUseError

MAX_LISTED_NAMES = 8  # in one line of text
SEPARATORS = re.compile(r"[-_\s]+")


@dataclass(frozen=True)
class ClassMap:
    """Pairs of equal classes of a data set and of a teacher.

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
        """(tuple[list[int] | None, list[int] | None]): The teacher's and the student's columns to compare.

        None stands for all columns. Without a shared class no predictions are compared, and all classes of the teacher
        may weigh its features.
        """
        teacher_columns, data_columns = self.teacher_columns, self.data_columns
        if not teacher_columns:
            return None, None
        return (
            None if len(teacher_columns) == len(self.teacher) else list(teacher_columns),
            None if data_columns == tuple(range(len(self.data))) else list(data_columns),
        )

    @property
    def identical(self) -> bool:
        """(bool): Whether both have the same names in the same order."""
        return self.teacher == self.data

    def restrict_to(self, classes: Sequence[int] | int | None) -> ClassMap:
        """Leave out the pairs of classes that a run does not take.

        Args:
            classes (Sequence[int] | int | None): The data's classes that it takes (Ultralytics' `classes=`); None is
                all.

        Returns:
            (ClassMap): With the remaining pairs.
        """
        if classes is None:
            return self
        taken = {classes} if isinstance(classes, int) else set(classes)
        return replace(self, pairs=tuple((d, t) for d, t in self.pairs if d in taken))

    def describe(self) -> str:
        """Return one line on what is shared and what is not; long lists are cut."""
        if self.identical:
            return "the teacher's classes are the data's"
        count = len(self.pairs)
        if not count:
            data, teacher = join_names(self.data), join_names(self.teacher)
            return f"no class is shared: the data have {data}; the teacher has {teacher}"
        matched, columns = {d for d, _ in self.pairs}, self.teacher_columns
        data_only = [name for i, name in enumerate(self.data) if i not in matched]
        teacher_only = [name for i, name in enumerate(self.teacher) if i not in columns]
        if not data_only and not teacher_only:
            ordered = [t for _, t in self.pairs] == list(columns)
            return f"the teacher's classes are the data's, {'written differently' if ordered else 'in another order'}"
        verb = "is" if count == 1 else "are"
        some = f"{count} of the data's {len(self.data)} classes {verb} shared"
        first = some if data_only else "the teacher has all classes of the data"
        parts = [f"{first}: {join_names(self.shared)}"]
        parts += [f"the data alone have {join_names(data_only)}"] if data_only else []
        parts += [f"the teacher alone has {join_names(teacher_only)}"] if teacher_only else []
        return "; ".join(parts)


def match_classes(teacher: Sequence[str], data: Sequence[str]) -> ClassMap:
    """Match the classes of a teacher to those of a data set by name.

    Equal names match first, then names that differ only in case and separators: 'storage-tank' is 'Storage Tank'. A
    name that could mean two classes of one side matches none of the other side.

    Args:
        teacher (Sequence[str]): The teacher's classes, in the order of its outputs.
        data (Sequence[str]): The data's classes, in the order of their indices.

    Returns:
        (ClassMap): The pairs; none where no name is in both.
    """
    data_names, teacher_names = tuple(data), tuple(teacher)
    if data_names == teacher_names:  # also where a name comes twice: the teacher was trained on these
        return ClassMap(teacher_names, data_names, tuple((i, i) for i in range(len(data_names))))
    pairs = _unique_pairs(data_names, teacher_names)
    matched = set(pairs.values())
    normalized = _unique_pairs([_normalize(n) for n in data_names], [_normalize(n) for n in teacher_names])
    for data_class, teacher_class in normalized.items():
        if data_class not in pairs and teacher_class not in matched:
            pairs[data_class] = teacher_class
    return ClassMap(teacher_names, data_names, tuple(sorted(pairs.items())))


def match_run_classes(teacher: Sequence[str], data: Mapping[str, Any], args: Namespace) -> ClassMap:
    """Match the classes of a teacher to those that a run takes of its data (Ultralytics' `classes=`).

    Args:
        teacher (Sequence[str]): The teacher's classes, in the order of its outputs.
        data (Mapping[str, Any]): The run's data set; with `single_cls` its names are one.
        args (Namespace): Ultralytics' settings of the run.

    Returns:
        (ClassMap): Without the pairs of classes that the run leaves out. Under `single_cls`, `classes=` picks among the
            indices of the labels before they become one class, which stays.

    Raises:
        BadUseError: If `classes=` names one that the data do not have: Ultralytics would train without objects.
    """
    class_map = match_classes(teacher, class_names(data["names"]))
    if args.single_cls:
        return class_map
    check_classes(args.classes, len(class_map.data), "the data have")
    return class_map.restrict_to(args.classes)


def check_classes(classes: Any, count: int, who: str) -> None:
    """Refuse `classes=` of a class that does not exist: Ultralytics would find nothing, without a word.

    Args:
        classes (Any): Ultralytics' `classes=`, checked by its type; None is all classes.
        count (int): Number of classes.
        who (str): Subject and verb for the message, such as 'the model has'.

    Raises:
        BadUseError: Naming the indices that exist.
    """
    indices = classes if isinstance(classes, (list, tuple)) else [classes]
    if classes is not None and not all(0 <= c < count for c in indices):
        raise BadUseError(f"classes={classes}: {who} {count} classes, 0 to {count - 1}")


def class_names(names: Mapping[int, Any]) -> tuple[str, ...]:
    """Return class names in the order of their indices.

    Args:
        names (Mapping[int, Any]): Names of a model or of a data set by index.

    Returns:
        (tuple[str, ...]): As text.
    """
    return tuple(str(names[i]) for i in sorted(names))


def join_names(names: Sequence[str]) -> str:
    """Join names for a message.

    Args:
        names (Sequence[str]): The names, of which at most `MAX_LISTED_NAMES` are shown.

    Returns:
        (str): Such as 'a, b and 3 more'.
    """
    more = len(names) - MAX_LISTED_NAMES
    return ", ".join(names[:MAX_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")


def _normalize(name: str) -> str:
    """Return a name without case and with single spaces as separators."""
    return SEPARATORS.sub(" ", name.casefold()).strip()


def _unique_pairs(data: Sequence[str], teacher: Sequence[str]) -> dict[int, int]:
    """Return the teacher's index by the data's index of each name that both sides have exactly once."""
    in_data, in_teacher = Counter(data), Counter(teacher)
    return {d: teacher.index(name) for d, name in enumerate(data) if in_data[name] == 1 and in_teacher[name] == 1}
