"""The command line, in Ultralytics' habits: `ds2d2-yolo MODE key=value ...`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from ds2d2_yolo import __version__
from ds2d2_yolo.bridge.compat import check_ultralytics
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.resources import resource_dir

USAGE = """ds2d2-yolo MODE key=value ...

  train    distil a student:  ds2d2-yolo train teacher=yolov8x-obb.pt student=yolov8n-obb.yaml data=dota.yaml
           go on with a run:  the same command with 'resume'
  check    what a training would do, and stop:  ds2d2-yolo check teacher=T.pt student=S.yaml data=D.yaml
  amplify  train a teacher's high-frequency amplifier on its own:  ds2d2-yolo amplify teacher=T.pt data=D.yaml
  demo     the whole story on the built-in scenes, without network:  ds2d2-yolo demo
  cfg      print the DS2D2 settings with their defaults
  help     this text; 'help train', 'help amplify', 'help check' and 'help demo' for the settings
  version  print the version
"""


DEMO = """
Settings of 'demo':
  size     small     small: minutes on a CPU; full: hours on a GPU
  data               a data YAML with oriented boxes instead of the built-in scenes
  project  runs/demo folder of the run's folder
  name               name of the run's folder, by default the size
  device             one device: cpu, mps or the number of a GPU; by default what Ultralytics chooses
  seed     0         seed of all trainings
  batch              images per batch, by default the size's own
The same command goes on with a demo that was cut off.
"""


# names that must not become numbers; any of them may look like one
TEXT = {"teacher", "student", "data", "name", "project", "recipe", "amplifier"}


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Turn `key=value` arguments into settings, typed as Ultralytics types them.

    Args:
        arguments (Sequence[str]): Arguments after the mode; 'resume' alone means resume=True.

    Returns:
        (dict[str, Any]): Settings.

    Raises:
        BadUseError: If an argument is no key=value, or a key comes twice.
    """
    from ultralytics.cfg import merge_equals_args, smart_value

    settings: dict[str, Any] = {}
    wrong: list[str] = []
    try:
        merged = merge_equals_args(list(arguments))
    except SyntaxError as e:
        raise BadUseError(str(e).splitlines()[0]) from e
    for argument in merged:
        key, equals, text = argument.lstrip("-").partition("=")
        if key in settings:
            wrong.append(f"'{key}' is given twice")
        elif equals and key and text:
            settings[key] = text if key in TEXT else smart_value(text)
        elif argument == "resume":
            settings["resume"] = True
        else:
            wrong.append(f"'{argument}' is no key=value")
    if wrong:
        raise BadUseError("; ".join(wrong))
    return settings


def train(settings: dict[str, Any]) -> None:
    """Distil a student."""
    check_ultralytics()
    from ds2d2_yolo.bridge.api import distill

    distill(**settings)


def check(settings: dict[str, Any]) -> None:
    """Print the report of a training and stop."""
    check_ultralytics()
    from ds2d2_yolo.bridge.api import check as look
    from ds2d2_yolo.report import render

    print(render(look(**settings)))


def amplify(settings: dict[str, Any]) -> None:
    """Train a teacher's high-frequency amplifier, or find the one that is kept."""
    check_ultralytics()
    from ds2d2_yolo.bridge.amplify import amplify as train_amplifier

    train_amplifier(**settings)  # it says itself where the file is and how good


def demo(settings: dict[str, Any]) -> None:
    """Run the demonstration on the built-in scenes."""
    check_ultralytics()
    from ds2d2_yolo.demo import run_demo

    run_demo(**settings)


def show_cfg(settings: dict[str, Any]) -> None:
    """Print the commented settings and the names of the recipes."""
    from ds2d2_yolo.recipes import recipe_names

    print((resource_dir("cfg") / "default.yaml").read_text(encoding="utf-8"), end="")
    print(f"\n# Recipes: {', '.join(recipe_names())}")


def show_help(settings: dict[str, Any]) -> None:
    """Print the usage, or the settings of a training."""
    print(USAGE, end="")
    if "demo" in settings:
        print(DEMO, end="")
    asked = [mode for mode in ("train", "check", "amplify") if mode in settings]
    if asked:
        from dataclasses import fields

        from ds2d2_yolo.settings import Settings

        print(f"\nDS2D2 settings of '{asked[0]}':")
        for f in fields(Settings):
            if asked[0] != "amplify" or f.name in OF_AMPLIFY:
                print(f"  {f.name:19}{f.default!s:10}{f.metadata['help']}")
        passing = (
            "Settings of data, images and optimizer pass" if asked[0] == "amplify" else "Every training setting passes"
        )
        print(f"\n{passing} through to Ultralytics: https://docs.ultralytics.com/modes/train")


def show_version(settings: dict[str, Any]) -> None:
    """Print the version."""
    print(__version__)


OF_AMPLIFY = ("teacher", "recipe", "wavelet", "teacher_channels", "amplifier_epochs")

MODES: dict[str, Callable[[dict[str, Any]], None]] = {
    "train": train,
    "check": check,
    "amplify": amplify,
    "demo": demo,
    "cfg": show_cfg,
    "help": show_help,
    "version": show_version,
}


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments (Sequence[str]): What was typed after the program's name.

    Returns:
        (int): Exit status: 0, 1 (failed) or 2 (bad use).
    """
    mode, rest = (arguments[0].lstrip("-"), list(arguments[1:])) if arguments else ("help", [])
    verbose = "verbose=True" in rest
    try:
        if mode not in MODES:
            near = get_close_matches(mode, MODES, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"the modes are {', '.join(MODES)}"
            raise BadUseError(f"unknown mode '{mode}': {hint}")
        # 'help' takes the name of a mode, and help of a mode may be asked for behind it
        if mode == "help" or {"--help", "-h"} & set(rest):
            show_help(dict.fromkeys([mode, *rest]))
        else:
            MODES[mode](parse(rest))
    except KeyboardInterrupt:
        goes_on = "the same command with 'resume'" if mode == "train" else "the same command"
        print(f"ds2d2-yolo: interrupted; {goes_on} goes on", file=sys.stderr)
        return 130
    except Exception as e:
        if verbose:
            traceback.print_exc()
        print(f"ds2d2-yolo: {_one_line(e)}", file=sys.stderr)
        return e.status if isinstance(e, DS2D2Error) else _status(e)
    return 0


def _one_line(error: Exception) -> str:
    """Return an error as one line; one that is not ours is named by its type."""
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, DS2D2Error) else f"{type(error).__name__}: {first} (verbose=True shows more)"


def _status(error: Exception) -> int:
    """Return 2 for what Ultralytics raises on bad settings, otherwise 1."""
    return 2 if isinstance(error, SyntaxError) else 1


def entrypoint() -> None:
    """Run the command line and leave with its status."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # Ultralytics would pip-install behind the user's back
    sys.exit(main(sys.argv[1:]))
