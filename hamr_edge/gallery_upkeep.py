"""What ``hamr-edge gallery`` does without a model: list, forget, rename, set the retention time."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from hamr_edge.errors import InputError
from hamr_edge.gallery import Gallery
from hamr_edge.gallery_index import IndexKind
from hamr_edge.gallery_times import format_duration, format_moment, parse_duration
from hamr_edge.progress import stdout_console
from hamr_edge.sidecar import Sidecar

gallery_argument = click.argument("gallery_file", metavar="GALLERY", type=click.Path(dir_okay=False, path_type=Path))
_NO_TIME = "none"


def duration(text: str) -> float:
    """Seconds, of an option such as ``30d``."""
    try:
        return parse_duration(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from None


@click.command("list")
@gallery_argument
def list_people(gallery_file: Path) -> None:
    """Who is in GALLERY, and what made the embeddings; times are in UTC."""
    known = load_gallery(gallery_file)
    table = Table(box=SIMPLE_HEAD)
    for column in ("person", "views", "cameras", "first seen", "last seen"):
        table.add_column(column, justify="right" if column == "views" else "left", overflow="fold")
    for person in known.people():
        first, last = format_moment(person.first_time_s), format_moment(person.last_time_s)
        table.add_row(escape(person.name), str(person.views), escape(", ".join(person.cameras)), first, last)
    console = stdout_console()
    console.print(table)
    for space in known.spaces:
        console.print(space.name, markup=False)
    console.print(f"{format_size(known)}, {_format_retention(known)}", markup=False)


@click.command()
@gallery_argument
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--older-than", type=duration, metavar="DURATION", help="Forget all that was seen longer ago, such as 30d."
)
def forget(gallery_file: Path, names: tuple[str, ...], older_than: float | None) -> None:
    """Delete people from GALLERY by NAME, or what was seen long ago. The file is written anew, without them."""
    if bool(names) == (older_than is not None):
        raise click.UsageError("name whom to forget, or pass --older-than; one of both")
    known = load_gallery(gallery_file)
    if older_than is not None:
        removed = known.forget_before(max(0.0, time.time() - older_than))
    else:
        absent = [name for name in names if name not in known]
        if absent:
            raise InputError(
                f"{absent[0]!r} is not in {gallery_file}, nobody was forgotten; 'hamr-edge gallery list' shows who is"
            )
        removed = sum(known.forget(name) for name in names if name in known)  # one name may come twice
    known.save(gallery_file)
    click.echo(f"{removed} embeddings deleted; {gallery_file} holds {format_size(known)}")


@click.command()
@gallery_argument
@click.argument("name")
@click.argument("new_name")
def rename(gallery_file: Path, name: str, new_name: str) -> None:
    """Give the person NAME of GALLERY the NEW_NAME, which nobody has."""
    known = load_gallery(gallery_file)
    known.rename(name, new_name)
    known.save(gallery_file)
    click.echo(f"{name!r} is {new_name!r} now; {gallery_file} holds {format_size(known)}")


@click.command()
@gallery_argument
@click.argument("kept_for", metavar="DURATION|none")
def retention(gallery_file: Path, kept_for: str) -> None:
    """Delete from GALLERY what was seen longer ago than DURATION, such as 30d, now and from now on; none keeps all."""
    try:
        seconds = None if kept_for == _NO_TIME else parse_duration(kept_for)
    except InputError as error:
        raise click.BadParameter(f"{error}; or {_NO_TIME}") from None
    known = load_gallery(gallery_file)
    set_retention(known, seconds)
    known.save(gallery_file)
    click.echo(f"{gallery_file} holds {format_size(known)}, {_format_retention(known)}")


def load_gallery(
    path: Path, sidecar: Sidecar | None = None, allow_mixed: bool = False, index: IndexKind = "exact"
) -> Gallery:
    """Open a gallery; what its retention time is over for goes from the file as well, where that can be written.

    Raises:
        InputError: As :meth:`Gallery.load`.
    """
    known = Gallery.load(path, sidecar, index, allow_mixed)
    if known.expired:
        click.echo(f"{known.expired} embeddings were older than the retention time and are deleted", err=True)
        try:
            known.save(path)
        except InputError as error:
            click.echo(f"warning: the file still holds them: {error}", err=True)
    return known


def set_retention(known: Gallery, seconds: float | None) -> None:
    """Set a retention time, and say what is deleted for it; from the file when it is saved."""
    before = {person.name: person.views for person in known.people()}
    known.retention_s = seconds
    after = {person.name: person.views for person in known.people()}
    lost = {name: views - after.get(name, 0) for name, views in before.items() if views > after.get(name, 0)}
    if seconds is not None and lost:
        click.echo(
            f"{sum(lost.values())} embeddings of {len(lost)} people were seen more than {format_duration(seconds)} ago "
            f"and are deleted; of {len(before) - len(after)} of these people nothing is left",
            err=True,
        )


def format_size(known: Gallery) -> str:
    """How much a gallery holds, in words."""
    return f"{len(known.people())} people, {len(known)} embeddings"


def _format_retention(known: Gallery) -> str:
    return "no retention time" if known.retention_s is None else f"kept for {format_duration(known.retention_s)}"
