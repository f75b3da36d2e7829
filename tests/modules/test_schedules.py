"""Schedules against their closed form, and the rates that a round's steps are taken with."""

from pathlib import Path

import pytest
import torch
from helpers import RUN, SMALL

from baldvae_pl.errors import SettingError
from baldvae_pl.main import main
from baldvae_pl.modules.classifier import Classifier
from baldvae_pl.modules.schedules import one_cycle


def test_one_cycle_rises_and_falls_along_a_cosine() -> None:
    assert [one_cycle(x) for x in (0, 0.125, 0.25, 0.625, 1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    done = [step / 1000 for step in range(1000)]
    rates = [one_cycle(x) for x in done]
    assert rates[:250] == sorted(rates[:250])
    assert rates[250:] == sorted(rates[250:], reverse=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--model.schedule=one_cycle"], [0.1 * one_cycle(step / 8) for step in range(8)]),
        pytest.param([], [0.1] * 8, marks=pytest.mark.slow),
        pytest.param(
            ["--model.schedule=math.exp"],
            [0.1 * 2.718281828 ** (step / 8) for step in range(8)],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_each_round_has_the_whole_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: list[float]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        *SMALL,
        "--acquisition.rounds=2",
        "--model.optimizer=torch.optim.Adam",
        "--model.optimizer.lr=0.1",
    ]
    seen: list[float] = []
    monkeypatch.setattr(
        Classifier,
        "on_before_zero_grad",
        lambda self, optimizer: seen.append(optimizer.param_groups[0]["lr"]),
    )
    main([*arguments, *options])
    assert seen == pytest.approx(expected * 3)
    saved = torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)
    # Between rounds it is the optimizer's own, so that a run may go on without a schedule.
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == 0.1


def test_an_unknown_schedule_names_the_known_one() -> None:
    with pytest.raises(SettingError, match=r"^--model\.schedule: .* one_cycle"):
        Classifier(schedule="linear")
