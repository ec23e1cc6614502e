"""What a comparison will run, how many at a time, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ds2d2_yolo.compare import CompareOptions, compare
from ds2d2_yolo.compare.plan import ComparePlan, arm_identities, make_jobs
from ds2d2_yolo.compare.state import CompareState
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.atomic_files import write_json

NEEDED = {"teacher": "t.pt", "student": "s.yaml", "data": "d.yaml"}
HASHES = {
    "task": "obb",
    "teacher": "/t.pt",
    "data": "/d.yaml",
    "teacher_hash": "t",
    "data_hash": "d",
    "student_hash": "s",
}


def planned(keys: dict[str, Any] | None = None, **options: Any) -> ComparePlan:
    """A plan of these options and other keys."""
    return ComparePlan.of(CompareOptions(**NEEDED, **options), keys or {})


def named(plan: ComparePlan, folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The jobs of a plan in a new folder."""
    state = CompareState(folder, plan.fingerprint(HASHES), arm_identities(plan))
    return [(job.name, job.needs) for job in make_jobs(plan, state, HASHES, 1, 1)]


def test_seeds_are_interleaved_and_the_teacher_is_measured_once(tmp_path: Path) -> None:
    jobs = named(planned(arms="teacher,plain,explicit", seeds=[3, 1]), tmp_path / "c")
    assert [name for name, _ in jobs] == [
        "teacher", "plain, seed 3", "explicit, seed 3", "plain, seed 1", "explicit, seed 1",
    ]  # fmt: skip


def test_one_amplifier_for_all_arms_that_it_fits(tmp_path: Path) -> None:
    arms = "plain,ds2d2,implicit,explicit,no-hi:imhi=0,db2:wavelet=db2,own:amplifier=a.safetensors"
    job_needs = dict(named(planned(arms=arms, seeds=0), tmp_path / "c"))
    assert list(job_needs)[:2] == ["amplifier wavelet=haar", "amplifier wavelet=db2"]
    haar, db2 = (("amplifier wavelet=haar",), ("amplifier wavelet=db2",))
    arm_needs = {name.split(",")[0]: job_needs[name] for name in list(job_needs)[2:]}
    assert arm_needs == {
        "plain": (), "ds2d2": haar, "implicit": haar, "explicit": (), "no-hi": (), "db2": db2, "own": (),
    }  # fmt: skip


def test_each_size_of_the_teacher_has_its_amplifier(tmp_path: Path) -> None:
    arms = "plain,ds2d2,large:teacher_imgsz=1280,more:teacher_imgsz=1280;amplifier_epochs=3,few:amplifier_epochs=3"
    with pytest.raises(BadUseError, match="the arms ds2d2, few differ in amplifier_epochs="):
        planned(arms=arms, seeds=0)
    plan = planned(arms="plain,ds2d2,large:teacher_imgsz=1280", seeds=0)
    state = CompareState(tmp_path / "c", plan.fingerprint(HASHES), arm_identities(plan))
    amplifiers = [j for j in make_jobs(plan, state, HASHES, 1, 1) if j.task["kind"] == "amplifier"]
    expected = [{"wavelet": "haar"}, {"wavelet": "haar", "teacher_imgsz": 1280}]
    assert [j.task["settings"] for j in amplifiers] == expected
    assert len({j.folder for j in amplifiers}) == 2


def test_every_run_gets_the_shared_keys_and_its_seed_alone(tmp_path: Path) -> None:
    plan = planned({"epochs": 7, "lr0": 0.1, "gains": 1}, arms="plain,distill_model,ds2d2", seeds=[0, 4])
    state = CompareState(tmp_path / "c", plan.fingerprint(HASHES), arm_identities(plan))
    runs = [j.task for j in make_jobs(plan, state, HASHES, 2, 1) if "row" in j.task]
    assert [t["keys"].pop("seed") for t in runs] == [0, 0, 0, 4, 4, 4]
    assert all(t["keys"] == {"epochs": 7, "lr0": 0.1, "plots": False} for t in runs)
    assert [t["settings"] for t in runs[:3]] == [{}, {}, {"gains": 1}]
    assert runs[0]["row"]["parallel"] == 2


def test_arms_without_unlabelled_images_get_the_labelled_part_of_a_batch(tmp_path: Path) -> None:
    arms = "teacher,plain,off:unlabelled=False,ds2d2,pseudo_labels,distill_model"
    keys = {"batch": 8, "unlabelled": "u", "unlabelled_share": 0.25, "imhi": 0}
    plan = planned(keys, arms=arms, seeds=0)
    state = CompareState(tmp_path / "c", plan.fingerprint(HASHES), arm_identities(plan))
    jobs = make_jobs(plan, state, HASHES, 1, 1)
    assert [job.name for job in jobs if "row" not in job.task] == ["pseudo-labels"]
    runs = {job.task["row"]["arm"]: job for job in jobs if "row" in job.task}
    trained = {arm: {**job.task["keys"], **job.task["train_keys"]}["batch"] for arm, job in runs.items()}
    assert trained == {"teacher": 6, "plain": 6, "off": 6, "ds2d2": 8, "pseudo_labels": 8, "distill_model": 6}
    assert all(job.task["keys"]["batch"] == 8 for job in runs.values()), "all are measured in one way"
    assert runs["pseudo_labels"].needs == ("pseudo-labels",)
    assert runs["pseudo_labels"].task["settings"] == {
        "unlabelled": "u", "unlabelled_share": 0.25, "unlabelled_conf": 0.25, "teacher_imgsz": None,
    }  # fmt: skip
    assert runs["plain"].needs == runs["ds2d2"].needs == ()
    jobs = make_jobs(planned({**keys, "imhi": None}, arms=arms, seeds=0), state, HASHES, 1, 1)
    (amplifier,) = (job for job in jobs if job.task["kind"] == "amplifier")
    assert amplifier.task["keys"]["batch"] == 6, "it is trained on labelled images only"


def test_the_labelled_part_is_part_of_the_fingerprint() -> None:
    plain_only = planned({"batch": 8, "unlabelled": "u"}, arms="plain")
    assert plain_only.fingerprint(HASHES)["labelled_batch"] == 4, "the other arms may be run by a later command"
    assert "labelled_batch" not in planned({"batch": 8}).fingerprint(HASHES)
    assert planned({"batch": 8, "unlabelled": "u"}).fingerprint(HASHES)["labelled_batch"] == 4


def test_pseudo_labels_are_made_once(tmp_path: Path) -> None:
    plan = planned({"unlabelled": "u"}, arms="plain,pseudo_labels", seeds=[0, 1])
    assert [name for name, _ in named(plan, tmp_path / "c")][:1] == ["pseudo-labels"]
    file = tmp_path / "c" / "pseudo-labels" / "data.yaml"
    file.parent.mkdir(parents=True)
    file.touch()
    write_json(tmp_path / "c" / "compare.json", {"fingerprint": plan.fingerprint(HASHES), "arms": {}})
    write_json(file.with_name("result.json"), [{"file": str(file), "reached": "", "seconds": 1.0}])
    state = CompareState(tmp_path / "c", plan.fingerprint(HASHES), arm_identities(plan))
    write_json(file.with_name("task.json"), {"identity": state.hash_of("pseudo_labels")})
    jobs = named(plan, tmp_path / "c")
    assert [name for name, needs in jobs if needs] == []
    assert len(jobs) == 4
    changed_plan = planned({"unlabelled": "u", "unlabelled_conf": 0.5}, arms="plain,pseudo_labels", seeds=[0, 1])
    assert [name for name, _ in named(changed_plan, tmp_path / "c")][:1] == ["pseudo-labels"], "made for other settings"


def test_the_content_of_unlabelled_images_is_part_of_an_arm_and_their_path_is_not() -> None:
    plan, moved_plan = (planned({"unlabelled": path}, arms="plain,ds2d2,pseudo_labels") for path in ("u", "/v/u"))
    image_hashes = dict.fromkeys(("ds2d2", "pseudo_labels"), "0a1b")
    assert arm_identities(plan, image_hashes) == arm_identities(moved_plan, image_hashes)
    changed_identities = arm_identities(plan, {**image_hashes, "ds2d2": "2c3d"})
    assert {k for k, v in changed_identities.items() if v != arm_identities(plan, image_hashes)[k]} == {"ds2d2"}


def test_no_setting_of_a_rival_is_left_to_the_task() -> None:
    plan = planned(arms="plain,ld,mine:rival=ld;weight=3")
    for task, published in (("detect", (10.0, 0.25)), ("obb", (5.0, 10.0))):
        complete = plan.for_task(task).settings
        assert (complete["ld"]["temperature"], complete["ld"]["weight"]) == published
        assert (complete["mine"]["temperature"], complete["mine"]["weight"]) == (published[0], 3)


def test_device_and_workers_are_no_part_of_the_fingerprint() -> None:
    fingerprint = planned({"device": "cpu", "workers": 2, "epochs": 3}).fingerprint(HASHES)
    assert fingerprint == planned({"device": 0, "epochs": 3}).fingerprint(HASHES)
    assert fingerprint != planned({"epochs": 4}).fingerprint(HASHES)


def test_defaults_are_part_of_what_is_kept_of_an_arm() -> None:
    identities = arm_identities(planned(arms="plain,ds2d2"))
    assert identities["plain"]["settings"] == {}
    assert identities["ds2d2"]["settings"]["exlo_share"] == 0.05


def test_channels_of_a_recipe_are_seen_too(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("teacher_channels: [2, 1, 0]\n")
    arguments = {**NEEDED, "project": str(tmp_path / "runs"), "arms": "teacher,plain,ds2d2"}
    with pytest.raises(BadUseError, match="teacher_channels= does not hold for teacher"):
        compare(**arguments, recipe=str(recipe))
    with pytest.raises(BadUseError, match=r"none\.yaml"):
        compare(**{**arguments, "student": "none.yaml"}, teacher_channels=None)


def test_safe_of_a_recipe_is_refused_before_anything_runs(tmp_path: Path) -> None:
    """The runs would refuse it one after the other: their students are loaded before the recipe is read."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("safe: true\n")
    arguments = {**NEEDED, "project": str(tmp_path / "runs"), "arms": "plain,ds2d2"}
    with pytest.raises(BadUseError, match=r"arm ds2d2: safe=True of the recipe .*: give it to the command too"):
        compare(**arguments, recipe=str(recipe))
    arms = f"plain,mine:recipe={recipe}"
    with pytest.raises(BadUseError, match="arm mine: safe=True of the recipe"):
        compare(**{**arguments, "arms": arms})
    with pytest.raises(BadUseError, match=r"data=d\.yaml is no data YAML"):
        compare(**arguments, recipe=str(recipe), safe=True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"teacher": None}, "teacher= missing"),
        ({"arms": "plain,distil_model"}, "did you mean 'distill_model'"),
        ({"seeds": [0, 1, 0]}, "0 twice"),
        ({"seeds": "many"}, "whole numbers"),
        ({"seeds": -1}, "whole numbers"),
        ({"baseline": "ds2d2", "arms": "plain,explicit"}, "baseline=ds2d2 is none"),
        ({"baseline": "teacher", "arms": "teacher,plain"}, "baseline=teacher is none"),
        ({"level": 1}, "under 1"),
        ({"distill_model": "t.pt"}, "is an arm here"),
        ({"seed": 1}, "seeds="),
        ({"model": "s.yaml"}, "student="),
        ({"implicit": False}, "name the arms"),
        ({"time": 1.0}, "use epochs="),
        ({"batch": -1}, "one number for all"),
        ({"imgsz": [96, 64]}, "one whole number"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"wavelt": "db2"}, "did you mean 'wavelet'"),
        ({"wavelet": "db"}, "arm ds2d2: wavelet='db'"),
        ({"gains": 1, "arms": "plain,distill_model"}, "no arm takes DS2D2 settings"),
        (
            {"teacher_channels": [0, 0, 0], "arms": "teacher,plain,ds2d2"},
            "teacher_channels= does not hold for teacher:",
        ),
        ({"teacher_channels": [2, 1, 0], "arms": "distill_model,plain,ds2d2"}, "does not hold for distill_model: "),
        ({"teacher_channels": [2, 1, 0], "arms": "plain,pkd,ds2d2"}, "does not hold for pkd: "),
        (
            {"arms": "plain,a:amplifier_epochs=1,b:amplifier_epochs=9;exlo=0"},
            "the arms a, b differ in amplifier_epochs=",
        ),
        ({"teacher_imgsz": 960, "arms": "plain,ds2d2"}, "arm ds2d2: teacher_imgsz=960 has to be imgsz=640 times"),
        ({"imgsz": 320, "arms": "plain,large:teacher_imgsz=320"}, "arm large: teacher_imgsz=320 is the student's size"),
        ({"arms": "plain,pseudo_labels"}, "arm pseudo_labels trains on unlabelled images: give unlabelled="),
        ({"arms": "plain,pseudo_labels", "unlabelled": False}, "give unlabelled="),
        ({"arms": "plain,pseudo_labels", "unlabelled": "u", "disw": 0}, "disw=: no arm takes DS2D2 settings"),
        ({"arms": "plain,ds2d2", "unlabelled": "u", "batch": 1}, "batch=1 with unlabelled_share=0.5"),
        (
            {"arms": "plain,ds2d2,more:unlabelled_share=0.75", "unlabelled": "u"},
            "the arms differ in the labelled images of a batch .the command with 8, more with 4",
        ),
        ({"arms": "plain,ds2d2", "unlabelled": "u", "unlabelled_share": 1}, "unlabelled_share=1 must be above 0"),
        ({"launcher": "slrm"}, "did you mean 'slurm'"),
        ({"launcher": "slurm"}, "launcher=slurm needs slurm=, such as"),
        ({"slurm": "time=5"}, "slurm= needs launcher=slurm"),
        ({"launcher": "slurm", "slurm": "partition=gpu"}, "needs time=, the minutes of a job"),
        ({"launcher": "slurm", "slurm": "time=2:00:00"}, "needs time=, the minutes of a job"),
        ({"launcher": "slurm", "slurm": "gpu,time=5"}, "must read key=value"),
        ({"launcher": "slurm", "slurm": "time=5,time=6"}, "each key once"),
        ({"launcher": "slurm", "slurm": "time=5", "device": "0,1"}, "each run has one device"),
        ({"epochs": "many"}, "epochs"),
        ({"student": "none.yaml"}, "none.yaml"),
    ],
)
def test_bad_use_ends_in_one_line_before_anything_runs(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    arguments = {**NEEDED, "project": str(tmp_path / "runs"), **keys}
    with pytest.raises(BadUseError, match=message) as e:
        compare(**arguments)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "runs").exists()


def test_arms_may_differ_in_amplifier_epochs_where_no_kept_one_serves_both() -> None:
    arms = "plain,a:amplifier_epochs=1,b:amplifier_epochs=9;wavelet=db2,c:amplifier_epochs=2;imhi=0"
    arms += ",d:amplifier_epochs=3;amplifier=kept.safetensors"
    assert [arm.name for arm in planned(arms=arms).arms] == ["plain", "a", "b", "c", "d"]


def test_an_amplifier_of_an_earlier_session_is_not_asked_for_again(tmp_path: Path) -> None:
    plan = planned(arms="plain,ds2d2", seeds=0)
    CompareState(tmp_path / "c", plan.fingerprint(HASHES), arm_identities(plan)).begin()
    names = [name for name, _ in named(plan, tmp_path / "c")]
    amplifier_file = tmp_path / "kept.safetensors"
    amplifier_file.touch()
    write_json(tmp_path / "c" / "amplifiers" / "haar" / "result.json", [{"file": str(amplifier_file), "seconds": 1.0}])
    assert named(plan, tmp_path / "c") == [(name, ()) for name in names[1:]]
    amplifier_file.unlink()
    assert [name for name, _ in named(plan, tmp_path / "c")] == names
