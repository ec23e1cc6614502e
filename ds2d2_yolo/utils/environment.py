"""Versions of the installed packages and the source revision of this package."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ds2d2_yolo._version import __version__


def package_versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Return the version of this package and of others.

    Args:
        packages (Iterable[str]): Distribution names, as pip knows them.

    Returns:
        (dict[str, str | None]): 'ds2d2-yolo' first, then the packages in their order; None for one that is not
            installed under this name.
    """
    versions: dict[str, str | None] = {"ds2d2-yolo": __version__}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def source_revision(digits: int = 12, mark_dirty: bool = True) -> str | None:
    """Return the git commit of the checkout that this package is imported from.

    Args:
        digits (int): Digits of the commit's hash, 40 for all of them.
        mark_dirty (bool): Whether '-dirty' is appended if tracked files differ from the commit.

    Returns:
        (str | None): The hash; None for a package that git does not track, such as an installed wheel, and without git.
    """
    file = Path(__file__).resolve()
    git = ["git", "-C", str(file.parent)]
    describe = [*git, "describe", "--always", "--exclude=*", f"--abbrev={digits}"]
    try:
        # an environment inside somebody's repository has its revision, but git does not track the package there
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], check=True, capture_output=True)
        command = [*describe, "--dirty"] if mark_dirty else describe
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
