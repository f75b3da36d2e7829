"""The committed results are what the report makes of the committed curves."""

import re
from pathlib import Path

import pytest

from baldvae_pl.experiments import writing
from baldvae_pl.experiments.arguments import GATHERED

TABLES = sorted((Path(__file__).parents[2] / "docs" / "results").glob(f"*/{GATHERED}"))
assert TABLES  # without any, all tests here would be skipped

NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")


def text_and_numbers(file: Path) -> tuple[str, list[float]]:
    """A table without its numbers and the width of its columns, and the numbers."""
    content = file.read_text(encoding="utf-8")
    numbers = [float(number.replace(",", "")) for number in NUMBER.findall(content)]
    return re.sub(r"[-:]{2,}|\s+", " ", NUMBER.sub("#", content)), numbers


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.parent.name)
def test_committed_reports_come_out_of_the_committed_curves(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To draw takes most of the time, and of figures only the names are looked at here.
    monkeypatch.setattr(writing, "draw", lambda _1, _2, name: Path(f"{name}.svg").touch())
    monkeypatch.setattr(writing, "page_part", lambda *_: {})
    monkeypatch.setattr(writing, "page", lambda *_: "")
    writing.write(table, tmp_path, baseline="bald_o")
    for name in (GATHERED, "report.md", "summary.csv", "differences.csv"):
        text, numbers = text_and_numbers(tmp_path / name)
        committed_text, committed_numbers = text_and_numbers(table.parent / name)
        assert text == committed_text, name
        # Another scipy may draw another bootstrap: intervals of percentage points move by less.
        assert numbers == pytest.approx(committed_numbers, rel=1e-2, abs=0.02), name
    figures = {path.name for path in table.parent.glob("*.svg")}
    assert figures == {path.name for path in tmp_path.glob("*.svg")}
