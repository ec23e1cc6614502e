"""What a comparison will run: its keys checked and parted, its arms over seeds as jobs, and how many at a time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ds2d2_yolo import __version__
from ds2d2_yolo.compare.arms import Arm, read_arms, settings_of
from ds2d2_yolo.compare.child import read_result
from ds2d2_yolo.compare.options import CompareOptions
from ds2d2_yolo.compare.schedule import Job
from ds2d2_yolo.compare.state import CompareState, folder_of, rows_in
from ds2d2_yolo.config.recipes import resolve_settings
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError

PLACES = {"device", "workers", "cache", "plots", "verbose", "save_period", "profile"}  # results do not depend on them
NOT_HERE = {
    "model": "it is student= here",
    "mode": "it is the mode's own word",
    "task": "it is the student's own",
    "seed": "name seeds=, such as seeds=0,1,2",
    "distill_model": "Ultralytics' own distillation is an arm here: arms=plain,distill_model",
    "save_dir": "the folder is project/name",
    "exist_ok": "the folder is project/name, and the same command goes on there",
    "cfg": "give its settings to compare themselves",
    "time": "it gives arms different numbers of epochs: use epochs=",
    "save": "a run that is not saved cannot go on",
    "explicit": "the streams are what arms differ in: name the arms explicit and implicit",
    "implicit": "the streams are what arms differ in: name the arms explicit and implicit",
}
AMPLIFIER_KEYS = ("wavelet", "teacher_channels", "amplifier_epochs")
ROOM = 0.8  # share of the free memory that is given to runs
SPARE = 2.0  # the estimate of a step leaves out what lives for a moment only
PROCESS = 1e9  # bytes of a process before it trains


@dataclass(frozen=True)
class Plan:
    """A comparison whose keys are checked; nothing is loaded yet.

    Attributes:
        options (CompareOptions): Its options.
        arms (tuple[Arm, ...]): Its arms.
        settings (dict[str, dict[str, Any]]): DS2D2 settings, or `dis`, that each arm trains with.
        keys (dict[str, Any]): Ultralytics' training settings, the same for all arms.
    """

    options: CompareOptions
    arms: tuple[Arm, ...]
    settings: dict[str, dict[str, Any]]
    keys: dict[str, Any]

    @classmethod
    def of(cls, options: CompareOptions, rest: Mapping[str, Any]) -> Plan:
        """Return the plan of a command.

        Args:
            options (CompareOptions): Its options.
            rest (Mapping[str, Any]): Its other keys: DS2D2 settings and Ultralytics training settings.

        Returns:
            (Plan): Checked in itself.

        Raises:
            BadUseError: If arms, baseline and keys do not go together.
        """
        wrong = [f"{k}= cannot be given: {said}" for k, said in NOT_HERE.items() if k in rest]
        if wrong:
            raise BadUseError("; ".join(wrong))
        shared, keys = Settings.split(rest)
        batch = keys.get("batch", 16)
        if not isinstance(batch, int) or batch < 1:
            raise BadUseError(f"batch={batch} lets every arm find its own: give one number for all")
        if not isinstance(keys.get("imgsz", 640), int):
            raise BadUseError(f"imgsz={keys['imgsz']} must be one whole number of pixels, such as imgsz=640")
        arms = read_arms(options.arms)
        names = [arm.name for arm in arms]
        there = {*names, *(row.arm for row in rows_in(options.folder))} - {"teacher"}
        if options.baseline not in there:
            said = f"baseline={options.baseline} is none of the arms that are trained: {', '.join(sorted(there))}"
            raise BadUseError(f"{said}; name it in arms= too, or one of these as baseline=")
        settings = {arm.name: settings_of(arm, shared) or dict(arm.settings) for arm in arms}
        if shared and not any(arm.kind == "ds2d2" for arm in arms):
            raise BadUseError(f"{', '.join(f'{k}=' for k in shared)}: no arm takes DS2D2 settings")
        whole = [arm.name for arm in arms if arm.kind in ("teacher", "distill_model")]
        taught = {arm.name: resolve_settings(settings[arm.name]) for arm in arms if arm.kind == "ds2d2"}
        for name, own in taught.items():
            if own.safe and not options.safe:  # its runs load their students before they read the recipe
                said = f"arm {name}: safe=True of the recipe {own.recipe} holds for the whole comparison"
                raise BadUseError(f"{said}: give it to the command too")
        if whole and any(own.teacher_channels is not None for own in taught.values()):
            said = f"teacher_channels= does not hold for {', '.join(whole)}: the teacher would get all channels there"
            raise BadUseError(f"{said}; name other arms, such as arms=plain,ds2d2")
        _check_amplifiers(arms, settings)
        return cls(options, arms, settings, {"plots": False, **keys})

    @property
    def runs(self) -> list[tuple[Arm, int]]:
        """(list[tuple[Arm, int]]): Arm and seed of every run, interleaved: all arms with the first seed, and so on."""
        teacher = [(arm, -1) for arm in self.arms if arm.kind == "teacher"]
        trained = [arm for arm in self.arms if arm.kind != "teacher"]
        return [*teacher, *((arm, seed) for seed in self.options.all_seeds for arm in trained)]

    def fingerprint(self, subjects: Mapping[str, str]) -> dict[str, Any]:
        """Return all that the results of every arm depend on, as JSON keeps it.

        Args:
            subjects (Mapping[str, str]): Fields of `bridge.arms.Subjects`.

        Returns:
            (dict[str, Any]): Device and places are left out, so that a comparison can go on elsewhere.
        """
        hashes = {k.removesuffix("_hash"): v for k, v in subjects.items() if k.endswith("_hash")}
        settings = {k: v for k, v in self.keys.items() if k not in PLACES}
        return {**hashes, "settings": settings, "versions": versions()}


def _check_amplifiers(arms: Sequence[Arm], settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse arms that would share one kept amplifier although they ask for different ones."""
    epochs: dict[tuple[Any, ...], dict[int | None, str]] = {}
    for arm in arms:
        own = resolve_settings(settings[arm.name]) if arm.kind == "ds2d2" else None
        if own is None or "imhi" not in own.active or own.amplifier:
            continue
        origin = own.wavelet, tuple(own.teacher_channels or ())
        epochs.setdefault(origin, {})[own.amplifier_epochs] = arm.name
    for found in epochs.values():
        if len(found) > 1:
            said = f"the arms {', '.join(found.values())} differ in amplifier_epochs="
            raise BadUseError(
                f"{said}, and the amplifier of more epochs would serve them all: train each with ds2d2-yolo amplify, "
                "copy its file, and name it as that arm's amplifier="
            )


def jobs_of(
    plan: Plan, state: CompareState, subjects: Mapping[str, str], parallel: int, threads: int | None,
    explicit_alone: Collection[str] = (),
) -> list[Job]:  # fmt: skip
    """Return a job for each run that is not finished, behind a job for each amplifier that they need.

    Args:
        plan (Plan): The comparison.
        state (CompareState): What is finished.
        subjects (Mapping[str, str]): Fields of `bridge.arms.Subjects`.
        parallel (int): Runs at the same time.
        threads (int | None): CPU threads of a run.
        explicit_alone (Collection[str]): Arms whose runs switch the implicit stream off by themselves: teacher and data
            share no class, and no amplifier can be trained.

    Returns:
        (list[Job]): In their order.
    """
    runs: list[Job] = []
    amplifiers: dict[str, Job] = {}
    finished = {(row.arm, row.seed) for row in state.rows()}
    base = {"subjects": dict(subjects), "threads": threads, "student": plan.options.student}
    columns = {**shared_columns(plan, subjects), "parallel": parallel}
    for arm, seed in plan.runs:
        if (arm.name, seed) in finished:
            continue
        settings = plan.settings[arm.name]
        row = {**columns, "arm": arm.name, "seed": seed, "settings": json.dumps(settings, sort_keys=True)}
        row["settings_hash"] = state.hash_of(arm.name)
        alone = arm.name in explicit_alone
        amplifier = None if alone else _amplifier_of(arm, settings, base, plan.keys, state.folder)
        task = {**base, "kind": arm.kind, "settings": settings, "keys": {**plan.keys, "seed": max(seed, 0)}, "row": row}
        task["amplifier"] = str(amplifier.folder) if amplifier else ""
        needs: tuple[str, ...] = ()
        if amplifier is not None and not _kept(amplifier):
            amplifiers.setdefault(amplifier.name, amplifier)
            needs = (amplifier.name,)
        name = arm.name if seed < 0 else f"{arm.name}, seed {seed}"
        runs.append(Job(name, folder_of(state.folder, arm.name, seed), task, needs))
    return [*amplifiers.values(), *runs]


def _amplifier_of(
    arm: Arm, settings: Mapping[str, Any], base: Mapping[str, Any], keys: Mapping[str, Any], folder: Path
) -> Job | None:
    """Return the job that trains an arm's amplifier; None where it needs none, or one is named."""
    if arm.kind != "ds2d2":
        return None
    resolved = resolve_settings(settings)
    if "imhi" not in resolved.active or resolved.amplifier:
        return None
    own = {k: v for k in AMPLIFIER_KEYS if (v := getattr(resolved, k)) is not None}
    name = "amplifier " + " ".join(f"{k}={v}" for k, v in own.items())
    place = "-".join("".join(c for c in str(v) if c.isalnum()) for v in own.values())
    return Job(name, folder / "amplifiers" / place, {**base, "kind": "amplifier", "settings": own, "keys": dict(keys)})


def _kept(amplifier: Job) -> bool:
    """Return whether an amplifier was obtained in an earlier session and is still there."""
    return any(Path(found["file"]).is_file() for found in read_result(amplifier.folder))


def shared_columns(plan: Plan, subjects: Mapping[str, str]) -> dict[str, Any]:
    """Return the columns of the raw results that are the same for all runs."""
    o = plan.options
    return {
        "data": _short(str(o.data)),
        "teacher": _short(str(o.teacher)),
        "student": _short(str(o.student)),
        "imgsz": plan.keys.get("imgsz", 640),
        "epochs": plan.keys.get("epochs", 100),
        "versions": "; ".join(f"{k} {v}" for k, v in versions().items()),
        "revision": revision(),
        **{k: subjects[k] for k in ("data_hash", "teacher_hash", "student_hash")},
    }


def room(devices: Sequence[str], cores: int, threads: int, memory: Mapping[str, int], step: int | None) -> list[str]:
    """Return the devices of the runs that go at the same time where the command does not say how many.

    Each run is given twice the estimate of its training step and 1 GB, and all together 80 % of the free memory. On a
    CPU there are as many as its cores have room for with `threads` each; on GPUs at most one for every two cores. There
    is always one, on several GPUs one each; without an estimate it stays at that, but on a CPU.

    Args:
        devices (Sequence[str]): 'cpu', 'mps', or numbers of GPUs.
        cores (int): CPU cores.
        threads (int): CPU threads of a run.
        memory (Mapping[str, int]): Free bytes of each device.
        step (int | None): Bytes of the hungriest training step, estimated.

    Returns:
        (list[str]): A device for each run, the devices in turn.

    Examples:
        >>> room(["cpu"], 8, 2, {"cpu": 64 * 10**9}, 10**9)
        ['cpu', 'cpu', 'cpu', 'cpu']
    """
    gpus = devices[0].isdigit()
    if devices[0] == "mps":
        return list(devices)
    if step is None:
        return list(devices) * (1 if gpus else max(1, cores // threads))
    fit = {d: max(1, int(ROOM * memory[d] / (SPARE * step + PROCESS))) for d in devices}
    most = max(len(devices), cores // 2 if gpus else cores // threads, 1)
    turns = [d for turn in range(max(fit.values())) for d in devices if turn < fit[d]]
    return turns[:most]


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {
        "ds2d2-yolo": __version__,
        "ultralytics": version("ultralytics"),
        "torch": version("torch"),
    }


def revision() -> str:
    """Return the git revision of this package's source, with '-dirty' behind it where files differ; '' elsewhere."""
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True)
        said = subprocess.run([*git, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"],
                              check=True, capture_output=True, text=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.stdout.strip()


def _short(path: str) -> str:
    """Return a path without the folders of one machine: as it is if it is relative, else its last three parts."""
    return path if not Path(path).is_absolute() else "/".join(Path(path).parts[-3:])


def arms_as_kept(plan: Plan) -> dict[str, Any]:
    """Return for each arm what its results depend on besides the fingerprint, defaults and recipe's values included."""
    kept = {}
    for arm in plan.arms:
        settings = plan.settings[arm.name]
        kept[arm.name] = {"kind": arm.kind, "settings": _resolved(settings) if arm.kind == "ds2d2" else settings}
    return kept


def default_settings() -> dict[str, Any]:
    """Return the settings of an arm that has none of its own."""
    return _resolved({})


def _resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of an arm, those left out of its identity aside."""
    return {k: v for k, v in resolve_settings(settings).as_dict().items() if k not in {"teacher", "recipe"}}
