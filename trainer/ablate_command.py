"""``hamr-edge ablate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from hamr_edge.errors import InputError
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.trainer.ablation import RowResult, run_table
from hamr_edge.trainer.ablation_tables import TABLES, AblationRow
from hamr_edge.trainer.data_choice import DataChoice, data_options
from hamr_edge.trainer.loop import TrainingStopped
from hamr_edge.trainer.settings_options import configure, settings_options


@click.command()
@click.argument("table", type=click.Choice(list(TABLES)))
@data_options
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the runs.")
@click.option("--rows", metavar="LIST", help="Numbers of the rows to run, like 1,6.  [default: all]")
@click.option("--pretrained", metavar="imagenet|FILE", help="First weights of every row's backbone.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda:N or auto.")
@click.option("--json", "json_file", metavar="FILE", help="Write the table as JSON; - is stdout, without text.")
@click.option("--quiet", is_flag=True, help="No progress.")
@settings_options("paper")
def ablate(
    table: str,
    data: Path | None,
    train_on: Path | None,
    test_on: Path | None,
    dataset_kind: str,
    test_dataset_kind: str,
    output: Path,
    rows: str | None,
    pretrained: str | None,
    device: str,
    json_file: str | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Run an ablation TABLE of the paper on DATA, row after row, and print its figures beside these.

    TABLE is 6, 7, 8, 9 or 10, or one of the project's own: stripes, stride, extras. Options set the whole method's
    settings; each row changes its own. A finished row is not run again, and a stopped one goes on: repeat the command.
    """
    if json_file is not None:
        check_json_target(json_file)
    base = configure(settings, default_preset="paper")
    choice = DataChoice.from_options(data, train_on, test_on, dataset_kind, test_dataset_kind)
    if choice is None:
        raise InputError("name the data set: hamr-edge ablate TABLE DATA, or --train-on and --test-on")
    if table == "8" and choice.test_on is None:
        raise InputError("table 8 is cross-domain: name --train-on and --test-on")
    if base.eval_every == 0:
        raise InputError("a table needs scores; leave out --eval-every 0")
    chosen = _choose(TABLES[table], rows)
    results: list[RowResult] = []
    try:
        for result in run_table(chosen, base, choice.open(), output, pretrained, device, quiet):
            results.append(result)
            if not quiet:
                score = result.scores
                click.echo(
                    f"{result.row.name}: rank-1 {100 * score['rank1']:.1f}  mAP {100 * score['map']:.1f}", err=True
                )
    except TrainingStopped as stopped:
        click.echo(f"{stopped}; repeat the command to go on", err=True)
        sys.exit(130)
    if json_file is not None:
        values = {"schema": 1, "table": table, "data": choice.as_typed(), "rows": [row.to_json() for row in results]}
        write_json(values, json_file)
    if json_file != STDOUT:
        Console(width=None if sys.stdout.isatty() else 120).print(_draw(table, results))


def _choose(table: tuple[AblationRow, ...], rows: str | None) -> dict[int, AblationRow]:
    numbered = dict(enumerate(table, 1))
    if rows is None:
        return numbered
    try:
        return {number: numbered[number] for number in (int(word) for word in rows.split(","))}
    except (ValueError, KeyError) as error:
        names = ", ".join(f"{number} {row.name}" for number, row in numbered.items())
        raise InputError(f"--rows must be numbers joined by commas, got {rows!r}; the table has {names}") from error


def _draw(name: str, results: list[RowResult]) -> Table:
    papers = list(results[0].row.paper)
    title = f"Table {name} of the paper" if name.isdigit() else name
    table = Table("row", title=f"{title}: rank-1 / mAP in percent")
    for column in ("ours", *(f"paper, {data}" for data in papers)):
        table.add_column(column, justify="right")
    for result in results:
        papers_own = (f"{rank1:.1f} / {mean_ap:.1f}" for rank1, mean_ap in result.row.paper.values())
        table.add_row(result.row.name, _percent(result), *papers_own)
    return table


def _percent(result: RowResult) -> str:
    return f"{100 * result.scores['rank1']:.1f} / {100 * result.scores['map']:.1f}"
