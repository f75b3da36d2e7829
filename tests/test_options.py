"""Options that name a function, and what a user sees of code that fails."""

import math

import pytest

from baldvae_pl.errors import SettingError, refused
from baldvae_pl.networks import augmentation
from baldvae_pl.options import as_list, resolve

SETTING = "--model.augmentation"


def test_a_short_name_is_looked_up_in_its_module() -> None:
    assert resolve(SETTING, "crop", augmentation) is augmentation.crop
    assert resolve(SETTING, "crop_and_flip", augmentation) is augmentation.crop_and_flip


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("math.sqrt", math.sqrt),
        ("baldvae_pl.networks.augmentation.crop", augmentation.crop),
        ("baldvae_pl.networks.augmentation:crop", augmentation.crop),
        ("builtins.dict.fromkeys", dict.fromkeys),
    ],
)
def test_an_import_path_is_imported(path: str, expected: object) -> None:
    assert resolve(SETTING, path, augmentation) == expected


@pytest.mark.parametrize("value", [None, math.sqrt, 7])
def test_an_object_is_what_it_is(value: object) -> None:
    assert resolve(SETTING, value, augmentation) is value


@pytest.mark.parametrize("value", ["rotate", "relu", "torch", "Tensor", "F", ""])
def test_an_unknown_name_tells_the_known_ones_and_finds_nothing_else(value: str) -> None:
    """Not even what the module happens to import."""
    with pytest.raises(SettingError) as caught:
        resolve(SETTING, value, augmentation)
    assert str(caught.value) == (
        f"--model.augmentation: {value!r} is unknown. Choose one of crop, crop_and_flip, or give "
        "an import path such as my_package.my_module.my_function."
    )


@pytest.mark.parametrize(
    "path", ["no_such_package.crop", "math.no_such_function", "math.", ".crop", "a b.c", "math..pi"]
)
def test_a_path_to_nothing_is_named(path: str) -> None:
    with pytest.raises(
        SettingError, match=r"^--model\.augmentation: .* cannot be imported \("
    ) as e:
        resolve(SETTING, path, augmentation)
    assert repr(path) in str(e.value)


def test_what_cannot_be_called_is_no_function() -> None:
    with pytest.raises(SettingError, match=r"'math\.pi' is not a function\. Name one\."):
        resolve(SETTING, "math.pi", augmentation)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, []),
        ([], []),
        ((), []),
        ("abc", ["abc"]),
        (0, [0]),
        (False, [False]),
        (["abc", 2], ["abc", 2]),
        (("abc", None), ["abc", None]),
        ({"a": 1}, [{"a": 1}]),
    ],
)
def test_a_single_value_becomes_a_list_of_one(value: object, expected: list[object]) -> None:
    assert as_list(value) == expected


def test_a_list_is_copied() -> None:
    original = [1]
    as_list(original).append(2)
    assert original == [1]


# What a user sees of code that fails


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("no such file"),
            "--x: RuntimeError: no such file. Fix it, or choose another.",
        ),
        (ValueError("one.\n  two..."), "--x: ValueError: one. two. Fix it, or choose another."),
        (KeyError("a"), "--x: KeyError: 'a'. Fix it, or choose another."),
        (AssertionError(), "--x: AssertionError. Fix it, or choose another."),
        (ZeroDivisionError(" \n "), "--x: ZeroDivisionError. Fix it, or choose another."),
    ],
    ids=repr,
)
def test_code_that_fails_is_named_in_one_sentence(error: Exception, said: str) -> None:
    with pytest.raises(SettingError) as caught, refused("--x"):
        raise error
    assert str(caught.value) == said
    assert caught.value.__cause__ is error


def test_sentences_that_say_what_to_do_pass() -> None:
    sentence = SettingError("--data.root: name another.")
    with pytest.raises(SettingError) as caught, refused("--x"):
        raise sentence
    assert caught.value is sentence
    with pytest.raises(TimeoutError, match="later"), refused("--x", but=TimeoutError):
        raise TimeoutError("later")
    with pytest.raises(SettingError) as caught, refused("--x", but=TimeoutError):
        raise sentence
    assert caught.value is sentence


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_user_who_stops_the_run_has_made_no_mistake(stop: type[BaseException]) -> None:
    with pytest.raises(stop), refused("--x"):
        raise stop


def test_code_that_works_is_left_alone() -> None:
    with refused("--x"):
        done = True
    assert done
