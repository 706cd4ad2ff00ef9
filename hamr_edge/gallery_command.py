"""The command ``hamr-edge gallery``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from hamr_edge.backend import open_backend
from hamr_edge.embedding_space import EmbeddingSpace
from hamr_edge.errors import InputError
from hamr_edge.evaluation import embed_files
from hamr_edge.gallery import Gallery
from hamr_edge.gallery_file import check_gallery_path
from hamr_edge.gallery_index import IndexKind
from hamr_edge.gallery_input import (
    MOST_RESULTS,
    check_name,
    check_period,
    check_person_name,
    check_time,
    normalise_name,
)
from hamr_edge.gallery_pictures import list_pictures, list_pictures_by_person
from hamr_edge.gallery_rows import Matches
from hamr_edge.gallery_times import format_moment, parse_moment
from hamr_edge.gallery_upkeep import (
    duration,
    forget,
    format_size,
    gallery_argument,
    list_people,
    load_gallery,
    rename,
    retention,
    set_retention,
)
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.progress import stdout_console


def _moment(text: str) -> float:
    """A Unix time, of one or of a date."""
    try:
        return parse_moment(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from None


def _model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What enrolling and searching have in common."""
    for option in (
        click.option(
            "--allow-mixed", is_flag=True, help="Accept a precision that is not known to agree with those enrolled."
        ),
        click.option("--threads", type=click.IntRange(1), help="CPU threads."),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda:N or auto."),
        click.option(
            "--model", required=True, type=click.Path(path_type=Path), help="Artifact or checkpoint that embeds."
        ),
    ):
        command = option(command)
    return command


@click.group()
def gallery() -> None:
    """Known people: enrol pictures by name, search, list, rename, forget.

    GALLERY is an .npz file. It carries the stamp of the artifact that embedded, and refuses embeddings that cannot be
    compared.
    """


@gallery.command()
@gallery_argument
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@_model_options
@click.option("--name", help="Who is in the pictures. Without it, each IMAGES is a folder with a folder a person.")
@click.option("--camera", default="", help="Where they were seen.")
@click.option(
    "--time", "time_s", type=_moment, metavar="TIME", help="When: a Unix time, or a date in UTC.  [default: now]"
)
@click.option("--replace", is_flag=True, help="Forget the person's earlier embeddings.")
@click.option(
    "--retention",
    "retention_s",
    type=duration,
    metavar="DURATION",
    help="Delete what was seen longer ago, such as 30d; kept in GALLERY.",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def enrol(
    gallery_file: Path,
    images: tuple[Path, ...],
    model: Path,
    device: str,
    threads: int | None,
    allow_mixed: bool,
    name: str | None,
    camera: str,
    time_s: float | None,
    replace: bool,
    retention_s: float | None,
    quiet: bool,
) -> None:
    """Add people to GALLERY, which is made if it is not there.

    IMAGES are pictures of one whole person each, as a detector crops them, or folders of such.
    """
    check_gallery_path(gallery_file)
    people = {name: list_pictures(images)} if name is not None else list_pictures_by_person(images)
    for who in people:
        check_person_name(who)
    if camera:
        check_name(camera, "a camera's name")
    with open_backend(model, device, threads) as backend:
        if gallery_file.exists():
            known = load_gallery(gallery_file, backend.sidecar, allow_mixed)
        else:
            known = Gallery(EmbeddingSpace.of(backend.sidecar))
        if retention_s is not None:
            set_retention(known, retention_s)
        check_time(time_s, known.retention_s)  # before minutes of embedding
        rows = embed_files(backend, [path for paths in people.values() for path in paths], quiet=quiet)
    start = again = 0
    for who, paths in people.items():
        own = rows[start : start + len(paths)]
        earlier = known.find_equal(who, own)
        known.enrol(who, own, camera, time_s, replace)
        if not replace:
            again += known.forget_views(earlier)  # the later copy says when and where they were seen last
        start += len(paths)
    known.save(gallery_file)
    twice = f", {again} of them in place of equal ones from before" if again else ""
    click.echo(f"{len(people)} people, {start} embeddings enrolled{twice}; {gallery_file} holds {format_size(known)}")


@gallery.command()
@gallery_argument
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@_model_options
@click.option(
    "-k", "count", type=click.IntRange(1, MOST_RESULTS), default=5, show_default=True, help="People a picture."
)
@click.option("--threshold", type=click.FloatRange(-1, 1), help="Least cosine to be shown.")
@click.option("--camera", "cameras", multiple=True, help="Only embeddings seen by this camera; may be repeated.")
@click.option(
    "--since", type=_moment, metavar="TIME", help="Only embeddings seen then or later; as TIME of enrol, in UTC."
)
@click.option("--until", type=_moment, metavar="TIME", help="Only embeddings seen before; in UTC.")
@click.option(
    "--index",
    type=click.Choice(["exact", "flat", "codes"]),
    default="exact",
    show_default=True,
    help="How it is searched; flat and codes need FAISS.",
)
@click.option("--json", "json_file", metavar="FILE", help="Write what was found as JSON; - is stdout, without text.")
def search(
    gallery_file: Path,
    images: tuple[Path, ...],
    model: Path,
    device: str,
    threads: int | None,
    allow_mixed: bool,
    count: int,
    threshold: float | None,
    cameras: tuple[str, ...],
    since: float | None,
    until: float | None,
    index: IndexKind,
    json_file: str | None,
) -> None:
    """Who is most like the person in each picture; IMAGES as for 'enrol'."""
    check_period(since, until)
    if json_file is not None:
        check_json_target(json_file)
    paths = list_pictures(images)
    with open_backend(model, device, threads) as backend:
        known = load_gallery(gallery_file, backend.sidecar, allow_mixed, index)
        _warn_of_unknown(cameras, known)
        rows = embed_files(backend, paths, quiet=len(paths) <= backend.sidecar.max_batch)
    found = known.search(rows, count, cameras or None, since, until)
    least = -1.0 if threshold is None else threshold
    if json_file is not None:
        write_json(_matches_to_json(paths, found, least), json_file)
    if json_file != STDOUT:
        _print_matches(paths, found, least)


for _command in (list_people, forget, rename, retention):
    gallery.add_command(_command)


def _warn_of_unknown(cameras: tuple[str, ...], known: Gallery) -> None:
    seen = sorted({camera for person in known.people() for camera in person.cameras})
    for camera in cameras:
        if normalise_name(camera) not in seen:
            there = ", ".join(seen) or "none"
            click.echo(f"warning: no embedding was seen by a camera {camera!r}; there are: {there}", err=True)


def _print_matches(paths: list[Path], found: Matches, least: float) -> None:
    table = Table(box=SIMPLE_HEAD)
    for column in ("picture", "person", "cosine", "camera", "seen"):
        table.add_column(column, justify="right" if column == "cosine" else "left", overflow="fold")
    for place, path in enumerate(paths):
        shown = _shown(found, place, least)
        for at in shown:
            table.add_row(
                escape(str(path)) if at == 0 else "",
                escape(found.names[place, at]),
                f"{found.similarity[place, at]:.4f}",
                escape(found.cameras[place, at]),
                format_moment(found.times_s[place, at]),
            )
        if not shown:
            table.add_row(escape(str(path)), "nobody", "", "", "")
    stdout_console().print(table)


def _matches_to_json(paths: list[Path], found: Matches, least: float) -> list[dict[str, Any]]:
    return [
        {
            "picture": str(path),
            "people": [
                {
                    "name": found.names[place, at],
                    "cosine": float(found.similarity[place, at]),
                    "camera": found.cameras[place, at],
                    "unix_time": float(found.times_s[place, at]),
                }
                for at in _shown(found, place, least)
            ],
        }
        for place, path in enumerate(paths)
    ]


def _shown(found: Matches, place: int, least: float) -> list[int]:
    names, similarity = found.names[place], found.similarity[place]
    return [at for at in range(len(names)) if names[at] and similarity[at] >= least]
