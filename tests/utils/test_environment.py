"""Versions of packages and the source revision."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ds2d2_yolo import __version__
from ds2d2_yolo.utils import environment
from ds2d2_yolo.utils.environment import package_versions, source_revision


def test_versions_begin_with_this_package_and_keep_the_order() -> None:
    versions = package_versions(["torch", "no-such-package", "ultralytics"])
    assert list(versions) == ["ds2d2-yolo", "torch", "no-such-package", "ultralytics"]
    assert versions["ds2d2-yolo"] == __version__
    assert versions["torch"] == version("torch")
    assert versions["no-such-package"] is None


REVISION = (
    "from ds2d2_yolo.utils.environment import source_revision; print(source_revision(), source_revision(40, False))"
)


def package_copy(folder: Path) -> Path:
    """Copy what `source_revision` needs of the package, so that a test may put it under version control."""
    source = Path(environment.__file__).parents[1]
    for name in ("__init__.py", "_version.py", "utils/__init__.py", "utils/environment.py"):
        (folder / "ds2d2_yolo" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / "ds2d2_yolo" / name)
    return folder


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder and return its standard output."""
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_revision_is_that_of_a_checkout_and_says_when_files_differ(tmp_path: Path) -> None:
    package_copy(tmp_path)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    run(tmp_path, *git, "init", "--quiet")
    assert run(tmp_path, sys.executable, "-c", REVISION) == "None None", "git does not track the package"
    run(tmp_path, *git, "add", "ds2d2_yolo/*.py", "ds2d2_yolo/utils/*.py")
    run(tmp_path, *git, "commit", "--quiet", "--message", "one")
    commit = run(tmp_path, *git, "rev-parse", "HEAD")
    assert run(tmp_path, sys.executable, "-c", REVISION) == f"{commit[:12]} {commit}"
    (tmp_path / "ds2d2_yolo" / "utils" / "__init__.py").write_text('"""Changed."""\n', encoding="utf-8")
    assert run(tmp_path, sys.executable, "-c", REVISION) == f"{commit[:12]}-dirty {commit}"


def test_without_git_there_is_no_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert source_revision() is None
