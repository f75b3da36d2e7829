"""In which settings two starts of one run may differ."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from baldvae_pl.errors import SettingError
from baldvae_pl.runs.folder import RunFolder
from baldvae_pl.runs.settings import (
    MAY_CHANGE_ON_RESUME,
    check_begun,
    check_same_settings,
    first_difference,
    flat,
)

SETTINGS: dict[str, Any] = {
    "seed_everything": 0,
    "acquisition": {
        "rounds": 3,
        "query_size": 20,
        "selection": {"class_path": "baldvae_pl.selection.Power", "init_args": {"coldness": 1.0}},
    },
    "data": {
        "root": "data",
        "eval_batch_size": 128,
        "scoring_batch_size": None,
        "batch_size": 32,
        "budget": None,
        "labels": None,
        "embedding": {"class_path": "Timm", "init_args": {"weights": None}},
        "source": {
            "class_path": "ImageFolder",
            "init_args": {"cache_folder": None, "classes": None},
        },
    },
    "vae": {"ckpt_path": None, "shared_path": None, "epochs": 1},
    "trainer": {"precision": None, "devices": 1, "gradient_clip_val": None},
    "predictions": {"folder": None},
    "method": None,
}


def changed(name: str, value: Any = "other") -> dict[str, Any]:
    settings = copy.deepcopy(SETTINGS)
    section: Any = settings
    *path, last = name.split(".")
    for part in path:
        section = section[part]
    assert last in section
    section[last] = value
    return settings


def test_nested_settings_have_dotted_names() -> None:
    assert flat({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}


def test_equal_settings_do_not_differ() -> None:
    assert first_difference(SETTINGS, copy.deepcopy(SETTINGS)) is None


@pytest.mark.parametrize(
    "name", [*MAY_CHANGE_ON_RESUME, "trainer.devices", "predictions.folder", "method"]
)
def test_what_decides_no_result_may_change(name: str) -> None:
    assert first_difference(SETTINGS, changed(name)) is None


@pytest.mark.parametrize(
    "name",
    [
        *("seed_everything", "acquisition.query_size", "data.batch_size", "vae.epochs"),
        *("acquisition.selection.class_path", "acquisition.selection.init_args.coldness"),
        *("trainer.precision", "trainer.gradient_clip_val", "data.source.class_path"),
    ],
)
def test_what_decides_results_may_not(name: str) -> None:
    assert first_difference(SETTINGS, changed(name)) == name
    with pytest.raises(SettingError, match=f"--{name}: other is not what the run of here was"):
        check_same_settings(SETTINGS, changed(name), "here")


def test_where_people_label_it_does_not_matter_who_asks_them() -> None:
    before = changed("data.source.class_path", "baldvae_pl.UnlabelledFolder")
    now = copy.deepcopy(before)
    now["data"]["oracle"] = {"class_path": "People", "init_args": {"wait": True}}
    assert first_difference(before, now) is None
    other = copy.deepcopy(SETTINGS)
    other["data"]["oracle"] = {"class_path": "SimulatedPerson"}
    assert first_difference(SETTINGS, other) == "data.oracle.class_path"


def test_a_setting_that_only_one_of_the_two_has_is_a_difference() -> None:
    fewer = copy.deepcopy(SETTINGS)
    del fewer["acquisition"]["selection"]["init_args"]
    name = "acquisition.selection.init_args.coldness"
    assert first_difference(SETTINGS, fewer) == first_difference(fewer, SETTINGS) == name


def test_a_run_begins_again_only_with_the_settings_that_it_left(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    check_begun(run, yaml.safe_dump(SETTINGS))  # it left none
    run.config.write_text(yaml.safe_dump(SETTINGS))
    check_begun(run, yaml.safe_dump(changed("acquisition.rounds", 9)))
    with pytest.raises(SettingError, match=r"--vae\.epochs: 9 is not what"):
        check_begun(run, yaml.safe_dump(changed("vae.epochs", 9)))
