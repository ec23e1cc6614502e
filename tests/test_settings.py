"""The settings: every mistake named at once, one name everywhere, the commented YAML in step."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import yaml

from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.resources import resolve_data, resource_dir
from ds2d2_yolo.settings import TERMS, Settings, check_keys


def test_yaml_states_the_defaults() -> None:
    text = (resource_dir("cfg") / "default.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == Settings().as_dict()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all("#" in line for line in lines), "every key is commented"


def test_every_setting_says_what_it_is() -> None:
    assert all(f.metadata["help"] for f in fields(Settings))
    documented = Settings.__doc__ or ""
    assert all(f"{f.name} (" in documented for f in fields(Settings))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"exlo": -1}, "exlo=-1 must be a finite number"),
        ({"imfu": float("nan")}, "imfu=nan"),
        ({"imhi": float("inf")}, "imhi=inf"),
        ({"exhi": "much"}, "exhi='much'"),
        ({"exhi": True}, "exhi=True"),
        ({"wavelet": "har"}, "such as 'haar'"),
        ({"wavelet": 3}, "wavelet=3"),
        ({"extent": "all"}, "touched, reference"),
        ({"teacher": ""}, "teacher=''"),
        ({"amplifier": 7}, "amplifier=7 must be a path"),
        ({"amplifier_epochs": 0}, "amplifier_epochs=0 must be a whole number"),
        ({"amplifier_epochs": 2.5}, "amplifier_epochs=2.5"),
    ],
)
def test_bad_values(values: dict[str, Any], said: str) -> None:
    with pytest.raises(BadUseError) as e:
        Settings(**values)
    assert said in str(e.value)
    assert "\n" not in str(e.value)


def test_bad_values_are_reported_together() -> None:
    with pytest.raises(BadUseError) as e:
        Settings(exlo=-1, wavelet="no", extent="all")
    assert all(key in str(e.value) for key in ("exlo", "wavelet", "extent"))


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(BadUseError, match=r"'wavlet' \(did you mean 'wavelet'\?\), 'zzz'"):
        check_keys(["wavlet", "zzz", "exlo"], set(Settings.keys()))


def test_active_terms_follow_the_gains() -> None:
    assert Settings().active == TERMS
    assert Settings(exlo=0, imhi=0).active == ("exhi", "imfu")


def test_split_parts_ours_from_theirs() -> None:
    ours, theirs = Settings.split({"exlo": 2, "epochs": 3, "teacher": "t.pt"})
    assert ours == {"exlo": 2, "teacher": "t.pt"}
    assert theirs == {"epochs": 3}


def test_packaged_data_is_found_by_name() -> None:
    for name in ("dota.yaml", "dota"):
        assert resolve_data(name).endswith("dota.yaml")
        assert resolve_data(name) != name
    assert resolve_data("coco8.yaml") == "coco8.yaml"
