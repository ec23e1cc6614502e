"""Classes matched by name: order, partial overlap, spelling, and what must not match."""

from __future__ import annotations

from argparse import Namespace

import pytest

from ds2d2_yolo.bridge.data.class_map import class_names, join_names, match_classes, match_run_classes
from ds2d2_yolo.errors import BadUseError


def test_a_run_may_take_some_of_the_datas_classes() -> None:
    class_map = match_classes(["red", "green"], ["green", "red"])
    assert class_map.restrict_to(None) == class_map
    assert class_map.restrict_to([0]).shared == ("green",)
    assert class_map.restrict_to(1).teacher_columns == (0,)


def test_the_one_class_of_single_cls_is_taken_whatever_classes_says() -> None:
    """Ultralytics takes `classes` as the labels' own indices, and makes one class of them then."""
    data = {"names": {0: "item"}}
    for classes in (None, [1], [0, 1]):
        assert match_run_classes(["item"], data, Namespace(single_cls=True, classes=classes)).shared == ("item",)
    data = {"names": {0: "red", 1: "green"}}
    assert match_run_classes(["red", "green"], data, Namespace(single_cls=False, classes=[1])).shared == ("green",)


@pytest.mark.parametrize("classes", [7, -1, [0, 2], (2,)])
def test_classes_that_the_data_do_not_have_are_refused(classes: object) -> None:
    data = {"names": {0: "red", 1: "green"}}
    with pytest.raises(BadUseError, match=r"classes=.*: the data have 2 classes, 0 to 1"):
        match_run_classes(["red"], data, Namespace(single_cls=False, classes=classes))


def test_same_names_in_the_same_order() -> None:
    class_map = match_classes(("red", "green"), ("red", "green"))
    assert class_map.identical
    assert class_map.pairs == ((0, 0), (1, 1))
    assert class_map.describe() == "the teacher's classes are the data's"
    assert match_classes(("red", "red"), ("red", "red")).pairs == ((0, 0), (1, 1))


def test_another_order() -> None:
    class_map = match_classes(("red", "green", "blue"), ("blue", "red", "green"))
    assert not class_map.identical
    assert class_map.pairs == ((0, 2), (1, 0), (2, 1))
    assert class_map.shared == ("blue", "red", "green")
    assert class_map.teacher_columns == (0, 1, 2)
    assert class_map.describe() == "the teacher's classes are the data's, in another order"


def test_partial_overlap() -> None:
    class_map = match_classes(("plane", "ship", "harbor", "car"), ("car", "boat", "ship"))
    assert class_map.pairs == ((0, 3), (2, 1))
    assert class_map.teacher_columns == (1, 3)
    assert class_map.describe() == (
        "2 of the data's 3 classes are shared: car, ship; the data alone have boat; the teacher alone has plane, harbor"
    )
    assert match_classes(("a", "b"), ("b",)).describe() == (
        "the teacher has all classes of the data: b; the teacher alone has a"
    )


def test_no_overlap() -> None:
    class_map = match_classes(("a", "b"), ("c", "d"))  # of one length, and not one index is taken for a match
    assert class_map.pairs == class_map.shared == class_map.teacher_columns == ()
    assert class_map.describe() == "no class is shared: the data have c, d; the teacher has a, b"


@pytest.mark.parametrize("name", ["storage tank", "Storage-Tank", "STORAGE_TANK", "storage  tank ", "storage - tank"])
def test_case_and_separators_do_not_count(name: str) -> None:
    class_map = match_classes(("plane", "storage-tank"), (name, "plane"))
    assert class_map.pairs == ((0, 1), (1, 0))
    spelled = match_classes(("plane", "storage-tank"), ("plane", name))
    assert spelled.pairs == ((0, 0), (1, 1))
    assert not spelled.identical
    assert spelled.describe() == "the teacher's classes are the data's, written differently"


def test_words_that_differ_do_not_match() -> None:
    assert match_classes(("storagetank", "ships", "strasse"), ("storage tank", "ship", "Straße")).pairs == ((2, 2),)


@pytest.mark.parametrize(
    ("teacher", "data", "pairs"),
    [
        (("Ship", "ship"), ("ship",), ((0, 1),)),  # the exact one
        (("ship",), ("Ship", "ship"), ((1, 0),)),
        (("Ship", "ship"), ("SHIP",), ()),  # either could be meant
        (("SHIP",), ("Ship", "ship"), ()),
        (("Ship", "ship"), ("SHIP", "ship"), ((1, 1),)),
        (("ship", "ship", "car"), ("car", "ship"), ((0, 2),)),  # twice on one side
    ],
)
def test_ambiguous_names_do_not_match_wrongly(
    teacher: tuple[str, ...], data: tuple[str, ...], pairs: tuple[tuple[int, int], ...]
) -> None:
    assert match_classes(teacher, data).pairs == pairs


def test_names_by_index() -> None:
    assert class_names({1: "green", 0: "red", 2: 7}) == ("red", "green", "7")


def test_long_lists_are_cut() -> None:
    names = [f"c{i}" for i in range(20)]
    assert join_names(names) == "c0, c1, c2, c3, c4, c5, c6, c7 and 12 more"
    assert join_names(names[:8]) == "c0, c1, c2, c3, c4, c5, c6, c7"
    assert len(match_classes(names, [*names[::2], "x"]).describe()) < 200


def test_columns_to_compare() -> None:
    """None where all are, in their order; `classes=` leaves columns out though the names are identical."""
    class_map = match_classes(["a", "b", "c"], ["a", "b", "c"])
    assert class_map.compared_columns == (None, None)
    assert class_map.restrict_to([0, 2]).compared_columns == ([0, 2], [0, 2])
    assert match_classes(["a", "b"], ["b", "a"]).compared_columns == (None, [1, 0])
    assert match_classes(["x", "b", "a"], ["a", "b"]).compared_columns == ([1, 2], [1, 0])
    assert match_classes(["x"], ["a", "b"]).compared_columns == (None, None)
