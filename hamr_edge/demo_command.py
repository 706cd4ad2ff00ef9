"""``hamr-edge demo``: runs the other commands one after another, as a user would type them."""

from __future__ import annotations

import shlex
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import click

from hamr_edge.atomic import make_folder
from hamr_edge.errors import InputError

_MARKER = ".hamr-edge-demo"
_PRECISIONS = ("fp32", "fp16", "int8-cpu")
_MAP_DROP, _RANK1_DROP = "2", "3"
"""Budgets. A network that saw drawn figures for seconds is worth 1 % a query: the real ones would measure luck."""
_BENCH = ("--seconds", "3", "--max-seconds", "6", "--cold-starts", "1")
"""Enough to see what bench reports; not enough for a figure to go by."""


@click.command()
@click.option(
    "-o",
    "--output",
    default="demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder; an earlier demo's is made anew.",
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda:N or auto.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def demo(context: click.Context, output: Path, device: str, quiet: bool) -> None:
    """Go the whole way on procedural data, in a few minutes on two cores: synth, train, export, embed, bench."""
    data, run, build = output / "data", output / "run", output / "build"
    video, boxes, model = output / "walk.avi", output / "walk.det.txt", build / "model.fp32.onnx"
    people, annotated = output / "people.parquet", output / "annotated.mp4"
    artifacts = [build / f"model.{precision}.onnx" for precision in _PRECISIONS]
    page, report, marker = output / "report.html", output / "bench.json", output / _MARKER
    if marker.is_file():  # a demo made this folder: what it made may be made anew, and nothing else
        for folder in (data, run, build):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (video, boxes, people, annotated, page, report, marker):
            file.unlink(missing_ok=True)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} is not empty; name a new folder with -o, or delete it")
    make_folder(output, "folder")
    marker.touch()
    draw_page = ["--html", page] if find_spec("matplotlib") else []
    use_device = [] if device == "auto" else ["--device", device]
    steps = [
        ["synth", data, "--video", video],
        ["train", data, "-o", run, "--preset", "smoke", *use_device],
        ["export", run, "-o", build, "--data", data, "--precision", ",".join(_PRECISIONS),
         "--max-map-drop", _MAP_DROP, "--max-rank1-drop", _RANK1_DROP],
        ["embed", video, "--model", model, "--detections", boxes, "-o", people, "--video", annotated, *use_device],
        ["bench", *artifacts, "--reference", run, "--data", data, *draw_page, "--json", report,
         "--budget", f"map={_MAP_DROP}", "--budget", f"rank1={_RANK1_DROP}", *_BENCH, *use_device],
    ]  # fmt: skip
    group = context.parent.command if context.parent else None
    if not isinstance(group, click.Group):
        raise TypeError("demo runs as a command of hamr-edge")
    begun = time.perf_counter()
    for step in steps:
        words = [str(word) for word in step]
        click.secho(f"\n$ hamr-edge {shlex.join(words)}", bold=True)
        group.main(words + (["--quiet"] if quiet else []), prog_name="hamr-edge", standalone_mode=False)
    seconds = time.perf_counter() - begun
    click.secho(f"\nDone in {seconds:.0f} s. In {output}:", bold=True)
    made = [
        (run, "the checkpoint (weights, settings, scores, log.csv)"),
        (build, "the model in three precisions, each with its sidecar .json, and how int8 was found"),
        (people, "an embedding of every person in every frame"),
        (annotated, "the video: a colour stays with a person"),
        (report, "what bench measured: parity, retrieval, latency"),
    ]
    if draw_page:
        made.append((page, "the same to look at, with plots: open it in a browser"))
    for path, what in made:
        click.echo(f"  {path}  {what}")
    click.echo(
        "The network knows drawn figures only: the way is real, the scores say nothing of real people. Next:\n"
        "  hamr-edge train MARKET1501 -o run --preset edge --pretrained imagenet     your data\n"
        "  hamr-edge embed VIDEO --model MODEL --detector hog -o people.parquet      your video\n"
        "  hamr-edge doctor                                                          your devices"
    )
