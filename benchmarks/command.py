"""``hamr-edge bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hamr_edge.atomic import check_target
from hamr_edge.benchmarks.budgets import BUDGET_NAMES
from hamr_edge.benchmarks.compare import compare
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.history import compare_history, worse
from hamr_edge.benchmarks.history_report import history_to_markdown, print_history
from hamr_edge.benchmarks.html_report import build_html, check_html_possible
from hamr_edge.benchmarks.markdown_report import to_markdown
from hamr_edge.benchmarks.report import print_report
from hamr_edge.benchmarks.report_values import read_report
from hamr_edge.dataset import open_dataset
from hamr_edge.dataset_option import dataset_option
from hamr_edge.errors import GateError
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.progress import stdout_console
from hamr_edge.text_file import write_text


@click.command()
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True)
@click.option("--reference", metavar="MODEL", required=True, help="Checkpoint folder, or another artifact.")
@click.option("--data", metavar="DIR", required=True, help="Data set with query and gallery.")
@dataset_option("--data")
@click.option("--html", "html_file", metavar="FILE", help="Write the report as one page with plots and pictures.")
@click.option("--pictures/--no-pictures", default=True, help="Show people's crops on that page.  [default: show]")
@click.option("--markdown", "markdown_file", metavar="FILE", help="Write the report as Markdown.")
@click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON; - is stdout, without tables.")
@click.option("--compare", "old_json", metavar="OLD.json", help="Say what got better or worse; worse: exit code 3.")
@click.option(
    "--budget",
    "budgets",
    metavar="NAME=VALUE",
    multiple=True,
    help="What must be kept, such as map=0.5 (points that may be lost) or int8:p01-cosine=0.97, none to not judge; "
    f"repeat. NAME: {', '.join(BUDGET_NAMES)}.  [default: by precision]",
)
@click.option("--beside", metavar="MODEL", multiple=True, help="Measure this model too, and do not judge it; repeat.")
@click.option(
    "--torch",
    "torch_words",
    metavar="MODE,...",
    help="Ways to run the reference beside: bf16, fp16, compile, bf16+compile.",
)
@click.option("--peer", "peers", metavar="NAME=COMMAND", multiple=True, help="Another program beside; repeat.")
@click.option(
    "--input", "input_description", metavar="WORDS", help="What .onnx files without sidecar take: rgb-float-imagenet."
)
@click.option(
    "--batch", "batches", type=int, multiple=True, default=(1, 8), show_default=True, help="Batch size to time; repeat."
)
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Least time to measure one batch size.")
@click.option("--max-seconds", type=float, default=60.0, show_default=True, help="Most, while ratios are not sure.")
@click.option("--min-rounds", type=int, default=10, show_default=True, help="Rounds to measure at least.")
@click.option("--warmup-rounds", type=int, default=3, show_default=True, help="Rounds before the measured ones.")
@click.option("--cold-starts", type=int, default=3, show_default=True, help="Fresh processes to start each model in.")
@click.option("--seed", type=int, default=0, show_default=True, help="Fixes the choice of crops and the order.")
@click.option("--max-crops", type=int, help="Compare on this many crops at most, whole identities.  [default: all]")
@click.option("--mirror", is_flag=True, help="Average each crop with its mirror image.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")
@click.option("--threads", type=int, help="CPU threads of one inference.  [default: the library's]")
@click.option("--quiet", is_flag=True, help="No progress.")
def bench(
    artifacts: tuple[str, ...],
    reference: str,
    data: str,
    dataset_kind: str,
    html_file: str | None,
    pictures: bool,
    markdown_file: str | None,
    json_file: str | None,
    old_json: str | None,
    torch_words: str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Is each ARTIFACT as good as the model it was made of, how much faster, and what would something else give.

    Compares embeddings and retrieval scores on the data set's query and gallery, and times every model against the
    reference, round by round. A missed budget: exit code 3, with the report written all the same.
    """
    config = BenchConfig(torch_modes=tuple(torch_words.split(",")) if torch_words else (), **options)
    old = read_report(old_json) if old_json is not None else None
    if json_file is not None:
        check_json_target(json_file)
    if html_file is not None:
        check_html_possible()
        check_target(Path(html_file), "--html")
    if markdown_file is not None:
        check_target(Path(markdown_file), "--markdown")
    report = compare(artifacts, reference, open_dataset(data, dataset_kind), config, quiet)
    values = report.to_json()
    history = compare_history(old, values) if old is not None else None
    if json_file is not None:
        write_json(values, json_file)
    if markdown_file is not None:
        write_text(
            to_markdown(report) + (f"\n{history_to_markdown(history)}" if history else ""), markdown_file, "--markdown"
        )
    if html_file is not None:
        write_text(build_html(report, pictures=pictures), html_file, "--html")
    if json_file != STDOUT:
        print_report(report, stdout_console())
        if history is not None:
            print_history(history, stdout_console())
    reasons = [
        f"{result.name}: {result.failures[0]}{''.join(f'; cause: {cause.fault}' for cause in result.causes)}"
        for result in report.failed
    ]
    if reasons:
        reasons.insert(0, f"{len(reasons)} of {len(report.judged)} artifacts failed")
    if history is not None and (lost := worse(history)):
        reasons += [f"worse than {old_json}", *lost]
    if reasons:
        raise GateError("\n  ".join(reasons))
