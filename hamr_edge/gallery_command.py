"""The command ``hamr-edge gallery``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
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
from hamr_edge.gallery_input import check_name, check_time
from hamr_edge.image_file import IMAGE_SUFFIXES
from hamr_edge.progress import stdout_console
from hamr_edge.sidecar import Sidecar

_GALLERY = click.argument("gallery_file", metavar="GALLERY", type=click.Path(dir_okay=False, path_type=Path))
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _moment(text: str) -> float:
    """A Unix time, or a date with or without a time of day, in UTC where it does not say."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a Unix time nor like 2026-03-01 or 2026-03-01T08:30+01:00"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _duration(text: str) -> float:
    """Seconds, of a number with its unit."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)
    if found is None or float(found[1]) == 0:
        raise click.BadParameter(f"{text!r} is not like 12h or 30d; the units are s, m, h, d")
    return float(found[1]) * _SECONDS[found[2]]


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
    """Known people: enrol pictures by name, search, list, forget.

    GALLERY is an .npz file. It carries the stamp of the artifact that embedded, and refuses embeddings that cannot be
    compared.
    """


@gallery.command()
@_GALLERY
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@_model_options
@click.option("--name", help="Who is in the pictures. Without it, each IMAGES is a folder with a folder a person.")
@click.option("--camera", default="", help="Where they were seen.")
@click.option("--time", "time_s", type=_moment, metavar="TIME", help="When: Unix time or a date.  [default: now]")
@click.option("--replace", is_flag=True, help="Forget the person's earlier embeddings.")
@click.option(
    "--retention",
    type=_duration,
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
    retention: float | None,
    quiet: bool,
) -> None:
    """Add people to GALLERY, which is made if it is not there.

    IMAGES are pictures of one whole person each, as a detector crops them, or folders of such.
    """
    check_gallery_path(gallery_file)
    people = {name: _pictures(images)} if name is not None else _pictures_by_folder(images)
    for who in people:
        check_name(who, "a person's name")
    with open_backend(model, device, threads) as backend:
        known = _open(gallery_file, backend.sidecar, allow_mixed)
        if retention is not None:
            known.retention_s = retention
        check_time(time_s, known.retention_s)  # before minutes of embedding
        rows = embed_files(backend, [path for paths in people.values() for path in paths], quiet=quiet)
    start = 0
    for who, paths in people.items():
        known.enrol(who, rows[start : start + len(paths)], camera, time_s, replace)
        start += len(paths)
    known.save(gallery_file)
    click.echo(f"{len(people)} people, {start} embeddings enrolled; {gallery_file} holds {_size(known)}")


@gallery.command()
@_GALLERY
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@_model_options
@click.option("-k", "count", type=click.IntRange(1), default=5, show_default=True, help="People a picture.")
@click.option("--threshold", type=click.FloatRange(-1, 1), help="Least cosine to be shown.")
@click.option("--camera", "cameras", multiple=True, help="Only embeddings seen by this camera; may be repeated.")
@click.option("--since", type=_moment, metavar="TIME", help="Only embeddings seen then or later.")
@click.option("--until", type=_moment, metavar="TIME", help="Only embeddings seen before.")
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
) -> None:
    """Who is most like the person in each picture; IMAGES as for 'enrol'."""
    paths = _pictures(images)
    with open_backend(model, device, threads) as backend:
        known = _load(gallery_file, backend.sidecar, allow_mixed)
        rows = embed_files(backend, paths, quiet=len(paths) <= backend.sidecar.max_batch)
    found = known.search(rows, count, cameras or None, since, until)
    table = Table(box=SIMPLE_HEAD)
    for column in ("picture", "person", "cosine", "camera", "seen"):
        table.add_column(column, justify="right" if column == "cosine" else "left", overflow="fold")
    least = -1.0 if threshold is None else threshold
    for place, path in enumerate(paths):
        shown = [at for at in range(count) if found.names[place, at] and found.similarity[place, at] >= least]
        for at in shown:
            table.add_row(
                escape(str(path)) if at == 0 else "",
                escape(found.names[place, at]),
                f"{found.similarity[place, at]:.4f}",
                escape(found.cameras[place, at]),
                _date(found.times_s[place, at]),
            )
        if not shown:
            table.add_row(escape(str(path)), "nobody", "", "", "")
    stdout_console().print(table)


@gallery.command("list")
@_GALLERY
def list_people(gallery_file: Path) -> None:
    """Who is in GALLERY, and what made the embeddings."""
    known = _load(gallery_file)
    table = Table(box=SIMPLE_HEAD)
    for column in ("person", "views", "cameras", "first seen", "last seen"):
        table.add_column(column, justify="right" if column == "views" else "left", overflow="fold")
    for person in known.people():
        first, last = _date(person.first_time_s), _date(person.last_time_s)
        table.add_row(escape(person.name), str(person.views), escape(", ".join(person.cameras)), first, last)
    console = stdout_console()
    console.print(table)
    for space in known.spaces:
        console.print(space.name, markup=False)
    kept = "no retention time" if known.retention_s is None else f"kept for {known.retention_s / 86_400:g} days"
    console.print(f"{_size(known)}, {kept}", markup=False)


@gallery.command()
@_GALLERY
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--older-than", type=_duration, metavar="DURATION", help="Forget all that was seen longer ago, such as 30d."
)
def forget(gallery_file: Path, names: tuple[str, ...], older_than: float | None) -> None:
    """Delete people from GALLERY by NAME, or what was seen long ago. The file is written anew, without them."""
    if bool(names) == (older_than is not None):
        raise click.UsageError("name whom to forget, or pass --older-than; one of both")
    known = _load(gallery_file)
    if older_than is not None:
        removed = known.forget_before(max(0.0, datetime.now(timezone.utc).timestamp() - older_than))
    else:
        absent = [name for name in names if name not in known]
        if absent:
            raise InputError(
                f"{absent[0]!r} is not in {gallery_file}, nobody was forgotten; 'hamr-edge gallery list' shows who is"
            )
        removed = sum(known.forget(name) for name in dict.fromkeys(names))
    known.save(gallery_file)
    click.echo(f"{removed} embeddings deleted; {gallery_file} holds {_size(known)}")


def _open(path: Path, sidecar: Sidecar, allow_mixed: bool) -> Gallery:
    return _load(path, sidecar, allow_mixed) if path.exists() else Gallery(EmbeddingSpace.of(sidecar))


def _load(path: Path, sidecar: Sidecar | None = None, allow_mixed: bool = False) -> Gallery:
    """Open a gallery; what its retention time is over for goes from the file as well."""
    known = Gallery.load(path, sidecar, allow_mixed=allow_mixed)
    if known.expired:
        known.save(path)
        click.echo(f"{known.expired} embeddings were older than the retention time and are deleted", err=True)
    return known


def _pictures(named: Sequence[Path]) -> list[Path]:
    """Image files, and those of folders, in order."""
    found = []
    for path in named:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not inside:
            raise InputError(f"folder {path} must hold pictures ({', '.join(IMAGE_SUFFIXES)}), and holds none")
        found += inside
    return found


def _pictures_by_folder(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Pictures by person, of folders with a folder a person."""
    people: dict[str, list[Path]] = {}
    for folder in folders:
        own = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        if not own:
            raise InputError(f"{folder} must be a folder with a folder a person; or say who it is with --name")
        for person in own:
            people.setdefault(person.name, []).extend(_pictures([person]))
    return people


def _size(known: Gallery) -> str:
    return f"{len(known.people())} people, {len(known)} embeddings"


def _date(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
