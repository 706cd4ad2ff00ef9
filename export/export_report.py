"""What an export says at its end: tables on stdout, plots and JSON beside the artifacts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hamr_edge.atomic import replace_file
from hamr_edge.errors import UnavailableError
from hamr_edge.export.compact_figure import draw_dimensions
from hamr_edge.export.compact_report import dimension_table
from hamr_edge.export.exporting import Exported
from hamr_edge.export.half import overflows
from hamr_edge.export.sensitivity_report import calibrator_table, draw_sensitivity, sensitivity_table
from hamr_edge.progress import stderr_console, stdout_console
from hamr_edge.sidecar import Sidecar


def write_reports(exported: Exported, output: Path, quiet: bool = False) -> None:
    """Print what was made and why it is as it is; write the plots.

    Args:
        exported: What was made.
        output: Folder of the artifacts.
        quiet: No words on stderr.
    """
    console = stdout_console()
    shown: set[str] = set()
    for path, search in exported.searches.items():
        if search.flavour in shown or not search.blocks:
            continue
        shown.add(search.flavour)
        console.print(calibrator_table(search))
        console.print(sensitivity_table(search))
        given_back = [step.given_back for step in search.steps if step.given_back]
        console.print(f"{search.flavour}: given back: {', '.join(given_back) or 'nothing; the budget holds'}\n")
        _write_plot(
            output / f"{path.name.split('.onnx')[0].removesuffix('.frame')}.report.png",
            lambda search=search: draw_sensitivity(search),  # type: ignore[misc]
            quiet,
        )
    if exported.compact is not None:
        console.print(dimension_table(exported.compact))
        report = json.dumps(exported.compact.to_json(), indent=1) + "\n"
        replace_file(output / "compact.json", lambda part: part.write_text(report, encoding="utf-8"))
        compact = exported.compact
        _write_plot(output / "compact.png", lambda: draw_dimensions(compact), quiet)
    for nodes in exported.float_nodes.values():
        for node in overflows(nodes):
            stderr_console(quiet).print(
                f"{node.operator} {node.node} reaches {node.peak:.3g}, float16 ends at 65504: it stays float32",
                markup=False,
            )
    for path, sidecar in exported.artifacts.items():
        console.print(_line(path, sidecar), markup=False, soft_wrap=True)


def _line(path: Path, sidecar: Sidecar) -> str:
    parity = sidecar.parity
    sizes = ", ".join(str(size) for size in parity["batch_sizes"])
    line = (
        f"{path}  {path.stat().st_size / 1e6:.1f} MB  {sidecar.embedding_dim} values; {parity['images']} crops at "
        f"batches {sizes}: cosine with PyTorch at least {parity['min_cosine']:.7f}"
    )
    held_out = parity.get("held_out")
    if held_out is not None:
        line += (
            f"; {held_out['queries']} held-out queries: mAP {100 * held_out['map']:.2f} "
            f"({-held_out['map_drop']:+.2f}), rank-1 {100 * held_out['rank1']:.2f} ({-held_out['rank1_drop']:+.2f})"
        )
    return line


def _write_plot(path: Path, draw: Callable[[], bytes], quiet: bool) -> None:
    try:
        drawn = draw()
    except UnavailableError as error:
        stderr_console(quiet).print(f"{path.name} was not drawn: {error}")
        return
    replace_file(path, lambda part: part.write_bytes(drawn))
