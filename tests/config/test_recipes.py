"""Recipes: found by name or path, under the command's own settings, wrong ones refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ds2d2_yolo.config.recipes import load_recipe, recipe_names, resolve_settings, saved_settings
from ds2d2_yolo.config.resources import resource_dir
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError


def test_every_packaged_recipe_is_valid() -> None:
    assert {"retinanet-dior", "faster-rcnn-dota"} <= set(recipe_names())
    for name in recipe_names():
        resolve_settings({"teacher": "t.pt", "recipe": name})


def test_command_over_recipe_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("exlo: 0.5\nwavelet: db2\n")
    settings = resolve_settings({"teacher": "t.pt", "recipe": str(file), "exlo": 0.25})
    assert (settings.exlo, settings.wavelet, settings.disw) == (0.25, "db2", 1.0)
    assert settings.recipe == str(file)


def test_what_cfg_prints_is_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = (resource_dir("cfg") / "default.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("\nexlo:", "\nexlo: 1e-5"), encoding="utf-8")
    settings = resolve_settings({"teacher": "t.pt", "recipe": str(file)})
    assert settings == Settings(teacher="t.pt", recipe=str(file), exlo=1e-5)


def test_a_stream_that_is_off_leaves_out_the_recipes_gains() -> None:
    assert resolve_settings({"recipe": "retinanet-dota", "explicit": False}).active == ("imfu", "imhi")


def test_an_earlier_runs_settings_lie_under_those_of_the_command(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("wavelet: db2\n")
    earlier = resolve_settings({"teacher": "t.pt", "exlo": 3.0, "imfu": 2.0, "wavelet": "sym4", "disw": 0.5}).as_dict()
    merged = resolve_settings({"teacher": "u.pt", "imfu": 0.0, "recipe": str(file)}, earlier)
    assert (merged.teacher, merged.exlo, merged.imfu, merged.wavelet, merged.disw) == ("u.pt", 3.0, 0.0, "db2", 0.5)
    assert resolve_settings({"teacher": "t.pt", "implicit": False}, earlier).active == ("exlo", "exhi")
    with_recipe = resolve_settings({"teacher": "t.pt", "recipe": "score"}).as_dict()
    assert resolve_settings({"teacher": "t.pt"}, with_recipe).weight_map == "score"
    with pytest.raises(BadUseError, match="wavelt"):
        resolve_settings({}, {"wavelt": "db2"})


def test_saved_settings_of_earlier_versions() -> None:
    saved = {**Settings(teacher="t.pt", exlo=3.0).as_dict(), "extent": "touched"}
    assert saved_settings(saved) == Settings(teacher="t.pt", exlo=3.0)
    assert resolve_settings({"teacher": "t.pt"}, saved).exlo == 3.0
    for load in (saved_settings, lambda s: resolve_settings({}, s)):
        with pytest.raises(BadUseError, match=r"^the earlier run's settings hold 'extent', which this version"):
            load({**saved, "extent": "reference"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("exlow: 1", "holds 'exlow': a recipe holds what 'ds2d2-yolo cfg' lists"),
        ("extent: touched", "holds 'extent'"),
        ("recipe: other", "holds 'recipe'"),
        ("teacher: other.pt", "holds 'teacher'"),
        ("- 1", "holds no settings"),
        ("", "holds no settings"),
        ("a: [", "cannot be read as YAML"),
        ("exlo: -1", "exlo=-1 must be"),
    ],
)
def test_wrong_recipes(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(BadUseError, match=message) as e:
        resolve_settings({"recipe": str(file)})
    assert "\n" not in str(e.value)


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(BadUseError, match="did you mean 'retinanet-dota'"):
        load_recipe("retina-dota")
    with pytest.raises(BadUseError, match=r"missing\.yaml does not exist"):
        load_recipe("missing.yaml")
