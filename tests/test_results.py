"""The committed results are what the report makes of the committed curves."""

from pathlib import Path

import pytest

from baldvae_pl.experiments.report import GATHERED, report

TABLES = sorted((Path(__file__).parent.parent / "docs" / "results").glob(f"*/{GATHERED}"))
assert TABLES  # without any, all tests here would be skipped


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.parent.name)
def test_committed_reports_come_out_of_the_committed_curves(table: Path, tmp_path: Path) -> None:
    report(table, tmp_path, baseline="bald_o")
    for name in (GATHERED, "report.md", "summary.csv", "differences.csv"):
        assert (tmp_path / name).read_bytes() == (table.parent / name).read_bytes(), name
    figures = {path.name for path in table.parent.glob("*.svg")}
    assert figures == {path.name for path in tmp_path.glob("*.svg")}
