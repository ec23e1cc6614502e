"""The start-up check: silent on the release that the tests run on, and precise where something moved."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from ds2d2_yolo import bridge
from ds2d2_yolo.bridge.upstream import compat
from ds2d2_yolo.errors import DS2D2Error

REPOSITORY = Path(__file__).resolve().parents[3]


def test_installed_release_has_everything() -> None:
    compat.check_ultralytics()


def test_names_each_internal_that_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = (
        ("ultralytics.utils.tal", "NoSuchAssigner.forward", ()),
        ("ultralytics.no_such_module", "anything", ()),
        ("ultralytics.utils.tal", "make_anchors", ("feats", "no_such_parameter")),
    )
    monkeypatch.setattr(compat, "INTERNALS", compat.INTERNALS + moved)
    with pytest.raises(DS2D2Error) as e:
        compat.check_ultralytics()
    message = str(e.value)
    assert "ultralytics.utils.tal.NoSuchAssigner.forward, ultralytics.no_such_module.anything" in message
    assert "make_anchors(no_such_parameter)" in message
    assert "BaseTrainer" not in message


def test_is_made_before_the_import_that_would_fail() -> None:
    code = (
        "import ultralytics.data.utils as u; del u.img2label_paths\n"
        "import ds2d2_yolo\n"
        "try:\n    ds2d2_yolo.distill\n"
        "except Exception as e:\n    print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert "DS2D2Error" in done.stdout, done.stderr[-1000:]
    assert "ultralytics.data.utils.img2label_paths" in done.stdout


def test_an_old_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "installed_version", lambda _: "8.3.200")
    with pytest.raises(DS2D2Error, match=r"ultralytics 8\.3\.200 is too old: pip install 'ultralytics>=8\.4\.190'"):
        compat.check_ultralytics()


def test_lists_every_import_of_ultralytics() -> None:
    listed = {(module, dotted.split(".")[0]) for module, dotted, _ in compat.INTERNALS}
    imported = {
        (node.module, name.name): f"{file.relative_to(REPOSITORY)}:{node.lineno}"
        for file in (REPOSITORY / "ds2d2_yolo").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ultralytics"
        for name in node.names
        if not isinstance(getattr(import_module(str(node.module)), name.name), ModuleType)
    }
    assert {where: key for key, where in imported.items() if key not in listed} == {}


def test_lists_every_method_that_the_package_overrides() -> None:
    listed = {dotted for _, dotted, _ in compat.INTERNALS}
    missing = {}
    for module in pkgutil.walk_packages(bridge.__path__, f"{bridge.__name__}."):
        for name, part in vars(import_module(module.name)).items():
            if not isinstance(part, type) or part.__module__ != module.name:
                continue
            for method in (
                vars(part).keys() - vars(object).keys() - {"__module__", "__dict__", "__parameters__"}
            ):  # the last is of typing
                upstream = [b for b in part.__mro__ if b.__module__.startswith("ultralytics.") and method in vars(b)]
                if upstream and not any(f"{b.__name__}.{method}" in listed for b in upstream):
                    missing[f"{name}.{method}"] = [b.__name__ for b in upstream]
    assert missing == {}
