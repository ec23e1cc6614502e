"""Kill every command at random moments, run it again until it finishes, and look at its files after each kill.

    PYTHONPATH=. python tools/chaos.py                    # 100 kills and more, some 20 minutes on one core
    PYTHONPATH=. python tools/chaos.py only=train,prepare train=12 work=chaos seed=7

A kill is SIGKILL to the whole process group. It makes its own data and untrained models. A command runs in a process
that is forked from this one, which has the modules loaded: a start costs next to nothing, and the kills fall on work
instead of imports. The status is 1 if a file that claims to be whole was not, if more than the running epoch had to be
repeated, if something was left over, or if an interrupted run did not end as an uninterrupted one.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ds2d2_yolo.utils.threads import shorten_openmp_spin

MODULES = (
    "cli",
    "bridge.training.amplify",
    "bridge.api",
    "bridge.inference.export",
    "compare.run",
    "deploy",
    "evaluate",
    "prepare.run",
)
KILLS = {"train": 45, "amplify": 16, "val": 8, "prepare": 14, "export": 8, "compare": 14}
PICTURES = {"val.png", "compare.png"}  # of the package itself
EPOCHS = 5
SIZE = 64


@dataclass
class Count:
    """What happened to a command.

    Attributes:
        kills (int): Times that it was killed.
        runs (int): Times that it was started.
        finished (int): Times that it came to its end after kills.
        checked (int): Files that were looked at.
        repeated (int): Epochs that were run twice.
        lost (list[str]): What was wrong.
    """

    kills: int = 0
    runs: int = 0
    finished: int = 0
    checked: int = 0
    repeated: int = 0
    lost: list[str] = field(default_factory=list)


@dataclass
class Target:
    """A command that is killed.

    Attributes:
        name (str): Its row in the table.
        words (list[str]): Its arguments.
        folders (list[Path]): What it writes; emptied before a new beginning.
        busy (list[Path]): Folders in which a name with a dot at the start means that something is being written.
        state (Callable): Returns what two finished runs must have in common.
        resumes (bool): Whether a further start takes the word 'resume'.
        initial_file (Path | None): A file that lies in the first folder from the beginning.
    """

    name: str
    words: list[str]
    folders: list[Path]
    busy: list[Path]
    state: Callable[[], Any]
    resumes: bool = False
    initial_file: Path | None = None

    def begin(self) -> None:
        """Empty the folders."""
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        if self.initial_file is not None:
            self.folders[0].mkdir(parents=True)
            shutil.copyfile(self.initial_file, self.folders[0] / self.initial_file.name)


# The files -------------------------------------------------------------------------------------------------------


def fault(file: Path) -> str | None:
    """Return what is wrong with a file, None if it is whole or of a kind that is not known."""
    try:
        _read(file)
    except Exception as e:  # whatever a reader raises on a broken file
        return f"{file}: {type(e).__name__}: {(str(e).splitlines() or [''])[0]}"
    return None


def _read(file: Path) -> None:
    """Read a file to its end; raise if it is not whole."""
    if file.suffix == ".pt":
        from ultralytics.utils.patches import torch_load

        checkpoint = torch_load(file, map_location="cpu")
        assert checkpoint.get("model") is not None or checkpoint.get("ema") is not None, "no model in it"
    elif file.suffix == ".safetensors":
        from safetensors.torch import load_file

        assert load_file(file), "no tensor in it"
    elif file.suffix == ".csv":
        text = file.read_text(encoding="utf-8")
        rows = list(csv.reader(io.StringIO(text)))
        assert text.endswith("\n"), "the last row has no end"
        assert len({len(row) for row in rows}) == 1, "a row of another length"
    elif file.suffix == ".json":
        json.loads(file.read_text(encoding="utf-8"))
    elif file.suffix == ".jsonl":  # a journal is appended to: a line without an end does not count
        [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    elif file.suffix in {".png", ".jpg"}:
        from PIL import Image

        with Image.open(file) as image:
            image.load()
    elif file.suffix == ".onnx":
        import onnx

        onnx.checker.check_model(onnx.load(file))
    elif file.suffix in {".md", ".txt", ".yaml"} and "labels" not in file.parts:
        assert file.read_text(encoding="utf-8").endswith("\n"), "the last line has no end"


def complete_files(folders: list[Path]) -> Iterator[Path]:
    """Yield the files that claim to be whole.

    Ultralytics writes args.yaml, its label caches and its pictures in place; nothing depends on them, a cache that
    cannot be read is made anew.
    """
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
            drawn = file.suffix in {".png", ".jpg"} and file.name not in PICTURES and "images" not in file.parts
            from_ultralytics = drawn or file.suffix == ".cache" or file.name in {"args.yaml", "log.txt"}
            if file.is_file() and not hidden and not from_ultralytics:
                yield file


def left_over(folders: list[Path]) -> list[str]:
    """Return what a finished command must not leave."""
    hidden = [f for folder in folders for f in folder.rglob(".*") if not f.name.endswith(".lock")]
    return [str(f) for f in hidden] + [str(f) for folder in folders for f in folder.rglob("resume-*.safetensors")]


def weights_of(file: Path) -> str:
    """Return the hash of a checkpoint's weights."""
    from ultralytics.utils.patches import torch_load

    digest = hashlib.sha256()
    for name, tensor in torch_load(file, map_location="cpu")["model"].state_dict().items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def files_of(folder: Path) -> dict[str, str]:
    """Return the hashes of a folder's images, labels and lists."""
    kinds = {".png", ".jpg", ".txt", ".csv", ".yaml"}
    files = [f for f in sorted(folder.rglob("*")) if f.suffix in kinds]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def epochs_in(run: Path) -> tuple[int, int]:
    """Return a run's rows in results.csv and the epochs that last.pt stands for; -1 where that is finished."""
    from ultralytics.utils.patches import torch_load

    rows = run / "results.csv"
    written = len(rows.read_text(encoding="utf-8").splitlines()) - 1 if rows.is_file() else 0
    last = run / "weights" / "last.pt"
    if not last.is_file():
        return written, 0
    epoch = torch_load(last, map_location="cpu")["epoch"]
    return written, -1 if epoch < 0 else epoch + 1


def worse_best(run: Path) -> str | None:
    """Return why best.pt is worse than results.csv says, None if it is not."""
    from ultralytics.utils.patches import torch_load

    best, (_, saved) = run / "weights" / "best.pt", epochs_in(run)
    if saved == 0:
        return None
    with (run / "results.csv").open(encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    highest_map = max(float(r["metrics/mAP50-95(B)"]) for r in rows if saved < 0 or int(r["epoch"]) <= saved)
    best_map = float(torch_load(best, map_location="cpu")["train_metrics"]["metrics/mAP50-95(B)"])
    return None if best_map >= highest_map - 1e-5 else f"best.pt has {best_map}, results.csv {highest_map}"


# The kills -------------------------------------------------------------------------------------------------------


def start(words: list[str], log: Path, run: Callable[[list[str]], int] | None = None) -> int:
    """Run a command in a process group of its own and return its number.

    This process itself must not train: autograd's threads do not survive a fork.
    """
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.setsid()
        with log.open("wb") as f:
            os.dup2(f.fileno(), 1)
            os.dup2(f.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        status = (run or command)(words)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def wait(process: int, until: Callable[[], bool]) -> int | None:
    """Return a process's status once it has ended, None once the moment to kill it has come."""
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if until():
            return None
        time.sleep(0.002)


def kill(process: int) -> str | None:
    """Kill a process group; return what is wrong if a process that it had started lives on."""
    import psutil

    below = psutil.Process(process).children(recursive=True)
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    alive = psutil.wait_procs(below, timeout=30)[1]
    return f"processes {[p.pid for p in alive]} outlived their parent" if alive else None


def moment(target: Target, seconds: float, rng: random.Random) -> Callable[[], bool]:
    """Return a question that becomes true when it is time to kill.

    Half of the moments are any; the others lie in a write, told by a hidden name that appears, or, for a training,
    behind the last epoch.
    """
    began, kind = time.monotonic(), rng.random()
    after, nth, pause = rng.uniform(0, seconds), rng.randint(1, 4), rng.choice([0.0, rng.uniform(0, 0.1)])
    if kind < 0.5:
        return lambda: time.monotonic() - began > after
    if kind > 0.8 and target.resumes:
        rows = target.folders[0] / "results.csv"
        nth, pause = 1, rng.uniform(0, 2.0)
        busy = lambda: _lines(rows) > EPOCHS  # noqa: E731
    else:
        busy = lambda: any(n[0] == "." and n[-5:] != ".lock" for d in target.busy for n in _names(d))  # noqa: E731
    seen: list[float] = []
    state = {"busy": False}

    def due() -> bool:
        now = busy()
        if now and not state["busy"]:
            seen.append(time.monotonic())
        state["busy"] = now
        return len(seen) >= nth and time.monotonic() - seen[nth - 1] >= pause

    return due


def _names(folder: Path) -> list[str]:
    """Return the names in a folder, none if it is not there."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _lines(file: Path) -> int:
    """Return the lines of a file, 0 if it is not there."""
    try:
        return file.read_bytes().count(b"\n")
    except OSError:
        return 0


def look(target: Target, count: Count) -> None:
    """Look at all files of a command that was killed or has ended."""
    for file in complete_files(target.folders):
        count.checked += 1
        if wrong := fault(file):
            count.lost.append(wrong)
    if target.name == "train":
        run = target.folders[0]
        if wrong := worse_best(run):
            count.lost.append(wrong)


def go_through(target: Target, kills: int, seconds: float, expected: Any, rng: random.Random, work: Path) -> Count:
    """Kill a command so many times, each time going on with it, and begin anew whenever it is finished."""
    count, log = Count(), work / f"{target.name}.log"
    while count.kills < kills:
        target.begin()
        words, before = target.words, 0
        while True:
            count.runs += 1
            process = start(words, log)
            due = moment(target, seconds, rng) if count.kills < kills else lambda: False
            status = wait(process, due)
            log_text = log.read_text(encoding="utf-8", errors="replace")
            if status == 2 and "start the same command again without 'resume'" in log_text:
                words = target.words
                continue
            if status is not None:
                if status != 0 and not (status == 2 and "is finished, nothing to resume" in log_text):
                    count.lost.append(f"status {status}: {log_text.strip().splitlines()[-1:]}")
                break
            count.kills += 1
            if wrong := kill(process):
                count.lost.append(wrong)
            look(target, count)
            if target.name == "train":
                written, saved = epochs_in(target.folders[0])
                if saved >= 0:
                    count.repeated += written - saved
                    if not (0 <= written - saved <= 1 and saved >= before):
                        count.lost.append(f"{written} rows, {saved} epochs saved, {before} before")
                    before = saved
            words = [*target.words, "resume"] if target.resumes else target.words
        count.finished += 1
        look(target, count)
        count.lost += [f"left over: {f}" for f in left_over(target.folders)]
        try:
            if (state := target.state()) != expected:
                count.lost.append(f"{target.name} ended otherwise than without kills: {state} instead of {expected}")
        except (OSError, StopIteration, ValueError) as e:
            count.lost.append(f"{target.name} has no result: {e}")
        if count.lost:
            shutil.copytree(work, work.with_name(f"{work.name}-{target.name}-{count.kills}"), dirs_exist_ok=True)
            for text in count.lost:
                print(f"  {text}", flush=True)
            break
    return count


def command(words: list[str]) -> int:
    """Run a command of the package."""
    from ds2d2_yolo.cli import main

    return main(words)


# What is killed --------------------------------------------------------------------------------------------------


def write_data(root: Path, images: int = 8) -> Path:
    """Write rectangles on noise in YOLO's layout, and the same as DOTA is published, beside each other."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for folder in (f"images/{split}", f"labels/{split}", f"dota/{split}/images", f"dota/{split}/labelTxt"):
            (root / folder).mkdir(parents=True)
        for i in range(images):
            image, rows, texts = rng.integers(0, 60, (2 * SIZE, 2 * SIZE, 3), dtype=np.uint8), [], []
            for _ in range(3):
                kind = int(rng.integers(0, 2))
                place, side = rng.uniform(30, 2 * SIZE - 30, 2), rng.uniform(20, 40, 2)
                corners = cv2.boxPoints((tuple(place), tuple(side), float(rng.uniform(0, 90))))
                corners = corners.clip(0, 2 * SIZE - 1)
                cv2.fillPoly(image, [corners.astype(np.int32)], (80, 240, 80) if kind else (80, 80, 240))
                rows.append(f"{kind} " + " ".join(f"{v:.6f}" for v in (corners / (2 * SIZE)).ravel()))
                texts.append(" ".join(f"{v:.1f}" for v in corners.ravel()) + (" ship 0" if kind else " plane 0"))
            cv2.imwrite(str(root / f"images/{split}/{i}.png"), image)
            (root / f"labels/{split}/{i}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
            cv2.imwrite(str(root / f"dota/{split}/images/P{i:04}.png"), np.tile(image, (4, 4, 1)))
            text = "imagesource:none\ngsd:1\n" + "\n".join(texts) + "\n"
            (root / f"dota/{split}/labelTxt/P{i:04}.txt").write_text(text, encoding="utf-8")
    yaml = root / "data.yaml"
    names = "names: {0: plane, 1: ship}\n"
    yaml.write_text(f"path: {root.as_posix()}\ntrain: images/train\nval: images/val\n{names}", encoding="utf-8")
    return yaml


def write_model(file: Path, seed: int) -> Path:
    """Write an untrained checkpoint."""
    import torch
    from ultralytics.nn.tasks import OBBModel

    torch.manual_seed(seed)
    model = OBBModel("yolov8n-obb.yaml", nc=2, verbose=False)
    model.names, model.task = {0: "plane", 1: "ship"}, "obb"
    torch.save({"model": model, "train_args": {"task": "obb", "imgsz": SIZE}}, file)
    return file


def learn(file: Path, data: Path, epochs: int) -> None:
    """Train a checkpoint a little, so that the runs have a mAP to lose."""

    def train(_: list[str]) -> int:
        from ultralytics import YOLO

        keys = {"imgsz": SIZE, "batch": 8, "device": "cpu", "optimizer": "AdamW", "lr0": 0.005, "mosaic": 0.0}
        place = {"save_dir": str(file.with_suffix("")), "exist_ok": True, "plots": False, "val": False}
        YOLO(str(file)).train(data=str(data), epochs=epochs, warmup_epochs=1, **keys, **place)
        return 0

    if wait(start([], file.with_suffix(".log"), train), lambda: False):
        sys.exit(f"chaos: the teaching failed, see {file.with_suffix('.log')}")
    shutil.copyfile(file.with_suffix("") / "weights" / "last.pt", file)


def targets(work: Path, epochs_taught: int) -> list[Target]:
    """Make data and models, and return the commands."""
    from ds2d2_yolo.bridge.models.amplifier_store import amplifier_folder

    data = write_data(work / "data")
    model = write_model(work / "student.pt", 1)
    if epochs_taught:
        learn(model, data, epochs_taught)
    teacher = Path(shutil.copyfile(model, work / "teacher.pt"))
    amplifier_dir, runs, out = amplifier_folder(), work / "runs", work / "prepared"
    shared = [f"data={data}", f"imgsz={SIZE}", "batch=4", "device=cpu"]
    pair = [
        f"teacher={teacher}",
        *shared,
        f"epochs={EPOCHS}",
        "nbs=8",
        "close_mosaic=2",
        "lr0=0.002",
        "optimizer=AdamW",
    ]
    runs.mkdir()
    folder = runs / "run"

    def amplifier() -> str:
        from safetensors.torch import load_file

        file = next(amplifier_dir.glob("*.safetensors"))
        return hashlib.sha256(b"".join(t.numpy().tobytes() for _, t in sorted(load_file(file).items()))).hexdigest()

    def trained() -> list[str]:
        return [weights_of(folder / "weights" / f"{name}.pt") for name in ("last", "best")]

    def validated() -> list[str]:
        return [(runs / "val" / name).read_text(encoding="utf-8") for name in ("val.csv",)]

    def exported() -> bool:
        parity = json.loads((work / "exported" / "student.onnx.parity.json").read_text(encoding="utf-8"))
        return not parity["wrong"]

    def compared() -> list[tuple[str, str, str]]:
        with (runs / "compare" / "results.csv").open(encoding="utf-8") as f:
            return sorted((r["arm"], r["seed"], r["weights"]) for r in csv.DictReader(f) if r["by"] == "all")

    place = [f"project={runs}", "exist_ok=True"]
    return [
        Target("prepare", ["data", "prepare", "dota", f"source={work / 'data' / 'dota'}", f"out={out}", "crop_size=128",
                           "gap=32", "rates=[0.5,1.0]"], [out], [out, out / ".prepare-part"], lambda: files_of(out)),
        Target("amplify", ["amplify", *[w for w in pair if not w.startswith("epochs=")], "amplifier_epochs=4"],
               [amplifier_dir], [amplifier_dir], amplifier),
        Target("train", ["train", *pair, f"student={model}", *place, "name=run", "plots=True", "amplifier_epochs=4"],
               [folder], [folder / "weights", folder], trained, resumes=True),
        Target("val", ["val", f"model={model}", *shared, *place, "name=val"], [runs / "val"], [runs / "val"],
               validated),
        Target("export", ["export", f"model={work / 'exported' / 'student.pt'}", "format=onnx", *shared[:2]],
               [work / "exported"], [work / "exported"], exported, initial_file=model),
        Target("compare", ["compare", *[w for w in pair if not w.startswith("epochs=")], "epochs=2",
                           f"student={model}", f"project={runs}", "name=compare", "arms=plain,ds2d2", "seeds=0",
                           "plots=False", "amplifier_epochs=4"],
               [runs / "compare"], [runs / "compare"], compared),
    ]  # fmt: skip


def main(arguments: list[str]) -> int:
    """Kill, look, print the table."""
    options = dict(a.split("=", 1) for a in arguments)
    if unknown := options.keys() - {*KILLS, "work", "seed", "only", "teach"}:
        sys.exit(f"chaos: unknown {', '.join(unknown)}; the keys are {', '.join(KILLS)}, only, teach, work, seed")
    work = Path(options.get("work") or tempfile.mkdtemp(prefix="ds2d2-chaos-")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    if any(work.iterdir()):
        sys.exit(f"chaos: {work} is not empty")
    os.environ |= {
        "YOLO_CONFIG_DIR": str(work / "config"), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false",
        "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled",
    }  # fmt: skip
    shorten_openmp_spin()
    (work / "config").mkdir()
    seed, only = int(options.get("seed", 0)), options.get("only", ",".join(KILLS)).split(",")
    for module in MODULES:
        import_module(f"ds2d2_yolo.{module}")
    counts: dict[str, Count] = {}
    needed = {*only, *(["amplify"] if {"train", "compare"} & {*only} else [])}  # those take the kept amplifier
    for target in [t for t in targets(work, int(options.get("teach", 150))) if t.name in needed]:
        began = time.monotonic()
        log = work / f"{target.name}.log"
        target.begin()
        if wait(start(target.words, log), lambda: False):
            sys.exit(f"chaos: {target.name} fails without a kill, see {log}")
        seconds, expected = time.monotonic() - began, target.state()
        if target.name not in only:
            continue
        print(f"{target.name}: {seconds:.0f} s without a kill", flush=True)
        rng = random.Random(f"{seed} {target.name}")
        kills = int(options.get(target.name, KILLS[target.name]))
        counts[target.name] = go_through(target, kills, seconds, expected, rng, work)
        print(row_of(target.name, counts[target.name], time.monotonic() - began), flush=True)
    total = Count(
        *(sum(getattr(c, k) for c in counts.values()) for k in ("kills", "runs", "finished", "checked", "repeated"))
    )
    lost = sum(len(c.lost) for c in counts.values())
    print("\n" + HEAD + "\n".join(row_of(name, c) for name, c in counts.items()))
    print(f"{row_of('all', total)[: -len(' 0 |')]} {lost} |")
    return 1 if lost else 0


HEAD = (
    "| command | kills | starts | finished | files looked at | epochs repeated | lost or wrong |\n"
    + "| --- " * 7
    + "|\n"
)


def row_of(name: str, count: Count, seconds: float | None = None) -> str:
    """Return a command's row of the table."""
    cells = [name, count.kills, count.runs, count.finished, count.checked, count.repeated, len(count.lost)]
    return f"| {' | '.join(map(str, cells))} |" + (f"  {seconds:.0f} s" if seconds is not None else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
