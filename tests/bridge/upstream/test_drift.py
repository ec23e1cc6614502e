"""The start-up check against the oldest supported Ultralytics and against the newest release on the registry."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import sysconfig
import time
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from ds2d2_yolo.bridge.upstream.compat import MINIMUM

REPOSITORY = Path(__file__).resolve().parents[3]
OLDEST = ".".join(map(str, MINIMUM))
REQUIREMENTS = {"oldest": f"ultralytics=={OLDEST}", "newest": f"ultralytics>={OLDEST}"}
NO_REGISTRY = ("(from versions: none)", "connection broken", "Could not fetch URL")

CHECK = """
import json, ds2d2_yolo, ultralytics
from ds2d2_yolo.bridge.upstream import compat
from ds2d2_yolo.errors import DS2D2Error

def check():
    try:
        compat.check_ultralytics()
    except DS2D2Error as e:
        return str(e)

passed = check()
compat.INTERNALS += (("ultralytics.utils.tal", "make_anchors", ("feats", "no_such_parameter")),)
print(json.dumps({"version": ultralytics.__version__, "files": [ds2d2_yolo.__file__, ultralytics.__file__],
                  "check": passed, "planted": check()}))
"""
IMPORTS = """
import importlib, pkgutil, ds2d2_yolo.bridge
for module in pkgutil.walk_packages(ds2d2_yolo.bridge.__path__, "ds2d2_yolo.bridge."):
    importlib.import_module(module.name)
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with its own Ultralytics and ds2d2-yolo; the other packages are those of the tests."""

    root: Path
    packages: Path

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run code that sees neither the checkout nor `PYTHONPATH`."""
        python = self.root / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        command = [str(python), "-I", "-c", code]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.root, timeout=300, check=False)


@pytest.fixture(scope="module", params=list(REQUIREMENTS))
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the oldest supported or the newest Ultralytics, without a further download of torch."""
    root = tmp_path_factory.mktemp(request.param)
    venv.create(root, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(root), "platbase": str(root)}))
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--retries", "1", "--target", str(packages)]
    command += ["--disable-pip-version-check", REQUIREMENTS[request.param], str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if "No module named pip" in done.stderr:
        pytest.skip("needs pip in the environment of the tests")
    if done.returncode and any(sign in done.stderr for sign in NO_REGISTRY):
        errors = [line.strip() for line in done.stderr.splitlines() if "ERROR: " in line]
        pytest.skip(f"cannot reach the package registry: {errors[0]}")
    assert done.returncode == 0, done.stderr[-2000:]
    shared = [p for p in site.getsitepackages() if Path(p).is_dir()]
    (packages / "shared.pth").write_text("\n".join(shared) + "\n", encoding="utf-8")
    return Environment(root, packages)


@pytest.mark.slow
def test_start_up_check_passes_and_names_what_moved(environment: Environment) -> None:
    began = time.perf_counter()
    done = environment.python(CHECK)
    assert done.returncode == 0, done.stderr[-2000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    print(f"{environment.root.name}: ultralytics {facts['version']}, {time.perf_counter() - began:.1f} s")
    for file in facts["files"]:  # the environment's, not those of the tests
        assert Path(file).is_relative_to(environment.packages)
    assert facts["check"] is None
    assert f"ultralytics {facts['version']} has moved what ds2d2-yolo builds on: " in facts["planted"]
    assert "ultralytics.utils.tal.make_anchors(no_such_parameter);" in facts["planted"]


@pytest.mark.slow
def test_every_module_of_the_bridge_imports(environment: Environment) -> None:
    done = environment.python(IMPORTS)
    assert done.returncode == 0, done.stderr[-2000:]


def test_oldest_release_is_the_lower_bound_of_the_package() -> None:
    assert f'"ultralytics>={OLDEST}"' in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
