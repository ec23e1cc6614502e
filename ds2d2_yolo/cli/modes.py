"""The table of the modes: what each is for, which keys it takes and what runs it."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from importlib import import_module
from typing import Any

from ds2d2_yolo.config.options import Options
from ds2d2_yolo.errors import BadUseError

TRAINING = ("Train", "Val/Test", "Hyperparameters")
SHARED = (  # of Ultralytics' train section, what its other modes take too
    "model", "data", "batch", "imgsz", "device", "workers", "project", "name", "exist_ok", "verbose", "fraction",
    "single_cls", "rect", "save",
)  # fmt: skip

# settings of Ultralytics' that a training cannot do without, for the help: what they take, and what they are
NEEDS = {
    "student": ("path", "checkpoint, release's name or model YAML of the teacher's task, needed"),
    "data": ("path", "data-set YAML, or the name of a packaged one, needed"),
}


@dataclass(frozen=True)
class Mode:
    """One word of the command line.

    Attributes:
        about (str): What it does, in a few words.
        example (str): A command.
        runs (str): The function that is called with the settings, as 'module:name'; empty for those of the command
            line itself. What it returns is printed unless it is None.
        options (str): The class of its own keys, as 'module:name'; empty if it has none.
        only (tuple[str, ...]): Its keys among those of the class; all if empty.
        theirs (tuple[str, ...]): Sections of Ultralytics' settings that pass through.
        page (str): Ultralytics' page about those; empty if none pass.
        notes (str): Text under the keys in the help, as 'module:name'; empty if there is none.
        passing (str): Names of Ultralytics' settings that pass through, as 'module:name', in the place of sections.
        needs (tuple[str, ...]): Names of `NEEDS` that it cannot do without.
    """

    about: str
    example: str
    runs: str = ""
    options: str = ""
    only: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()
    page: str = ""
    notes: str = ""
    passing: str = ""
    needs: tuple[str, ...] = ()

    def option_fields(self) -> list[Field[Any]]:
        """Return the declarations of its own keys; neither torch nor Ultralytics is loaded for it."""
        if not self.options:
            return []
        kind: type[Options] = load(self.options)
        return [f for f in fields(kind) if not self.only or f.name in self.only]


def load(place: str) -> Any:
    """Return what 'module:name' names."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"ds2d2_yolo.{module}"), name)


def run_train(**settings: Any) -> None:
    """Distil a student; Ultralytics prints the results itself."""
    load("bridge.api:distill")(**settings)


def run_check(**settings: Any) -> str:
    """Return the report of a training."""
    from ds2d2_yolo.bridge.api import check
    from ds2d2_yolo.report.text import render

    return render(check(**settings))


def run_amplify(**settings: Any) -> None:
    """Train a teacher's amplifier, or find the one that is kept; it says itself where the file is and how good."""
    load("bridge.training.amplify:amplify")(**settings)


def run_demo(**settings: Any) -> None:
    """Run the demonstration, which prints its table itself."""
    load("demo.run:run_demo")(**settings)


def run_checks(**settings: Any) -> None:
    """Print the versions and the machine, as `yolo checks` does, and whether the bridge fits this Ultralytics."""
    from ds2d2_yolo.bridge.upstream.hardware import collect_system_info

    if settings:
        raise BadUseError(f"'{next(iter(settings))}': checks takes no settings")
    collect_system_info()


MODES: dict[str, Mode] = {
    "train": Mode(
        "distil a student",
        "ds2d2-yolo train teacher=yolov8x-obb.pt student=yolov8n-obb.yaml data=dota.yaml",
        "cli.modes:run_train", "config.settings:Settings", theirs=TRAINING, page="train", needs=("student", "data"),
    ),
    "amplify": Mode(
        "train a teacher's high-frequency amplifier on its own",
        "ds2d2-yolo amplify teacher=T.pt data=D.yaml epochs=100 imgsz=1024",
        "cli.modes:run_amplify", "config.settings:Settings",
        ("teacher", "recipe", "wavelet", "teacher_channels", "amplifier_epochs", "safe"), TRAINING, "train",
        needs=("data",),
    ),
    "check": Mode(
        "what a training would do, and stop",
        "ds2d2-yolo check teacher=T.pt student=S.yaml data=D.yaml",
        "cli.modes:run_check", "config.settings:Settings", theirs=TRAINING, page="train", needs=("student", "data"),
    ),
    "val": Mode(
        "mAP, also by size, crowding and orientation",
        "ds2d2-yolo val model=best.pt data=D.yaml",
        "evaluate:val", "evaluate.options:ValOptions", theirs=("Val/Test",), page="val",
    ),
    "predict": Mode(
        "detect in images and in scenes of any size",
        "ds2d2-yolo predict model=best.pt source=scene.tif slice=1024 overlap=0.2",
        "predict:predict", "predict.options:PredictOptions",
        theirs=("Predict", "Val/Test", "Visualize"), page="predict",
    ),
    "export": Mode(
        "export, and compare the file with PyTorch on real images",
        "ds2d2-yolo export model=best.pt format=onnx",
        "deploy:export", "deploy.options:ExportOptions", passing="deploy.options:EXPORT_KEYS",
        notes="deploy.options:EXPORT_NOTES",
    ),
    "benchmark": Mode(
        "speed, size, memory and mAP of models in formats, here",
        "ds2d2-yolo benchmark model=teacher.pt,best.pt formats=pt,onnx data=D.yaml",
        "deploy:benchmark", "deploy.options:BenchmarkOptions",
    ),
    "compare": Mode(
        "train arms over seeds and compare them in pairs; the keys of 'train' are valid too",
        "ds2d2-yolo compare teacher=T.pt student=S.yaml data=D.yaml arms=plain,ds2d2 seeds=0,1,2",
        "compare:compare", "compare.options:CompareOptions", theirs=TRAINING, page="train",
    ),
    "demo": Mode(
        "the whole story on the built-in scenes, without network",
        "ds2d2-yolo demo",
        "cli.modes:run_demo", "demo.plan:DemoSettings",
    ),
    "data": Mode(
        "list the data sets; 'data prepare dota|dior|dior-r|hit-uav' turns them into YOLO's layout",
        "ds2d2-yolo data prepare dota source=DOTA out=datasets/DOTAv1-split",
        options="prepare.options:PrepareOptions",
    ),
    "cfg": Mode("print the DS2D2 settings with their defaults", "ds2d2-yolo cfg > my-recipe.yaml"),
    "checks": Mode("print the versions and the machine", "ds2d2-yolo checks", "cli.modes:run_checks"),
    "completion": Mode("print what completes commands in bash or zsh", "ds2d2-yolo completion bash"),
    "help": Mode("this text; 'help MODE' for the keys of a mode", "ds2d2-yolo help train"),
    "version": Mode("print the version", "ds2d2-yolo version"),
}  # fmt: skip

# words that Ultralytics users type, and why they end here
REFUSED = {
    "tune": (
        "'tune' would start plain trainings, which know no teacher: compare settings with 'ds2d2-yolo compare' and "
        "arms of your own, or tune the plain student with 'yolo' first"
    ),
    "track": "'track' is Ultralytics' own: a student is a plain checkpoint, so type 'yolo track model=best.pt'",
}
