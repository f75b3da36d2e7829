"""`baldvae report`: a run as a page, or figures and tables of many."""

from collections.abc import Sequence

from baldvae_pl.experiments.arguments import parse_report
from baldvae_pl.runs.folder import RunFolder


def main(args: Sequence[str]) -> None:
    """Parse the command line, write the report and print it."""
    chosen = parse_report(args)
    from baldvae_pl.experiments import writing  # takes a second, which --help need not wait for
    from baldvae_pl.reports.run import write_page

    run = RunFolder(chosen.source)
    if run.rounds.is_file():
        written = write_page(run, chosen.out or run.path)
        print(f"{written}: open it in a browser")
        return
    out = chosen.out or (chosen.source if chosen.source.is_dir() else chosen.source.parent)
    writing.write(chosen.source, out, chosen.baseline, chosen.labels, chosen.accuracies)
    print((out / "report.md").read_text(encoding="utf-8"))
