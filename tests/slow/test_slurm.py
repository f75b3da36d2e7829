"""A comparison as a job array of a real Slurm of one node, which this file starts."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import QUIET, baldvae, rounds_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch"))) or os.geteuid() != 0,
        reason="needs Slurm (Debian's slurm-wlm), and root to start it",
    ),
]

CONF = """
ClusterName=one
SlurmctldHost={host}
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
MpiDefault=none
KillWait=5
ReturnToService=2
NodeName={host} CPUs=2
PartitionName=all Nodes=ALL Default=YES
"""

DOCUMENT = Path(__file__).parents[2] / "docs" / "comparing.md"


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.5)


def said_by(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Controller and node, until the test ends."""
    place = tmp_path / "slurm"
    for name in ("state", "spool"):
        (place / name).mkdir(parents=True)
    conf = place / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname(), place=place))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    with (place / "daemons.txt").open("w") as log:
        daemons = [
            subprocess.Popen([name, "-D", *options], stdout=log, stderr=log)
            for name, *options in (("slurmctld", "-c"), ("slurmd", "-c"))
        ]
        try:
            wait_for(lambda: "idle" in said_by("sinfo", "--noheader", "--format=%t"), 60)
            yield
        finally:
            for daemon in daemons:
                daemon.terminate()
                daemon.wait()


def script_of_the_documents() -> str:
    """The documented script, with a comparison of half a minute."""
    (script,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    comparison = "--configs digits --methods bald_vae bald_o --seeds 0 --folder figure"
    options = " ".join([comparison, "--acquisition.rounds 4", "--vae.epochs 1", *QUIET])
    changed, times = re.subn(r'options="[^"]*"', f'options="{options}"', script)
    assert times == 1
    return changed


@pytest.mark.usefixtures("slurm")
def test_an_array_of_runs_is_requeued_and_ends_in_the_same_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    script = script_of_the_documents()
    Path("compare.sh").write_text(script)
    job = said_by("sbatch", "--parsable", "--array=1-2", "compare.sh").strip()
    after = ["--parsable", f"--dependency=afterany:{job}", "--wrap", "baldvae report figure"]
    said_by("sbatch", *after)
    run = Path("figure/seed_0/lightning_logs/digits+bald_vae/version_0")
    wait_for(lambda: (run / "checkpoints" / "last.ckpt").is_file())
    said_by("scontrol", "requeue", f"{job}_1")
    wait_for(lambda: said_by("squeue", "--noheader") == "", 600)
    rounds = rounds_of(run)
    assert rounds["round"].tolist() == [0, 1, 2, 3, 4]
    log = Path("figure/seed_0/digits+bald_vae.log").read_text()
    assert log.count("it begins again") == 1  # the second start goes on
    assert log.count("Seed set to") == 2
    gathered = pd.read_csv("figure/runs.csv")
    assert gathered.groupby("method").size().to_dict() == {"bald_o": 5, "bald_vae": 5}
    options = re.search(r'options="([^"]*)"', script)
    assert options is not None
    alone = tmp_path / "alone"
    alone.mkdir()
    done = baldvae("compare", *options[1].split(), cwd=alone)
    assert done.returncode == 0, done.stderr
    for method in ("bald_vae", "bald_o"):
        part = run.parents[1] / f"digits+{method}" / run.name
        tables = [rounds_of(folder / part) for folder in (here, alone)]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
