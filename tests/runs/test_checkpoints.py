"""Checkpoints that cannot be used, or only on purpose."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers import QUIET, RUN, SMALL, refusal, rounds_of

from baldvae_pl import __version__
from baldvae_pl.errors import SettingError
from baldvae_pl.main import main
from baldvae_pl.runs.checkpoints import RunCheckpoint, newest_checkpoint, read_checkpoint
from baldvae_pl.runs.folder import RunFolder

LAST = RUN / "checkpoints" / "last.ckpt"

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def copied(finished_run: Path, elsewhere: Path) -> Path:
    shutil.copytree(finished_run / "lightning_logs", elsewhere / "lightning_logs")
    return elsewhere


def make_one_of_0_2() -> None:
    """Turn the last checkpoint into one as 0.2.0 made it: its pools had no kinds."""
    checkpoint = torch.load(LAST, weights_only=True)
    del checkpoint["PoolDataModule"]["pool"]["generated"]["kinds"]
    checkpoint["callbacks"]["RunSettings"]["version"] = "0.2.0"
    torch.save(checkpoint, LAST)


@pytest.mark.parametrize("mixed", [[], ["--resume_changed=true"]], ids=["", "changed"])
def test_a_checkpoint_of_0_2_is_refused_in_a_sentence(mixed: list[str], copied: Path) -> None:
    make_one_of_0_2()
    before = {p: p.read_bytes() for p in RUN.rglob("*") if p.is_file()}
    words = (
        f"--ckpt_path: {LAST} was made with baldvae 0.2.0, whose checkpoints this version does "
        "not read. Install that version to go on with it."
    )
    assert refusal(*SMALL, f"--ckpt_path={LAST}", "--acquisition.rounds=4", *mixed) == words
    for command in ("test", "predict"):
        said = refusal(command, "--config=digits.yaml", f"--ckpt_path={LAST}", *QUIET)
        assert said == words
    assert before == {p: p.read_bytes() for p in RUN.rglob("*") if p.is_file()}


def test_a_run_that_has_only_a_checkpoint_of_0_2_does_not_go_on(copied: Path) -> None:
    LAST.with_name("previous.ckpt").unlink()
    make_one_of_0_2()
    assert "was made with baldvae 0.2.0" in refusal(*SMALL, "--ckpt_path=last")


def test_a_checkpoint_of_another_version_goes_on_only_on_purpose(copied: Path) -> None:
    checkpoint = torch.load(LAST, weights_only=True)
    checkpoint["callbacks"]["RunSettings"]["version"] = "0.3.1"
    torch.save(checkpoint, LAST)
    longer = [*SMALL, "--ckpt_path=last", "--acquisition.rounds=4"]
    said = refusal(*longer)
    assert f"was made with baldvae 0.3.1, this is {__version__}" in said
    assert "add --resume_changed true" in said
    main([*longer, "--resume_changed=true"])
    assert rounds_of(RUN)["labelled"].tolist() == [15, 40, 65, 90, 115]


def test_a_checkpoint_names_its_parts(finished_run: Path) -> None:
    checkpoint = read_checkpoint(finished_run / LAST)
    assert checkpoint.version == __version__
    assert checkpoint.settings == (finished_run / RUN / "config.yaml").read_text()
    assert len(checkpoint.rounds["history"]) == 4
    assert checkpoint.pools["seed"] == 0
    assert any(name.startswith("network.") for name in checkpoint.weights)
    earlier = RunCheckpoint(Path("x.ckpt"), {"callbacks": {}})
    assert earlier.version == "0.1 or an earlier one"


def test_a_file_without_pools_is_not_a_checkpoint(elsewhere: Path) -> None:
    torch.save({"state_dict": {}}, "weights.ckpt")
    with pytest.raises(SettingError, match=r"weights\.ckpt' is not a checkpoint .*holds no pools"):
        read_checkpoint(Path("weights.ckpt"))


def test_the_newest_sound_checkpoint_is_found_and_the_vae_is_none(copied: Path) -> None:
    run = RunFolder(RUN)
    found = newest_checkpoint(run)
    assert found is not None
    assert found.path == LAST
    LAST.write_bytes(b"PK")
    with pytest.warns(UserWarning, match="The next older one is tried"):
        found = newest_checkpoint(run)
    assert found is not None
    assert found.path.name == "previous.ckpt"
    LAST.unlink()
    found.path.unlink()
    assert (RUN / "checkpoints" / "vae.ckpt").exists()
    assert newest_checkpoint(run) is None
