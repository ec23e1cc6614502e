"""Arms as they are named: built in, one's own, from a YAML; and what each trains with."""

from __future__ import annotations

from pathlib import Path

import pytest

from ds2d2_yolo.compare.arms import BUILT_IN, Arm, arm_settings, read_arms
from ds2d2_yolo.config.recipes import resolve_settings
from ds2d2_yolo.errors import BadUseError


def test_names_and_own_arms_in_their_order() -> None:
    arms = read_arms("teacher, plain,db2:wavelet=db2;levels=[8,16];imhi=1e-5;fused_explicit=true,explicit")
    assert [arm.name for arm in arms] == ["teacher", "plain", "db2", "explicit"]
    assert arms[2] == Arm("db2", "ds2d2", {"wavelet": "db2", "levels": [8, 16], "imhi": 1e-5, "fused_explicit": True})


def test_a_list_is_read_like_a_text() -> None:
    assert read_arms(["plain", "one:gains=1"]) == read_arms("plain,one:gains=1")


def test_dis_makes_an_arm_of_upstreams_distillation() -> None:
    assert read_arms("strong:dis=12")[0] == Arm("strong", "distill_model", {"dis": 12})


def test_rivals_have_their_published_settings_or_others() -> None:
    arms = read_arms("pkd,cwd:tau=4,ld,soft:rival=cwd;tau=4;weight=50")
    assert arms == (
        Arm("pkd", "rival", {"rival": "pkd", "weight": 10.0}),
        Arm("cwd", "rival", {"rival": "cwd", "tau": 4, "weight": 10.0}),
        Arm("ld", "rival", {"rival": "ld", "temperature": None, "weight": None}),
        Arm("soft", "rival", {"rival": "cwd", "tau": 4, "weight": 50}),
    )
    assert all(arm_settings(arm, {"gains": 1}) == {} for arm in arms)


def test_yaml_of_arms(tmp_path: Path) -> None:
    file = tmp_path / "ablation.yaml"
    file.write_text("plain:\nno-hi: {imhi: 0}\nsmall: {exlo: 1e-5}\n", encoding="utf-8")
    arms = read_arms(f"ds2d2,{file}")
    assert [(arm.name, arm.settings) for arm in arms] == [
        ("ds2d2", {}), ("plain", {}), ("no-hi", {"imhi": 0}), ("small", {"exlo": 1e-5}),
    ]  # fmt: skip


@pytest.mark.parametrize("arms", ["a:recipe=my.yaml", "a:disw=0;recipe=my.yaml", "a: recipe = my.yml"])
def test_recipe_at_the_end_is_not_a_file_of_arms(arms: str) -> None:
    (arm,) = read_arms(arms)
    assert arm.settings["recipe"].startswith("my.y")


def test_drive_letter_is_not_an_arm() -> None:
    with pytest.raises(BadUseError, match="cannot be read"):
        read_arms(r"C:\arms.yaml")


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("plane", "did you mean 'plain'"),
        ("wavelet", "name:|wavelet:wavelet=db2"),
        ("plain,ds2d2,plain", "plain twice"),
        ("ds2d2:imhi=0", "built in"),
        ("a:wavlet=db2", "did you mean 'wavelet'"),
        ("a:lr0=0.1", "the same for all arms"),
        ("a:teacher=other.pt", "no setting of an arm"),
        ("a:dis=3;imhi=0", "goes with nothing else"),
        ("pkd:tau=4", "arm pkd: unknown key: 'tau'"),
        ("cwd:tau=0", "arm cwd: tau=0 must be a finite number above 0"),
        ("a:rival=afd", "arm a: rival=afd must be one of pkd, cwd, ld"),
        ("pkd:rival=cwd", "contradicts its name"),
        ("a:", "name:key=value"),
        ("a:imhi", "name:key=value"),
        ("a:imhi=0;imhi=1", "each key once"),
        ("../a:imhi=0", "letters"),
        ("amplifiers:imhi=0", "not 'amplifiers'"),
        ("none.yaml", "cannot be read"),
        (",", "no arm"),
    ],
)
def test_mistakes_end_in_one_line(arms: str, message: str) -> None:
    with pytest.raises(BadUseError, match=message) as e:
        read_arms(arms)
    assert "\n" not in str(e.value)


def test_yaml_without_arms(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text("- plain\n", encoding="utf-8")
    with pytest.raises(BadUseError, match="holds no arms"):
        read_arms(str(file))


def test_own_settings_stand_over_shared_ones() -> None:
    arm = read_arms("db2:wavelet=db2")[0]
    assert arm_settings(arm, {"wavelet": "sym4", "gains": 1}) == {"wavelet": "db2", "gains": 1}
    assert arm_settings(BUILT_IN["plain"], {"gains": 1}) == {}


def test_gains_of_a_stream_that_is_off_are_left_out() -> None:
    shared = {"imfu": 1.0, "exlo": 0.1}
    assert arm_settings(BUILT_IN["explicit"], shared) == {"exlo": 0.1, "implicit": False}
    assert arm_settings(BUILT_IN["implicit"], shared) == {"imfu": 1.0, "explicit": False}


def test_recipe_of_an_arm_stands_over_shared_settings(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("disw: 5\nexlo_share: 1.0\n", encoding="utf-8")
    arm = Arm("mine", "ds2d2", {"recipe": str(recipe), "exlo_share": 2.0})
    settings = resolve_settings(arm_settings(arm, {"disw": 0, "exhi_share": 0.7, "exlo_share": 0.1}))
    assert (settings.disw, settings.exhi_share, settings.exlo_share) == (5, 0.7, 2.0)
    shared = resolve_settings(arm_settings(BUILT_IN["ds2d2"], {"disw": 0, "recipe": str(recipe)}))
    assert (shared.disw, shared.exlo_share) == (0, 1.0), "beside a shared recipe they stand as in a command"


def test_wrong_settings_name_their_arm() -> None:
    with pytest.raises(BadUseError, match="arm odd: wavelet='db'"):
        arm_settings(read_arms("odd:wavelet=db")[0], {})
    with pytest.raises(BadUseError, match="arm nothing has no term"):
        arm_settings(read_arms("nothing:gains=0")[0], {})


def test_an_arm_without_a_term_may_change_the_students_images() -> None:
    arm = read_arms("zero:exlo=0;exhi=0;imfu=0;imhi=0;teacher_imgsz=640")[0]
    assert arm_settings(arm, {}) == {"exlo": 0, "exhi": 0, "imfu": 0, "imhi": 0, "teacher_imgsz": 640}
