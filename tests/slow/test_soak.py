"""Three hundred rounds: no growth of memory, open files, or work a round."""

from pathlib import Path

import pandas as pd
import pytest
from helpers import RUN, SMALL, rounds_of
from killed import ran


@pytest.mark.slow
def test_three_hundred_rounds(tmp_path: Path) -> None:
    (tmp_path / "watch.py").write_text(
        "import gc, os, time\n"
        "from pathlib import Path\n"
        "from baldvae_pl.acquisition import bald\n"
        "def function(log_probs_N_T_C):\n"
        "    if len(log_probs_N_T_C) > 1000:\n"
        "        pages = int(Path('/proc/self/statm').read_text().split()[1])\n"
        "        files = len(os.listdir('/proc/self/fd'))\n"
        "        seconds = time.process_time()  # whatever else the machine does\n"
        "        gc.collect()\n"
        "        objects = len(gc.get_objects())\n"
        "        with Path('watched.csv').open('a') as file:\n"
        "            file.write(f'{seconds},{pages * 4096},{files},{objects}\\n')\n"
        "    return bald(log_probs_N_T_C)\n"
    )
    rounds = [
        *("--acquisition.rounds=300", "--acquisition.query_size=2", "--data.steps_per_round=2"),
        "--acquisition.complement=NoComplements",
    ]
    function = ["--acquisition.function=watch.function", "--trainer.log_every_n_steps=1"]
    done = ran(*SMALL, *rounds, *function, cwd=tmp_path, after=900)
    assert done.returncode == 0, done.stderr[-3000:]
    table = rounds_of(tmp_path / RUN)
    assert table["labelled"].tolist() == list(range(15, 616, 2))
    columns = ["seconds", "bytes", "files", "objects"]
    watched = pd.read_csv(tmp_path / "watched.csv", names=columns)
    assert len(watched) == 300
    early, late = watched[50:100], watched[250:300]
    assert late["files"].max() <= early["files"].max()
    assert late["bytes"].median() - early["bytes"].median() < 8 * 2**20
    # A round keeps its row, of some 25 numbers; anything more would be a leak.
    assert late["objects"].median() - early["objects"].median() < 200 * 40
    # A square of the number of rounds would make it many times as long.
    assert late["seconds"].diff().median() < 3 * early["seconds"].diff().median()
