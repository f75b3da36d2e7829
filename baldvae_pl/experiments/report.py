"""`baldvae report`: figures and tables of finished runs."""

from collections.abc import Sequence

from baldvae_pl.experiments.arguments import parse_report


def main(args: Sequence[str]) -> None:
    """Parse the command line, write the report and print it."""
    chosen = parse_report(args)
    from baldvae_pl.experiments import writing  # takes a second, which --help need not wait for

    out = chosen.out or (chosen.source if chosen.source.is_dir() else chosen.source.parent)
    writing.write(chosen.source, out, chosen.baseline, chosen.labels, chosen.accuracies)
    print((out / "report.md").read_text(encoding="utf-8"))
