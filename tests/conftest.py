"""Fixtures: a throw-away Ultralytics configuration, small data sets and untrained checkpoints."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from ds2d2_yolo.utils.threads import shorten_openmp_spin
from tests.helpers.data import write_tiny_data
from tests.helpers.settings import TINY

shorten_openmp_spin()  # before torch is imported, for the processes that tests start too
# Ultralytics reads its folders when it is first imported, so this stands before any import of it
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="ds2d2-config-")
# a data set's check fetches fonts that the folder lacks, offline or not
FONTS = Path(os.environ["YOLO_CONFIG_DIR"], "Ultralytics")
FONTS.mkdir()
for name in ("Arial.ttf", "Arial.Unicode.ttf"):
    shutil.copy(Path(find_spec("matplotlib").origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", FONTS / name)
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ["YOLO_OFFLINE"] = "true"
os.environ["WANDB_MODE"] = "disabled"
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch  # noqa: E402

if not torch.cuda.is_available():  # Triton's kernels then run on a CPU; it reads this where the core first imports it
    os.environ.setdefault("TRITON_INTERPRET", "1")

# the same examples each time, however busy the machine is; a search among others is `--hypothesis-profile=search`
settings.register_profile("gate", derandomize=True, database=None, deadline=None, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("gate")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the tests of the core; they stand here because pytest reads no deeper conftest.py in time."""
    parser.addoption("--device", default="cpu", help="devices of the tests of the core: cpu, cuda; a comma list")
    parser.addoption(
        "--dtype", default="float32", help="types of the tests of the core: float16, bfloat16, float32, float64; a list"
    )


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden vectors, which is no part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared folder {SHARED}, which is no part of the project")
    return SHARED


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The YAML of a tiny data set of a task, written once."""
    made: dict[str, Path] = {}

    def get(task: str) -> Path:
        if task not in made:
            made[task] = write_tiny_data(tmp_path_factory.mktemp(f"data-{task}"), task)
        return made[task]

    return get


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """An untrained checkpoint of a model YAML, written once for each name."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def get(yaml: str, seed: int = 0, names: tuple[str, ...] = ("red", "green")) -> Path:
        import torch
        from ultralytics.nn.tasks import DetectionModel, OBBModel

        file = folder / f"{Path(yaml).stem}-{seed}-{'-'.join(names)}.pt"
        if not file.exists():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                kind = OBBModel if "obb" in yaml else DetectionModel
                model = kind(yaml, nc=len(names), verbose=False)
            model.names = dict(enumerate(names))
            model.task = "obb" if "obb" in yaml else "detect"
            torch.save({"model": model, "train_args": {"task": model.task, "imgsz": 96}}, file)
        return file

    return get


@pytest.fixture(scope="session")
def detecting(
    checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A checkpoint of a model YAML that finds boxes in the tiny data; each call gives a copy in a folder of its own."""
    folder = tmp_path_factory.mktemp("detecting")

    def get(yaml: str, at: Path, strength: float = 1.0) -> Path:
        made = folder / f"{Path(yaml).stem}-{strength}.pt"
        if not made.exists():
            from tests.helpers.detecting import write_detecting_checkpoint  # it imports torch

            task = "obb" if "obb" in yaml else "detect"
            write_detecting_checkpoint(checkpoint(yaml), tiny_data(task), task, made, strength)
        at.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(made, at / "best.pt"))

    return get


@pytest.fixture
def tiny_settings(tmp_path: Path) -> dict[str, object]:
    """Ultralytics settings of a run that takes seconds, its project in the test's own folder."""
    return {**TINY, "project": str(tmp_path / "runs"), "name": "run", "exist_ok": True}
