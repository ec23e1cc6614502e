"""The modes of the command line: purpose, valid keys and entry function of each."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from importlib import import_module
from typing import Any

from ds2d2_yolo.config.options import Options
from ds2d2_yolo.errors import BadUseError

TRAINING = ("Train", "Val/Test", "Hyperparameters")
SHARED_KEYS = (  # keys of Ultralytics' train section that its other modes take too
    "model", "data", "batch", "imgsz", "device", "workers", "project", "name", "exist_ok", "verbose", "fraction",
    "single_cls", "rect", "save",
)  # fmt: skip

# Ultralytics settings that a training requires, for the help: range and meaning
REQUIRED = {
    "student": ("path", "checkpoint, release's name or model YAML of the teacher's task, needed"),
    "data": ("path", "data-set YAML, or the name of a packaged one, needed"),
}


@dataclass(frozen=True)
class Mode:
    """A mode of the command line.

    Attributes:
        about (str): Purpose, in a few words.
        example (str): An example command.
        runs (str): Function that takes the settings, as 'module:name'; empty for the modes of the command line itself.
            A result other than None is printed.
        options (str): Class of the DS2D2 keys, as 'module:name'; empty without such keys.
        only (tuple[str, ...]): Valid keys of that class; empty takes all.
        ultralytics_sections (tuple[str, ...]): Sections of Ultralytics' settings whose keys pass through.
        page (str): Ultralytics' page about these keys; empty if none pass.
        notes (str): Text under the keys in the help, as 'module:name'; empty without notes.
        ultralytics_keys (str): Ultralytics keys that pass through, as 'module:name', instead of sections.
        required (tuple[str, ...]): Names of `REQUIRED` keys.
    """

    about: str
    example: str
    runs: str = ""
    options: str = ""
    only: tuple[str, ...] = ()
    ultralytics_sections: tuple[str, ...] = ()
    page: str = ""
    notes: str = ""
    ultralytics_keys: str = ""
    required: tuple[str, ...] = ()

    def option_fields(self) -> list[Field[Any]]:
        """Return the declarations of the DS2D2 keys, without loading torch or Ultralytics."""
        if not self.options:
            return []
        kind: type[Options] = load(self.options)
        return [f for f in fields(kind) if not self.only or f.name in self.only]


def load(place: str) -> Any:
    """Import 'module:name' of this package and return the object.

    Args:
        place (str): Module below `ds2d2_yolo` and name in it, such as 'evaluate:val'.

    Returns:
        (Any): The object.
    """
    module, _, name = place.partition(":")
    return getattr(import_module(f"ds2d2_yolo.{module}"), name)


def run_train(**settings: Any) -> None:
    """Distil a student; Ultralytics prints the results."""
    load("bridge.api:distill")(**settings)


def run_check(**settings: Any) -> str:
    """Return the report of a training."""
    from ds2d2_yolo.bridge.api import check
    from ds2d2_yolo.report.text import render

    return render(check(**settings))


def run_amplify(**settings: Any) -> None:
    """Train a teacher's amplifier, or find a stored one; it logs the file and its mAP."""
    load("bridge.training.amplify:amplify")(**settings)


def run_demo(**settings: Any) -> None:
    """Run the demonstration, which prints its table."""
    load("demo.run:run_demo")(**settings)


def run_checks(**settings: Any) -> None:
    """Print versions and machine, as `yolo checks` does. The dispatcher has checked the Ultralytics version before."""
    from ds2d2_yolo.bridge.upstream.hardware import collect_system_info

    if settings:
        raise BadUseError(f"'{next(iter(settings))}': checks takes no settings")
    collect_system_info()


MODES: dict[str, Mode] = {
    "train": Mode(
        "distil a student",
        "ds2d2-yolo train teacher=yolov8x-obb.pt student=yolov8n-obb.yaml data=dota.yaml",
        "cli.modes:run_train", "config.settings:Settings", ultralytics_sections=TRAINING, page="train",
        required=("student", "data"),
    ),
    "amplify": Mode(
        "train only a teacher's high-frequency amplifier",
        "ds2d2-yolo amplify teacher=T.pt data=D.yaml epochs=100 imgsz=1024",
        "cli.modes:run_amplify", "config.settings:Settings",
        ("teacher", "recipe", "wavelet", "teacher_channels", "amplifier_epochs", "safe"), TRAINING, "train",
        required=("data",),
    ),
    "check": Mode(
        "report what a training would do, without training",
        "ds2d2-yolo check teacher=T.pt student=S.yaml data=D.yaml",
        "cli.modes:run_check", "config.settings:Settings", ultralytics_sections=TRAINING, page="train",
        required=("student", "data"),
    ),
    "val": Mode(
        "measure mAP, also by size, crowding and orientation",
        "ds2d2-yolo val model=best.pt data=D.yaml",
        "evaluate:val", "evaluate.options:ValOptions", ultralytics_sections=("Val/Test",), page="val",
    ),
    "predict": Mode(
        "detect objects in images and in scenes of any size",
        "ds2d2-yolo predict model=best.pt source=scene.tif slice=1024 overlap=0.2",
        "predict:predict", "predict.options:PredictOptions",
        ultralytics_sections=("Predict", "Val/Test", "Visualize"), page="predict",
    ),
    "export": Mode(
        "export a model, and compare the file with PyTorch on real images",
        "ds2d2-yolo export model=best.pt format=onnx",
        "deploy:export", "deploy.options:ExportOptions", ultralytics_keys="deploy.options:EXPORT_KEYS",
        notes="deploy.options:EXPORT_NOTES",
    ),
    "benchmark": Mode(
        "measure speed, size, memory and mAP of models and formats on this machine",
        "ds2d2-yolo benchmark model=teacher.pt,best.pt formats=pt,onnx data=D.yaml",
        "deploy:benchmark", "deploy.options:BenchmarkOptions",
    ),
    "explain": Mode(
        "draw what the terms see in a few images: weights, band energies, amplifiers",
        "ds2d2-yolo explain teacher=T.pt student=best.pt data=D.yaml",
        "bridge.inference.explain:explain", "explanation.options:ExplainOptions",
        ultralytics_keys="explanation.options:ULTRALYTICS_KEYS", notes="explanation.options:NOTES",
    ),
    "compare": Mode(
        "train arms over seeds and compare them in pairs; keys of 'train' are valid too",
        "ds2d2-yolo compare teacher=T.pt student=S.yaml data=D.yaml arms=plain,ds2d2 seeds=0,1,2",
        "compare:compare", "compare.options:CompareOptions", ultralytics_sections=TRAINING, page="train",
    ),
    "demo": Mode(
        "demonstrate all steps on the built-in scenes, without network",
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
    "completion": Mode("print the completion script of bash or zsh", "ds2d2-yolo completion bash"),
    "help": Mode("print this text; 'help MODE' lists the keys of a mode", "ds2d2-yolo help train"),
    "version": Mode("print the version", "ds2d2-yolo version"),
}  # fmt: skip

# modes of Ultralytics that this program refuses, with the reason
REFUSED = {
    "tune": (
        "'tune' would start plain trainings without a teacher: compare settings with 'ds2d2-yolo compare' and arms, or "
        "tune the plain student with 'yolo' first"
    ),
    "track": "'track' is a mode of Ultralytics: a student is a plain checkpoint, so type 'yolo track model=best.pt'",
}
