"""Jobs of a real Slurm, which this file starts: two nodes of a core each, both this machine."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from helpers import QUIET, RUN, UNTRAINED, baldvae, rounds_of
from killed import ran

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("slurm"),  # its ports
    pytest.mark.skipif(
        not all(map(shutil.which, ("slurmctld", "slurmd", "sbatch"))) or os.geteuid() != 0,
        reason="needs Slurm (Debian's slurm-wlm), and root to start it",
    ),
]

CONF = """
ClusterName=ours
SlurmctldHost={host}
SlurmctldPort=16817
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
MpiDefault=none
KillWait=5
ReturnToService=2
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port=16818 CPUs=1
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port=16819 CPUs=1
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
    """Controller and nodes, until the test ends."""
    place = tmp_path / "slurm"
    for name in ("state", "spool-one", "spool-two"):
        (place / name).mkdir(parents=True)
    conf = place / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname(), place=place))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # no name server knows these nodes
    with (place / "daemons.txt").open("w") as log:
        daemons = [
            subprocess.Popen([name, "-D", *options], stdout=log, stderr=log)
            for name, *options in (
                ("slurmctld", "-c"),
                ("slurmd", "-c", "-N", "one"),
                ("slurmd", "-c", "-N", "two"),
            )
        ]
        try:
            wait_for(lambda: said_by("sinfo", "--noheader", "--format=%t %D") == "idle 2\n", 60)
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


@pytest.mark.usefixtures("slurm")
def test_compare_sends_its_runs_and_their_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = ["compare", "--configs=digits", "--methods", "bald_vae", "bald_o", "--seeds=0"]
    comparison += ["--folder=figure", "--acquisition.rounds=4", "--vae.epochs=1", *QUIET]
    here, alone = tmp_path / "here", tmp_path / "alone"
    for folder in (here, alone):
        folder.mkdir()
    monkeypatch.chdir(here)
    sent = baldvae(*comparison, "--slurm", "time=20", cwd=here)
    assert sent.returncode == 0, sent.stderr
    (job,) = re.findall(r"2 runs are sent as job (\d+), their report as job \d+", sent.stdout)
    place = Path("figure/seed_0/lightning_logs")
    runs = [place / f"digits+{method}" / "version_0" for method in ("bald_vae", "bald_o")]
    wait_for((runs[0] / "checkpoints" / "last.ckpt").is_file)
    said_by("scancel", "--signal=USR2", f"{job}_0")  # the warning, at which submitit requeues it
    wait_for(lambda: said_by("squeue", "--noheader") == "", 600)
    assert Path("figure/seed_0/digits+bald_vae.log").read_text().count("Seed set to") == 2
    assert Path("figure/report.html").is_file()
    assert baldvae(*comparison, cwd=alone).returncode == 0
    for run in runs:
        tables = [rounds_of(folder / run) for folder in (here, alone)]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    again = baldvae(*comparison, "--slurm", "time=20", cwd=here)
    assert "The results are in" in again.stdout  # nothing is left to send


@pytest.mark.usefixtures("slurm")
def test_two_nodes_buy_what_one_process_buys_also_when_they_are_requeued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = tmp_path / "alone", tmp_path / "nodes"
    for folder in folders:
        folder.mkdir()
    rounds = ["--acquisition.rounds=6"]
    assert ran(*UNTRAINED, *rounds, cwd=folders[0]).returncode == 0
    monkeypatch.chdir(folders[1])
    nodes = ["--trainer.accelerator=cpu", "--trainer.num_nodes=2", "--trainer.strategy=ddp"]
    Path("fit.sh").write_text(
        "#!/bin/sh\n"
        "#SBATCH --nodes=2 --ntasks-per-node=1 --requeue --open-mode=append --output=fit.txt\n"
        f"srun baldvae {shlex.join([*UNTRAINED, *rounds, *nodes])}\n"
    )
    job = said_by("sbatch", "--parsable", "fit.sh").strip()
    wait_for((RUN / "checkpoints" / "last.ckpt").is_file)
    said_by("scontrol", "requeue", job)
    wait_for(lambda: said_by("squeue", "--noheader") == "", 600)
    log = Path("fit.txt").read_text()
    assert f"Job {job} was begun again: it goes on with" in log
    assert log.count("MEMBER: 2/2") == 2
    assert rounds_of(RUN)["round"].tolist() == [*range(7)]
    tables = [folder / RUN / "acquisitions.csv" for folder in folders]
    assert tables[0].read_bytes() == tables[1].read_bytes()
