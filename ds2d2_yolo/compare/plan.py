"""The plan of a comparison: its keys checked and split, and a job for each run."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ds2d2_yolo.compare.arms import Arm, arm_settings, read_arms
from ds2d2_yolo.compare.needed_jobs import is_stored, needed_job
from ds2d2_yolo.compare.options import CompareOptions
from ds2d2_yolo.compare.schedule import Job
from ds2d2_yolo.compare.state import CompareState, read_rows, run_folder
from ds2d2_yolo.compare.unlabelled import (
    KEYS,
    PSEUDO_LABEL_KEYS,
    PSEUDO_LABELS,
    labelled_batch,
    pseudo_label_settings,
    takes_unlabelled,
)
from ds2d2_yolo.config.image_sizes import size_ratio
from ds2d2_yolo.config.recipes import resolve_settings
from ds2d2_yolo.config.rivals import complete_settings
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.environment import package_versions, source_revision

NEUTRAL_KEYS = {"device", "workers", "cache", "plots", "verbose", "save_period", "profile"}  # they change no result
REFUSED_KEYS = {
    "model": "it is student= here",
    "mode": "the mode sets it",
    "task": "the student sets it",
    "seed": "name seeds=, such as seeds=0,1,2",
    "distill_model": "Ultralytics' own distillation is an arm here: arms=plain,distill_model",
    "save_dir": "the folder is project/name",
    "exist_ok": "the folder is project/name, and the same command goes on there",
    "cfg": "give its settings as keys of compare",
    "time": "it gives arms different numbers of epochs: use epochs=",
    "save": "a run that is not saved cannot go on",
    "explicit": "the streams are what arms differ in: name the arms explicit and implicit",
    "implicit": "the streams are what arms differ in: name the arms explicit and implicit",
}


@dataclass(frozen=True)
class ComparePlan:
    """A comparison with checked keys, before anything is loaded.

    Attributes:
        options (CompareOptions): Options of the comparison.
        arms (tuple[Arm, ...]): Its arms.
        settings (dict[str, dict[str, Any]]): Name of each arm -> its DS2D2 settings, `dis`, or a rival's.
        keys (dict[str, Any]): Ultralytics' training settings, the same for all arms.
        labelled_batch (int | None): Batch of the arms without unlabelled images, None if all arms have `keys`' batch.
    """

    options: CompareOptions
    arms: tuple[Arm, ...]
    settings: dict[str, dict[str, Any]]
    keys: dict[str, Any]
    labelled_batch: int | None = None

    @classmethod
    def of(cls, options: CompareOptions, train_keys: Mapping[str, Any]) -> ComparePlan:
        """Return the plan of a command.

        Args:
            options (CompareOptions): Options of the command.
            train_keys (Mapping[str, Any]): DS2D2 settings and Ultralytics training settings of the command.

        Returns:
            (ComparePlan): The checked plan.

        Raises:
            BadUseError: If arms, baseline and keys do not fit each other.
        """
        refused = [f"{k}= cannot be given: {reason}" for k, reason in REFUSED_KEYS.items() if k in train_keys]
        if refused:
            raise BadUseError("; ".join(refused))
        shared, keys = Settings.split(train_keys)
        batch = keys.get("batch", 16)
        if not isinstance(batch, int) or batch < 1:
            raise BadUseError(f"batch={batch} lets every arm find its own: give one number for all")
        if not isinstance(keys.get("imgsz", 640), int):
            raise BadUseError(f"imgsz={keys['imgsz']} must be one whole number of pixels, such as imgsz=640")
        arms = read_arms(options.arms)
        trained = {*(arm.name for arm in arms), *(row.arm for row in read_rows(options.folder))} - {"teacher"}
        if options.baseline not in trained:
            raise BadUseError(
                f"baseline={options.baseline} is none of the arms that are trained: {', '.join(sorted(trained))}; name "
                "it in arms= too, or one of these as baseline="
            )
        settings = {arm.name: arm_settings(arm, shared) or dict(arm.settings) for arm in arms}
        pseudo = pseudo_label_settings(arms, shared)
        settings |= {arm.name: pseudo for arm in arms if arm.kind == PSEUDO_LABELS}
        idle = [f"{k}=" for k in shared if k not in (PSEUDO_LABEL_KEYS if pseudo else KEYS)]
        if idle and not any(arm.kind == "ds2d2" for arm in arms):
            raise BadUseError(f"{', '.join(idle)}: no arm takes DS2D2 settings")
        _check_recipes(options, arms, settings)
        _check_sizes(arms, settings, keys.get("imgsz", 640))
        _check_amplifiers(arms, settings)
        labelled = labelled_batch(arms, settings, shared, batch)
        return cls(options, arms, settings, {"plots": False, **keys}, labelled)

    @property
    def runs(self) -> list[tuple[Arm, int]]:
        """(list[tuple[Arm, int]]): Arm and seed of every run: all arms with the first seed, then with the next one."""
        teacher = [(arm, -1) for arm in self.arms if arm.kind == "teacher"]
        trained = [arm for arm in self.arms if arm.kind != "teacher"]
        return [*teacher, *((arm, seed) for seed in self.options.all_seeds for arm in trained)]

    def for_task(self, task: str) -> ComparePlan:
        """Return the plan with the settings that rivals have for a task.

        Args:
            task (str): 'detect' or 'obb'.

        Returns:
            (ComparePlan): The plan, in which no setting of a rival is left to the task.
        """
        rivals = {
            arm.name: complete_settings(self.settings[arm.name], task) for arm in self.arms if arm.kind == "rival"
        }
        return replace(self, settings={**self.settings, **rivals})

    def fingerprint(self, subjects: Mapping[str, str]) -> dict[str, Any]:
        """Return everything that the results of all arms depend on.

        Args:
            subjects (Mapping[str, str]): Fields of `compared.subjects.Subjects`.

        Returns:
            (dict[str, Any]): Values for JSON, without device and folders: a comparison can be continued elsewhere.
        """
        hashes = {k.removesuffix("_hash"): v for k, v in subjects.items() if k.endswith("_hash")}
        settings = {k: v for k, v in self.keys.items() if k not in NEUTRAL_KEYS}
        # arms without unlabelled images depend on it too
        labelled = {} if self.labelled_batch is None else {"labelled_batch": self.labelled_batch}
        return {**hashes, "settings": settings, "versions": _versions(), **labelled}

    @property
    def source_keys(self) -> dict[str, Any]:
        """(dict[str, Any]): Ultralytics' settings of amplifiers, which see labelled images only, and of labelling."""
        return self.keys if self.labelled_batch is None else {**self.keys, "batch": self.labelled_batch}

    def train_batch(self, arm: Arm) -> dict[str, int]:
        """Return the batch of an arm's training where it is not that of the command.

        Args:
            arm (Arm): The arm.

        Returns:
            (dict[str, int]): The key `batch`, or none.
        """
        if self.labelled_batch is None or takes_unlabelled(arm, self.settings[arm.name]):
            return {}
        return {"batch": self.labelled_batch}


def _check_recipes(options: CompareOptions, arms: Sequence[Arm], settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse settings of recipes that hold for the entire comparison or do not fit its other arms."""
    resolved = {arm.name: resolve_settings(settings[arm.name]) for arm in arms if arm.kind == "ds2d2"}
    for name, values in resolved.items():
        if values.safe and not options.safe:  # its runs load their students before they read the recipe
            raise BadUseError(
                f"arm {name}: safe=True of the recipe {values.recipe} holds for all arms: give it to the command too"
            )
    others = [arm.name for arm in arms if arm.kind in ("teacher", "distill_model", "rival", PSEUDO_LABELS)]
    if others and any(values.teacher_channels is not None for values in resolved.values()):
        raise BadUseError(
            f"teacher_channels= does not hold for {', '.join(others)}: the teacher would get all channels there; name "
            "other arms, such as arms=plain,ds2d2"
        )


def _check_sizes(arms: Sequence[Arm], settings: Mapping[str, Mapping[str, Any]], imgsz: int) -> None:
    """Refuse a size of the teacher's images that does not fit that of the student's."""
    for arm in arms:
        if arm.kind == "ds2d2":
            try:
                size_ratio(imgsz, resolve_settings(settings[arm.name]).teacher_imgsz)
            except BadUseError as e:
                raise BadUseError(f"arm {arm.name}: {e}") from e


def _check_amplifiers(arms: Sequence[Arm], settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse arms that would share one stored amplifier although they want different ones."""
    epochs: dict[tuple[Any, ...], dict[int | None, str]] = {}
    for arm in arms:
        resolved = resolve_settings(settings[arm.name]) if arm.kind == "ds2d2" else None
        if resolved is None or "imhi" not in resolved.active or resolved.amplifier:
            continue
        origin = resolved.wavelet, tuple(resolved.teacher_channels or ()), resolved.teacher_imgsz
        epochs.setdefault(origin, {})[resolved.amplifier_epochs] = arm.name
    for names in epochs.values():
        if len(names) > 1:
            raise BadUseError(
                f"the arms {', '.join(names.values())} differ in amplifier_epochs=, and the amplifier of more epochs "
                "would serve them all: train each with ds2d2-yolo amplify, copy its file, and name it as that arm's "
                "amplifier="
            )


def make_jobs(
    plan: ComparePlan, state: CompareState, subjects: Mapping[str, str], parallel: int, threads: int | None,
    explicit_only: Collection[str] = (),
) -> list[Job]:  # fmt: skip
    """Return a job for each amplifier and set of pseudo-labels that unfinished runs need, then one for each run.

    Args:
        plan (ComparePlan): The comparison.
        state (CompareState): Its finished runs.
        subjects (Mapping[str, str]): Fields of `compared.subjects.Subjects`.
        parallel (int): Runs at the same time.
        threads (int | None): CPU threads of a run.
        explicit_only (Collection[str]): Arms whose runs switch the implicit stream off: teacher and data share no
            class, so that no amplifier can be trained.

    Returns:
        (list[Job]): The jobs in their order.
    """
    runs: list[Job] = []
    sources: dict[str, Job] = {}
    finished = {(row.arm, row.seed) for row in state.rows()}
    base = {"subjects": dict(subjects), "threads": threads, "student": plan.options.student}
    columns = {**_shared_columns(plan, subjects), "parallel": parallel}
    for arm, seed in plan.runs:
        if (arm.name, seed) in finished:
            continue
        settings = plan.settings[arm.name]
        row = {**columns, "arm": arm.name, "seed": seed, "settings": json.dumps(settings, sort_keys=True)}
        row["settings_hash"] = state.hash_of(arm.name)
        task = {**base, "kind": arm.kind, "settings": settings, "keys": {**plan.keys, "seed": max(seed, 0)}, "row": row}
        task["train_keys"] = plan.train_batch(arm)
        source = None
        if arm.name not in explicit_only:
            shared = {**base, "keys": plan.source_keys}
            source = needed_job(arm, settings, shared, state.folder, state.hash_of(arm.name))
        task["source"] = str(source.folder) if source else ""
        needs: tuple[str, ...] = ()
        if source is not None and not is_stored(source):
            sources.setdefault(source.name, source)
            needs = (source.name,)
        name = arm.name if seed < 0 else f"{arm.name}, seed {seed}"
        runs.append(Job(name, run_folder(state.folder, arm.name, seed), task, needs))
    return [*sources.values(), *runs]


def _shared_columns(plan: ComparePlan, subjects: Mapping[str, str]) -> dict[str, Any]:
    """Return the columns of the raw results that are the same for all runs."""
    o = plan.options
    return {
        "data": _portable_path(str(o.data)),
        "teacher": _portable_path(str(o.teacher)),
        "student": _portable_path(str(o.student)),
        "imgsz": plan.keys.get("imgsz", 640),
        "epochs": plan.keys.get("epochs", 100),
        "versions": "; ".join(f"{k} {v}" for k, v in _versions().items()),
        "revision": source_revision() or "",
        **{k: subjects[k] for k in ("data_hash", "teacher_hash", "student_hash")},
    }


def _versions() -> dict[str, str | None]:
    """Return the versions that results depend on."""
    return package_versions(("ultralytics", "torch"))


def _portable_path(path: str) -> str:
    """Return a path that means the same on another machine: a relative one unchanged, else its last three parts."""
    return path if not Path(path).is_absolute() else "/".join(Path(path).parts[-3:])


def arm_identities(plan: ComparePlan, images: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return everything that the results of each arm depend on besides the fingerprint.

    Args:
        plan (ComparePlan): The comparison.
        images (Mapping[str, str] | None): Name of each arm with unlabelled images -> hash of these. It takes the place
            of their paths, which differ on another machine.

    Returns:
        (dict[str, Any]): Name of each arm -> its kind and all its settings, defaults and those of its recipe included.
    """
    identities = {}
    for arm in plan.arms:
        settings = plan.settings[arm.name]
        settings = _resolved(settings) if arm.kind == "ds2d2" else settings
        if images and arm.name in images:
            settings = {**settings, "unlabelled": f"images {images[arm.name]}"}
        identities[arm.name] = {"kind": arm.kind, "settings": settings}
    return identities


def default_settings() -> dict[str, Any]:
    """Return the settings of an arm that sets none."""
    return _resolved({})


def _resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of an arm except those that are not part of its identity."""
    return {k: v for k, v in resolve_settings(settings).as_dict().items() if k not in {"teacher", "recipe"}}
