"""Run the comparisons of docs/evidence.md: HIT-UAV with oriented boxes, or drawn scenes, from nothing to the tables.

The teacher is trained first, unless its folder holds one; then every named arm with every named seed, a process each.
The same command goes on after an interruption, and arms and seeds may be added to a folder later.

    python tools/evidence.py hituav/data.yaml --arms ds2d2 --seeds 0      # one arm and seed, and the teacher
    python tools/evidence.py aerial-scenes.yaml --arms plain --seeds 0    # likewise, on the built-in scenes
    python tools/evidence.py hituav/data.yaml --held-out                  # everything, on the held-out images too
    ds2d2-yolo compare results=docs/evidence/hituav/results.csv           # the tables of what was measured, in seconds
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ds2d2_yolo.utils.threads import shorten_openmp_spin

TEACHER, STUDENT = "yolov8s-obb.yaml", "yolov8n-obb.yaml"
ARMS = "teacher,plain,ds2d2,distill_model,explicit,implicit"
TEACHER_SEED = 0
SCENES = "aerial-scenes.yaml"
PLACES = ("device", "workers", "plots")  # which change no weights


@dataclass(frozen=True)
class Protocol:
    """How teacher and students are trained on one kind of data.

    Attributes:
        schedule (dict[str, Any]): Ultralytics training settings of the students.
        teacher_epochs (int): Epochs of the teacher, which has the same schedule otherwise.
    """

    schedule: dict[str, Any]
    teacher_epochs: int


PHOTOGRAPHS = Protocol(
    {
        "imgsz": 320, "fraction": 0.5, "epochs": 20, "batch": 8, "optimizer": "AdamW", "lr0": 0.001, "nbs": 8,
        "warmup_epochs": 1, "close_mosaic": 5, "workers": 1, "device": "cpu", "plots": False,
    },
    teacher_epochs=20,
)  # fmt: skip


def protocol_of(data: str) -> Protocol:
    """Return how to train on a data set: the built-in scenes have the schedule of the small demonstration."""
    if data != SCENES:
        return PHOTOGRAPHS
    from ds2d2_yolo.demo.plan import SMALL

    own = {"imgsz": SMALL.imgsz, "batch": SMALL.batch, "epochs": SMALL.student_epochs, "workers": 1, "device": "cpu"}
    return Protocol({**SMALL.common, **own}, SMALL.teacher_epochs)


def train_teacher(data: str, folder: Path, schedule: dict[str, Any]) -> Path:
    """Train the teacher as plain Ultralytics does, or find it; a training that was cut off goes on.

    Args:
        data (str): Data-set YAML.
        folder (Path): Folder of the training.
        schedule (dict[str, Any]): Ultralytics training settings.

    Returns:
        (Path): Its best checkpoint.

    Raises:
        BadUseError: If the folder holds a teacher that was trained otherwise.
    """
    from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import finish_files
    from ds2d2_yolo.bridge.training.plain_run import resume_plain, train_plain, trained_epochs

    best, last, done = (folder / name for name in ("weights/best.pt", "weights/last.pt", "done"))
    refuse_other(folder, {"data": data, "seed": TEACHER_SEED, "pretrained": False, **schedule})
    if done.exists():
        return best
    behind = trained_epochs(last)
    if behind is None:  # none, or cut off in the middle of a write
        keys = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
        train_plain(TEACHER, {"data": data, "seed": TEACHER_SEED, "pretrained": False, **schedule, **keys})
    elif 0 <= behind < schedule["epochs"]:
        resume_plain(last, schedule["device"])
    else:  # only the end is lacking: Ultralytics would take a finished checkpoint for the start of another training
        finish_files(last.parent)
    done.touch()
    return best


def refuse_other(folder: Path, keys: dict[str, Any]) -> None:
    """Refuse the folder of a teacher's training that had other settings; the data may have moved with their folder.

    Args:
        folder (Path): Folder of the training, there or not.
        keys (dict[str, Any]): Ultralytics training settings that are asked for.

    Raises:
        BadUseError: If it differs.
    """
    import yaml

    from ds2d2_yolo.errors import BadUseError

    file = folder / "args.yaml"
    had = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else keys

    def same(key: str) -> bool:
        a, b = had.get(key), keys[key]
        return Path(a).parts[-2:] == Path(b).parts[-2:] if key == "data" and a else a == b

    if other := [f"{k} was {had.get(k)}, is {keys[k]}" for k in keys if k not in PLACES and not same(k)]:
        raise BadUseError(f"{folder} holds a teacher of other settings ({'; '.join(other)}): name another --folder")


def baseline_of(arms: str, folder: Path) -> str:
    """Return the arm that differences are taken from: plain, or the first of the named ones while there is no plain.

    Args:
        arms (str): As `ds2d2-yolo compare` takes them.
        folder (Path): The comparison's folder, there or not.

    Returns:
        (str): Its name.
    """
    from ds2d2_yolo.compare.arms import read_arms
    from ds2d2_yolo.compare.state import rows_in

    trained = [arm.name for arm in read_arms(arms) if arm.kind != "teacher"]
    there = {*trained, *(row.arm for row in rows_in(folder))}
    return "plain" if "plain" in there or not trained else trained[0]


def held_out(data: str, fraction: float, folder: Path) -> Path:
    """Write a data YAML whose validation split is what `fraction` leaves out of the training split.

    Args:
        data (str): Data-set YAML.
        fraction (float): Share of the training split that runs train on: its first images by name.
        folder (Path): Folder to write into, made here.

    Returns:
        (Path): The YAML.
    """
    import yaml
    from ultralytics.cfg import get_cfg

    from ds2d2_yolo.bridge.data.dataset import load_data
    from ds2d2_yolo.bridge.data.images import list_images

    found = load_data(get_cfg(overrides={"data": data, "task": "obb"}))
    images = list_images(found["train"])
    left = images[max(1, round(len(images) * fraction)) :]
    folder.mkdir(parents=True, exist_ok=True)
    listed, file = folder / "images.txt", folder / "data.yaml"
    listed.write_text("".join(f"{image}\n" for image in left), encoding="utf-8")
    split = {"path": str(folder), "train": str(listed), "val": str(listed), "names": found["names"]}
    file.write_text(yaml.safe_dump(split), encoding="utf-8")
    return file


def measure_held_out(yaml: Path, compared: Path, teacher: Path, schedule: dict[str, Any]) -> Path:
    """Measure the last checkpoint of every finished run on the held-out images; what is measured is not measured again.

    Args:
        yaml (Path): From `held_out`; the rows go into results.csv beside it.
        compared (Path): The comparison's folder.
        teacher (Path): The teacher's checkpoint.
        schedule (dict[str, Any]): Ultralytics training settings of the runs.

    Returns:
        (Path): The raw results.
    """
    from ds2d2_yolo.compare.results import add_results, read_results
    from ds2d2_yolo.compare.state import folder_of, rows_in
    from ds2d2_yolo.compare.summary import TEACHER as TEACHERS_SEED
    from ds2d2_yolo.evaluate import evaluate

    results = yaml.parent / "results.csv"
    there = {(row.arm, row.seed) for row in (read_results(results) if results.is_file() else [])}
    for row in rows_in(compared):
        if row.by != "all" or row.weights == "best" or (row.arm, row.seed) in there:
            continue
        file = teacher if row.seed == TEACHERS_SEED else folder_of(compared, row.arm, row.seed) / "weights/last.pt"
        found = evaluate(file, yaml, **{k: schedule[k] for k in ("imgsz", "batch", "device", "workers")})
        own = [
            replace(row, data=f"{yaml.parent.name}/{yaml.name}", by=x.by, group=x.group, images=x.images,
                    objects=x.objects, map50=round(x.map50, 6), map50_95=round(x.map50_95, 6))
            for x in found.rows
        ]  # fmt: skip
        add_results(results, own)
    return results


def main(arguments: list[str] | None = None) -> None:
    """Run a command; what a user can put right is told in one line.

    Args:
        arguments (list[str] | None): Of the command line, None is this process's.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help=f"data-set YAML of HIT-UAV with oriented boxes, or {SCENES}")
    parser.add_argument("--arms", default=ARMS, help="as ds2d2-yolo compare takes them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="one for each data set; runs/evidence/scenes or .../photographs")
    parser.add_argument(
        "--parallel", type=int, default=1, help="runs at the same time, one CPU thread each; threads of the teacher"
    )
    parser.add_argument("--teacher-epochs", type=int, help="of the teacher's training, instead of the protocol's")
    parser.add_argument("--teacher-from", type=Path, help="checkpoint whose weights the teacher's training begins with")
    parser.add_argument("--teacher-bf16", action="store_true", help="all teachers' forward passes in bfloat16")
    parser.add_argument("--epochs", type=int, help="of teacher and students: another experiment, to try this")
    parser.add_argument("--held-out", action="store_true", help="measure on the images that fraction leaves out too")
    given = parser.parse_args(arguments)
    shorten_openmp_spin()
    os.environ["OMP_NUM_THREADS"] = str(given.parallel)  # before torch is imported: the teacher's rounding follows it

    from ds2d2_yolo.errors import BadUseError

    try:
        run(given, parser)
    except BadUseError as e:
        parser.exit(1, f"error: {e}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted: the same command goes on\n")


def run(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Train what is missing and print the tables.

    Args:
        given (argparse.Namespace): The command's arguments.
        parser (argparse.ArgumentParser): Says what is wrong with them.

    Raises:
        BadUseError: If an arm is unknown, or the folder holds something else.
    """
    from ds2d2_yolo.bridge.upstream.devices import cpu_threads
    from ds2d2_yolo.compare import compare
    from ds2d2_yolo.compare.arms import read_arms
    from ds2d2_yolo.config.resources import resolve_data

    protocol = protocol_of(given.data)
    data = given.data if given.data == SCENES else str(Path(given.data).resolve())
    folder = given.folder or Path("runs/evidence", "scenes" if given.data == SCENES else "photographs")
    folder, schedule = folder.resolve(), {**protocol.schedule}
    teaching = {**schedule, "epochs": given.teacher_epochs or given.epochs or protocol.teacher_epochs}
    if given.teacher_from:
        if not given.teacher_from.is_file():
            parser.error(f"--teacher-from: there is no file {given.teacher_from}")
        teaching["pretrained"] = str(given.teacher_from.resolve())
    schedule["epochs"] = given.epochs or schedule["epochs"]
    if given.held_out and schedule.get("fraction", 1.0) == 1.0:
        parser.error(f"--held-out: nothing is left out of {given.data}")
    baseline = baseline_of(given.arms, folder / "compare")  # a wrong arm is refused before the teacher's training
    if given.teacher_bf16 and any(arm.kind == "ds2d2" for arm in read_arms(given.arms)):
        schedule["teacher_bf16"] = True
    with cpu_threads():  # as many as OMP_NUM_THREADS says
        teacher = train_teacher(resolve_data(data), folder / "teacher", teaching)
    done = compare(
        teacher=str(teacher), student=STUDENT, data=data, arms=given.arms, seeds=given.seeds,
        parallel=given.parallel, threads=1, baseline=baseline, project=str(folder), name="compare", **schedule,
    )  # fmt: skip
    print(done)
    if given.held_out:
        yaml = held_out(data, schedule["fraction"], folder / "heldout")
        print(compare(results=str(measure_held_out(yaml, folder / "compare", teacher, schedule)), baseline=baseline))


if __name__ == "__main__":
    main()
