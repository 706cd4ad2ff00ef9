"""``hamr-edge bench``."""

from __future__ import annotations

from typing import Any

import click

from hamr_edge.benchmarks.compare import compare
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.report import print_report
from hamr_edge.dataset import open_dataset
from hamr_edge.dataset_option import dataset_option
from hamr_edge.errors import GateError
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.progress import stdout_console


@click.command()
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True)
@click.option("--reference", metavar="MODEL", required=True, help="Checkpoint folder, or another artifact.")
@click.option("--data", metavar="DIR", required=True, help="Data set with query and gallery.")
@dataset_option("--data")
@click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; - is stdout, without tables.")
@click.option(
    "--batch", "batches", type=int, multiple=True, default=(1, 8), show_default=True, help="Batch size to time; repeat."
)
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Time to measure one batch size.")
@click.option("--min-rounds", type=int, default=10, show_default=True, help="Rounds to measure at least.")
@click.option("--warmup-rounds", type=int, default=3, show_default=True, help="Rounds before the measured ones.")
@click.option("--seed", type=int, default=0, show_default=True, help="Fixes the choice of crops and the order.")
@click.option("--max-crops", type=int, help="Compare on this many crops at most, whole identities.  [default: all]")
@click.option("--mirror", is_flag=True, help="Average each crop with its mirror image.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")
@click.option("--threads", type=int, help="CPU threads of one inference.  [default: the library's]")
@click.option("--min-cosine", type=float, help="Least cosine of any crop.  [default: by precision]")
@click.option("--p01-cosine", type=float, help="Least 1st percentile of the cosines.  [default: by precision]")
@click.option("--max-map-drop", type=float, help="Most mAP lost, in points.  [default: by precision]")
@click.option("--max-rank1-drop", type=float, help="Most rank-1 lost, in points.  [default: by precision]")
@click.option("--min-speedup", type=float, help="Least median speedup.  [default: not checked]")
@click.option("--quiet", is_flag=True, help="No progress.")
def bench(
    artifacts: tuple[str, ...],
    reference: str,
    data: str,
    dataset_kind: str,
    json_file: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Is each ARTIFACT as good as the model it was made of, and how much faster.

    Compares embeddings and retrieval scores on the data set's query and gallery, and times every model against the
    reference, round by round. A missed budget: exit code 3, with the report written all the same.
    """
    config = BenchConfig(**options)
    if json_file is not None:
        check_json_target(json_file)
    report = compare(artifacts, reference, open_dataset(data, dataset_kind), config, quiet)
    if json_file is not None:
        write_json(report.to_json(), json_file)
    if json_file != STDOUT:
        print_report(report, stdout_console())
    if report.failed:
        reasons = "; ".join(f"{result.artifact}: {result.failures[0]}" for result in report.failed)
        raise GateError(f"{len(report.failed)} of {len(report.results)} artifacts failed. {reasons}")
