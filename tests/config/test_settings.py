"""The settings: every mistake named at once, one name everywhere, the commented YAML in step."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from typing import Any

import pytest
import yaml

from ds2d2_yolo.config.options import check_keys
from ds2d2_yolo.config.resources import resolve_data, resource_dir
from ds2d2_yolo.config.settings import EXPLICIT, IMPLICIT, TERMS, Settings, Term
from ds2d2_yolo.errors import BadUseError


def test_yaml_states_the_defaults() -> None:
    text = (resource_dir("cfg") / "default.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == Settings().as_dict()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all("#" in line for line in lines), "every key is commented"
    assert [line.partition(":")[0] for line in lines] == list(Settings.keys()), "in the order of the settings"


def test_yaml_heads_the_experimental_settings() -> None:
    text = (resource_dir("cfg") / "default.yaml").read_text(encoding="utf-8")
    main, experimental = (yaml.safe_load(part) for part in text.split("\n# Experimental settings\n"))
    assert list(main) == [f.name for f in fields(Settings) if not f.metadata["experimental"]]
    assert list(experimental) == [f.name for f in fields(Settings) if f.metadata["experimental"]]


def test_a_term_is_its_key_as_text() -> None:
    assert Settings().active == ("exlo", "exhi", "imfu", "imhi")
    assert [t.stream for t in Settings().active] == ["explicit", "explicit", "implicit", "implicit"]
    assert (*EXPLICIT, *IMPLICIT) == TERMS
    assert set(TERMS) == set(Term)
    for term in TERMS:
        assert {str(term), f"{term}", "%s" % term, json.loads(json.dumps(term))} == {term.value}  # noqa: UP031
        assert (repr(term), {term.value: 1}[term]) == (repr(term.value), 1)
        assert type(pickle.loads(pickle.dumps(term))) is str, "files need no class of this package"


def test_what_runs_save_is_plain_text() -> None:
    settings = Settings(exlo=0.5)
    assert {type(key) for key in (*settings.fixed, *settings.shares)} == {str}
    assert yaml.safe_load(yaml.safe_dump(settings.shares)) == settings.shares


def test_every_setting_says_what_it_is() -> None:
    assert all(f.metadata["help"] for f in fields(Settings))
    documented = Settings.__doc__ or ""
    assert all(f"{f.name} (" in documented for f in fields(Settings))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exlo": -1}, "exlo=-1 must be a finite number"),
        ({"imfu": float("nan")}, "imfu=nan"),
        ({"imhi": float("inf")}, "imhi=inf"),
        ({"exhi": "much"}, "exhi='much'"),
        ({"exhi": True}, "exhi=True"),
        ({"wavelet": "har"}, "such as 'haar'"),
        ({"wavelet": 3}, "wavelet=3"),
        ({"teacher": ""}, "teacher=''"),
        ({"amplifier": 7}, "amplifier=7 must be a path"),
        ({"amplifier_epochs": 0}, "amplifier_epochs=0 must be a whole number"),
        ({"amplifier_epochs": 2.5}, "amplifier_epochs=2.5"),
        ({"gains": "atuo"}, "gains='atuo' must be one of auto (did you mean 'auto'?), or a finite number"),
        ({"gains": -1}, "gains=-1"),
        ({"gains": True}, "gains=True"),
        ({"exlo_share": 0}, "exlo_share=0 must be a finite number above 0"),
        ({"gain_warmup": -1}, "gain_warmup=-1"),
        ({"gain_schedule": "cosin"}, "did you mean 'cosine'"),
        ({"gain_epochs": 0}, "gain_epochs=0"),
        ({"explicit": "yes"}, "explicit='yes' must be True or False"),
        ({"implicit": 1}, "implicit=1 must be True or False"),
        ({"levels": 8}, "levels=8 must be a list, such as [8,16]"),
        ({"levels": []}, "levels=[]"),
        ({"levels": [8, "a"]}, "levels=[8, 'a'] holds 'a', which must be a whole number"),
        ({"levels": [8, 8]}, "names a level twice"),
        ({"gain_final": 1.5}, "gain_final=1.5 must be a finite number of at least 0 and at most 1"),
        ({"feature_norm": "batch"}, "must be one of none, standard"),
        ({"level_balance": "measure"}, "did you mean 'measured'"),
        ({"fused_explicit": None}, "fused_explicit=None must be True or False"),
        ({"teacher_channels": [-1]}, "teacher_channels=[-1]"),
        ({"recipe": 3}, "recipe=3 must be a path"),
        ({"explicit": False, "exhi": 1}, "exhi=1 contradicts explicit=False"),
        ({"implicit": False, "imfu": 1}, "imfu=1 contradicts implicit=False"),
    ],
)
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadUseError) as e:
        Settings(**values)
    assert message in str(e.value)
    assert "\n" not in str(e.value)


def test_bad_values_are_reported_together() -> None:
    with pytest.raises(BadUseError) as e:
        Settings(exlo=-1, wavelet="no", weight_map="all")
    assert all(key in str(e.value) for key in ("exlo", "wavelet", "weight_map"))


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(BadUseError, match=r"'wavlet' \(did you mean 'wavelet'\?\), 'zzz'"):
        check_keys(["wavlet", "zzz", "exlo"], set(Settings.keys()))


def test_active_terms_follow_gains_and_streams() -> None:
    assert Settings(exlo=0, imhi=0).active == ("exhi", "imfu")
    assert Settings(explicit=False).active == ("imfu", "imhi")
    assert Settings(implicit=False, exlo=0).active == ("exhi",)
    assert Settings(gains=0, imfu=1).active == ("imfu",)
    assert Settings(gains=0).active == ()


def test_each_term_has_a_number_or_a_share() -> None:
    assert Settings().fixed == {}
    assert set(Settings().shares) == set(Settings().active)
    mixed = Settings(exlo=0.5, imhi=0, imfu_share=0.3)
    assert mixed.fixed == {"exlo": 0.5}
    assert mixed.shares == {"exhi": Settings().exhi_share, "imfu": 0.3}
    one = Settings(gains=2, exlo=0.5)
    assert one.fixed == {"exlo": 0.5, "exhi": 2, "imfu": 2, "imhi": 2}
    assert one.shares == {}


def test_split_parts_ours_from_theirs() -> None:
    settings, ultralytics_keys = Settings.split({"exlo": 2, "epochs": 3, "teacher": "t.pt"})
    assert settings == {"exlo": 2, "teacher": "t.pt"}
    assert ultralytics_keys == {"epochs": 3}


def test_packaged_data_is_found_by_name() -> None:
    for name in ("dota.yaml", "dota"):
        assert resolve_data(name).endswith("dota.yaml")
        assert resolve_data(name) != name
    assert resolve_data("coco8.yaml") == "coco8.yaml"
