"""What the README shows works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import baldvae, rounds_of

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks() -> dict[str, str]:
    found = re.findall(r"<!-- tested: (\S+) -->\n```\w+\n(.*?)```", README, re.DOTALL)
    return dict(found)


def test_plain_python_example_runs(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(blocks()["plain.py"])
    done = subprocess.run(
        [sys.executable, "plain.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    history = eval(done.stdout.strip().splitlines()[-1])
    assert [labelled for labelled, _ in history] == [20, 40, 60, 80]
    assert history[-1][1] > 0.6  # chance is 0.1


def test_the_five_own_things_run(tmp_path: Path) -> None:
    for name in ("mine.py", "mine.yaml", "write_images.py"):
        (tmp_path / name).write_text(blocks()[name])
    subprocess.run([sys.executable, "write_images.py"], cwd=tmp_path, check=True)
    configs = [f"--config={name}" for name in ("digits.yaml", "mine.yaml", "smoke.yaml")]
    done = baldvae("fit", *configs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "lightning_logs").glob("*/version_0")
    rounds = rounds_of(run)
    assert rounds["unlabelled"].tolist() == [980, 960, 940]
    assert not (run / "checkpoints" / "vae.ckpt").exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_links_lead_somewhere(path: str) -> None:
    assert (Path(__file__).parent.parent / path).exists()
