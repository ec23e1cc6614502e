"""Run the comparisons of docs/evidence.md on HIT-UAV with oriented boxes or on drawn scenes, from training to tables.

The teacher is trained first, unless its folder holds one. Then every arm is trained with every seed, each in its own
process. The same command continues after an interruption, and arms and seeds may be added to a folder later.

    python tools/evidence.py hituav/data.yaml --arms ds2d2 --seeds 0      # one arm and seed, and the teacher
    python tools/evidence.py aerial-scenes.yaml --arms plain --seeds 0    # the same on the built-in scenes
    python tools/evidence.py hituav/data.yaml --held-out                  # all, measured on the held-out images too
    python tools/evidence.py hituav/data.yaml --pretrained weights        # from pretrained weights
    python tools/evidence.py hituav/data.yaml --pretrained weights --half-size    # the teacher sees twice the size
    python tools/evidence.py hituav/data.yaml --unlabelled                # the images without labels beside the others
    ds2d2-yolo compare results=docs/evidence/hituav/results.csv           # tables of the results, in seconds
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from evidence_held_out import held_out, measure_held_out
from evidence_protocols import SCENES, STUDENT, TEACHER, Protocol, protocol_of

from ds2d2_yolo.utils.threads import shorten_openmp_spin

ARMS = Protocol.arms
TEACHER_SEED = 0
NEUTRAL_KEYS = ("device", "workers", "plots")  # they do not change the weights


def run_in_bfloat16(trainer: Any) -> None:
    """Run the forward and backward passes of a training in bfloat16; loss, weights and optimizer stay in float32.

    Ultralytics (8.4.190) has mixed precision for GPUs alone. On a CPU with bfloat16 a step takes about half the time.

    Args:
        trainer (Any): Ultralytics trainer whose training begins.
    """
    import torch

    predict = trainer.model.predict

    def to_float32(output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return output.float()
        if isinstance(output, dict):
            return {k: to_float32(v) for k, v in output.items()}
        return type(output)(to_float32(v) for v in output) if isinstance(output, (list, tuple)) else output

    def autocast_predict(*args: Any, **keywords: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            output = predict(*args, **keywords)
        return to_float32(output)

    trainer.model.predict = autocast_predict


def train_teacher(data: str, folder: Path, schedule: dict[str, Any], model: str = TEACHER, bf16: bool = False) -> Path:
    """Train the teacher with plain Ultralytics, continue an interrupted training, or find a finished one.

    Args:
        data (str): Data-set YAML.
        folder (Path): Folder of the training.
        schedule (dict[str, Any]): Ultralytics training settings.
        model (str): Model YAML.
        bf16 (bool): Train in bfloat16.

    Returns:
        (Path): Its best checkpoint.

    Raises:
        BadUseError: If the folder holds a teacher of another training.
    """
    from ds2d2_yolo.bridge.training.hooks.atomic_checkpoints import finalize_checkpoints
    from ds2d2_yolo.bridge.training.plain_run import resume_plain, train_plain, trained_epochs

    best, last, done = (folder / name for name in ("weights/best.pt", "weights/last.pt", "done"))
    refuse_other_settings(folder, {"data": data, "seed": TEACHER_SEED, "pretrained": False, **schedule})
    if done.exists():
        return best
    epochs, callbacks = trained_epochs(last), {"on_train_start": run_in_bfloat16} if bf16 else None
    if epochs is None:  # no checkpoint, or one whose write was interrupted
        keys = {"project": str(folder.parent), "name": folder.name, "exist_ok": True}
        train_plain(model, {"data": data, "seed": TEACHER_SEED, "pretrained": False, **schedule, **keys}, callbacks)
    elif 0 <= epochs < schedule["epochs"]:
        resume_plain(last, schedule["device"], callbacks)
    else:  # Ultralytics would start another training from a finished checkpoint
        finalize_checkpoints(last.parent)
    done.touch()
    return best


def refuse_other_settings(folder: Path, keys: dict[str, Any]) -> None:
    """Refuse the folder of a teacher's training with other settings; the folder of the data may have moved.

    Args:
        folder (Path): Folder of the training, existing or not.
        keys (dict[str, Any]): Ultralytics training settings of this command.

    Raises:
        BadUseError: If a setting differs.
    """
    import yaml

    from ds2d2_yolo.errors import BadUseError

    file = folder / "args.yaml"
    earlier = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else keys

    def same(key: str) -> bool:
        a, b = earlier.get(key), keys[key]
        return Path(a).parts[-2:] == Path(b).parts[-2:] if key == "data" and a else a == b

    if differences := [
        f"{k} was {earlier.get(k)}, is {keys[k]}" for k in keys if k not in NEUTRAL_KEYS and not same(k)
    ]:
        raise BadUseError(
            f"{folder} holds a teacher of other settings ({'; '.join(differences)}): name another --folder"
        )


def baseline_of(arms: str, folder: Path) -> str:
    """Return the baseline: plain, or the first arm of the command as long as there is no plain.

    Args:
        arms (str): Arms as for `ds2d2-yolo compare`.
        folder (Path): Folder of the comparison, existing or not.

    Returns:
        (str): Name of the baseline.
    """
    from ds2d2_yolo.compare.arms import read_arms
    from ds2d2_yolo.compare.state import read_rows

    trained = [arm.name for arm in read_arms(arms) if arm.kind != "teacher"]
    available = {*trained, *(row.arm for row in read_rows(folder))}
    return "plain" if "plain" in available or not trained else trained[0]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Returns:
        (argparse.ArgumentParser): The parser.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help=f"data-set YAML of HIT-UAV with oriented boxes, or {SCENES}")
    parser.add_argument("--arms", help="arms as for ds2d2-yolo compare")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="by default runs/evidence/ and the protocol's name")
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        help="runs at the same time, one CPU thread each; also the threads of the teacher's training",
    )
    parser.add_argument("--teacher-epochs", type=int, help="epochs of the teacher, instead of those of the protocol")
    parser.add_argument(
        "--teacher-imgsz", type=int, help="image size of the teacher's training; arms take it as teacher_imgsz="
    )
    parser.add_argument("--teacher-from", type=Path, help="checkpoint that the teacher's training starts from")
    parser.add_argument(
        "--pretrained",
        type=Path,
        help="folder with yolo11s-ships.pt and yolov8n-railway.pt, which training starts from",
    )
    parser.add_argument(
        "--half-size", action="store_true", help="students see images of half the teacher's size; with --pretrained"
    )
    parser.add_argument(
        "--unlabelled", action="store_true", help="students see the images that fraction leaves out without labels"
    )
    parser.add_argument("--teacher-trained-in-bf16", action="store_true", help="train the teacher in bfloat16")
    parser.add_argument("--teacher-bf16", action="store_true", help="run the teacher's forward passes in bfloat16")
    parser.add_argument(
        "--epochs", type=int, help="epochs of teacher and students, for a trial: it is another experiment"
    )
    parser.add_argument("--held-out", action="store_true", help="also measure on the images that fraction leaves out")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command; an error that the user can correct is one line.

    Args:
        argv (list[str] | None): Arguments of the command line, None for those of this process.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    shorten_openmp_spin()
    os.environ["OMP_NUM_THREADS"] = str(
        arguments.parallel
    )  # before torch is imported: the rounding of the teacher's training depends on it

    from ds2d2_yolo.errors import BadUseError

    try:
        run(arguments, parser)
    except BadUseError as e:
        parser.exit(1, f"error: {e}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted: the same command goes on\n")


def schedules(
    protocol: Protocol, arguments: argparse.Namespace, parser: argparse.ArgumentParser
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the training settings of a command.

    Args:
        protocol (Protocol): Protocol of the command.
        arguments (argparse.Namespace): Arguments of the command; the parser ends it if they do not fit together.
        parser (argparse.ArgumentParser): Parser that reports errors in them.

    Returns:
        (tuple[dict[str, Any], dict[str, Any]]): Settings of the students and of the teacher.
    """
    schedule = {**protocol.schedule}
    teacher_schedule = {**schedule, **protocol.teacher_schedule}
    if teacher_epochs := arguments.teacher_epochs or arguments.epochs:
        teacher_schedule["epochs"] = teacher_epochs
    if arguments.teacher_imgsz:
        teacher_schedule["imgsz"] = arguments.teacher_imgsz
    if protocol.student_weights:
        schedule["pretrained"] = protocol.student_weights
    if arguments.teacher_from:
        if not arguments.teacher_from.is_file():
            parser.error(f"--teacher-from: there is no file {arguments.teacher_from}")
        teacher_schedule["pretrained"] = str(arguments.teacher_from.resolve())
    schedule["epochs"] = arguments.epochs or schedule["epochs"]
    if arguments.held_out and schedule.get("fraction", 1.0) == 1.0:
        parser.error(f"--held-out: nothing is left out of {arguments.data}")
    if arguments.held_out and arguments.unlabelled:
        parser.error("--held-out: the students of --unlabelled have seen these images")
    return schedule, teacher_schedule


def run(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Train all unfinished runs and print the tables.

    Args:
        arguments (argparse.Namespace): Arguments of the command.
        parser (argparse.ArgumentParser): Parser that reports errors in them.

    Raises:
        BadUseError: If an arm is unknown, or the folder holds something else.
    """
    from ds2d2_yolo.bridge.upstream.devices import cpu_threads
    from ds2d2_yolo.compare import compare
    from ds2d2_yolo.compare.arms import read_arms
    from ds2d2_yolo.config.resources import resolve_data

    protocol = protocol_of(arguments.data, arguments.pretrained, arguments.unlabelled, arguments.half_size)
    schedule, teacher_schedule = schedules(protocol, arguments, parser)
    arms = arguments.arms or protocol.arms
    data = arguments.data if arguments.data == SCENES else str(Path(arguments.data).resolve())
    name = f"{protocol.name}-{arguments.teacher_imgsz}" if arguments.teacher_imgsz else protocol.name
    folder = (arguments.folder or Path("runs/evidence", name)).resolve()
    baseline = baseline_of(arms, folder / "compare")  # it refuses unknown arms before the teacher is trained
    if arguments.teacher_bf16 and any(arm.kind == "ds2d2" for arm in read_arms(arms)):
        schedule["teacher_bf16"] = True
    with cpu_threads():  # OMP_NUM_THREADS
        teacher = train_teacher(
            resolve_data(data),
            folder / "teacher",
            teacher_schedule,
            protocol.teacher,
            arguments.teacher_trained_in_bf16,
        )
    if all(arm.kind == "teacher" for arm in read_arms(arms)):  # nothing to compare it with
        print(f"the teacher is {teacher}")
        return
    comparison = compare(
        teacher=str(teacher), student=STUDENT, data=data, arms=arms, seeds=arguments.seeds,
        parallel=arguments.parallel, threads=1, baseline=baseline, project=str(folder), name="compare",
        **{**schedule, **protocol.compared},
    )  # fmt: skip
    print(comparison)
    if arguments.held_out:
        yaml = held_out(data, schedule["fraction"], folder / "heldout")
        print(compare(results=str(measure_held_out(yaml, folder / "compare", teacher, schedule)), baseline=baseline))


if __name__ == "__main__":
    main()
