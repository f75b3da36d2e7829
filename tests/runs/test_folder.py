"""What lies in a run folder, and whose it is."""

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from baldvae_pl.errors import SettingError
from baldvae_pl.runs.folder import Identity, RunFolder, experiment_part

IDENTITY = Identity(["digits"], "bald_o", 3)


def test_an_identity_survives_its_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "version_0")
    assert run.read_identity() is None
    run.write_identity(IDENTITY)
    assert run.read_identity() == IDENTITY


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"configs": []}', "\udcff", "3"])
def test_an_unreadable_identity_is_none(text: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.identity.write_bytes(text.encode(errors="surrogateescape"))
    assert run.read_identity() is None


@pytest.mark.parametrize(
    ("name", "version"),
    [("version_0", 0), ("version_12", 12), ("version_", -1), ("version_x", -1), ("other", -1)],
)
def test_the_version_is_the_number_of_the_folder(name: str, version: int) -> None:
    run = RunFolder(Path("lightning_logs") / "digits+smoke" / name)
    assert run.version == version
    assert run.experiment == "digits+smoke"


def test_an_experiment_is_named_after_its_config_or_the_run_it_came_from(tmp_path: Path) -> None:
    assert experiment_part("configs/digits.yaml") == "digits"
    assert experiment_part(tmp_path / "digits+smoke" / "version_3" / "config.yaml") == (
        "digits+smoke"
    )
    assert experiment_part(tmp_path / "digits+smoke" / "other" / "config.yaml") == "config"


def test_a_checkpoint_tells_its_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "version_0")
    assert RunFolder.containing(run.last) == RunFolder(run.path.resolve())
    assert RunFolder.containing(tmp_path / "last.ckpt") is None


def test_a_claimed_folder_is_locked_until_it_is_released(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "digits" / "version_0")
    assert not run.is_locked()
    lock = run.claim("seed_everything: 3\n", IDENTITY)
    assert run.config.read_text() == "seed_everything: 3\n"
    assert run.read_identity() == IDENTITY
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from baldvae_pl.errors import SettingError\n"
        "from baldvae_pl.runs.folder import Identity, RunFolder\n"
        "run = RunFolder(Path(sys.argv[1]))\n"
        "assert run.is_locked()\n"
        "try:\n    run.claim('', Identity([], '', 0))\n"
        "except SettingError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(run.path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "another process works in the run folder" in said
    assert run.config.read_text() == "seed_everything: 3\n"
    lock.release()
    assert not run.is_locked()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "digits").write_text("")
    with pytest.raises(SettingError, match="cannot be written"):
        RunFolder(tmp_path / "digits" / "version_0").claim("", IDENTITY)


def test_a_lock_that_nobody_holds_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    run = RunFolder(tmp_path)
    assert not run.is_locked()
    lock = run.claim("", IDENTITY)
    assert isinstance(lock, FileLock)
    lock.release()
