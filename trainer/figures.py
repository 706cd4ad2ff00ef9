"""The figures of a trained model: rankings, activation maps, curves, and the page that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hamr_edge import __version__
from hamr_edge.atomic import check_target, make_folder, replace_file
from hamr_edge.errors import InputError
from hamr_edge.evaluation import can_be_scored
from hamr_edge.labelled_crops import LabelledCrops, ReidDataset, without_junk
from hamr_edge.trainer.activation_figure import MappedImage, draw_activation
from hamr_edge.trainer.activation_maps import MapSource, activation_maps
from hamr_edge.trainer.curves_figure import draw_cmc, draw_curves, drawn_panels
from hamr_edge.trainer.figure_canvas import check_matplotlib
from hamr_edge.trainer.figure_queries import ChosenQuery, draw_queries, find_queries
from hamr_edge.trainer.figure_words import (
    CMC_CAPTION,
    CURVES_CAPTION,
    activation_caption,
    percent,
    ranking_table,
    retrieval_alt,
    retrieval_caption,
    retrieval_title,
    scores_table,
    settings_table,
)
from hamr_edge.trainer.figures_page import PageFigure, build_page
from hamr_edge.trainer.retrieval_figure import RetrievalRow, draw_retrieval
from hamr_edge.trainer.scored_model import LoadedModel, Rankings, load_model, rank_model
from hamr_edge.trainer.torch_backend import choose_device

RETRIEVAL, ACTIVATION, CMC, CURVES, PAGE = "retrieval.png", "activation.png", "cmc.png", "curves.png", "index.html"
MOST_QUERIES = 40
"""Rows of a figure: more make a picture too tall for common viewers."""
_CMC_RANKS = 20
_IMAGES_A_ROW = {1: 6, 2: 4}
"""By the number of networks, so that the figure is about as wide as the others; even, for a query and its match."""


@dataclass(frozen=True, slots=True)
class FiguresConfig:
    """What the figures show, and where the networks run."""

    queries: int = 6
    """Queries to draw where none are named: two in three at random, one in three among the worst."""
    names: tuple[str, ...] = ()
    """Queries by file name, in place of drawn ones."""
    top: int = 10
    """Matches of each query."""
    source: MapSource = "attended"
    """The feature map behind the activation maps; see :func:`activation_maps`."""
    mirror: bool = False
    """Add the embedding of each crop's mirror image."""
    seed: int = 0
    """Of the random queries."""
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, least, most in (("queries", 1, MOST_QUERIES), ("top", 1, 50), ("seed", 0, 2**32 - 1)):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} must be in {least}..{most}, got {getattr(self, name)}")
        if len(self.names) > MOST_QUERIES:
            raise InputError(f"at most {MOST_QUERIES} queries fit a figure, got {len(self.names)}")


@dataclass(frozen=True, slots=True)
class Figures:
    """What was made."""

    files: list[Path]
    models: list[LoadedModel]
    rankings: list[Rankings]


def make_figures(
    checkpoint: Path,
    dataset: ReidDataset,
    output: Path,
    baseline: Path | None = None,
    config: FiguresConfig | None = None,
    quiet: bool = False,
) -> Figures:
    """Draw all figures of a checkpoint, beside a baseline's where one is given, and write them with their page.

    Files are written at the end, each whole: an error before leaves the folder as it was.

    Args:
        checkpoint: Checkpoint folder; its ``log.csv`` gives the curves.
        dataset: Its query split and gallery are ranked.
        output: Folder for the PNG files and ``index.html``; made if it is not there.
        baseline: Another checkpoint folder, of any network.
        config: What to show; the defaults where None.
        quiet: No progress.

    Returns:
        The files, the models and their rankings, the model first. Without any log, ``curves.png`` is not among the
        files, and one of an earlier call is deleted.

    Raises:
        InputError: A checkpoint, the data set, a named query or the folder is not what is expected.
        UnavailableError: Matplotlib or the device asked for is not there.
    """
    config = config or FiguresConfig()
    check_matplotlib()
    device = choose_device(config.device)
    dataset = replace(dataset, gallery=without_junk(dataset.gallery))
    query, gallery = dataset.query, dataset.gallery
    named = find_queries(query, config.names)
    if not can_be_scored(query, gallery):
        raise InputError(f"no query of {dataset.name} has a gallery image of its identity from another camera")
    given = (("model", checkpoint), ("baseline", baseline))
    models = [load_model(role, folder) for role, folder in given if folder is not None]
    make_folder(output, "output folder")
    for name in (RETRIEVAL, ACTIVATION, CMC, CURVES, PAGE):
        check_target(output / name, "figure")
    curves = _draw_curves(models)  # first: a log without values shows before the long work

    ranks = max(config.top, _CMC_RANKS)
    rankings = [rank_model(model, dataset, ranks, device, config.mirror, quiet) for model in models]
    chosen = named or draw_queries(query, rankings[0].lists, config.queries, config.seed)
    rows = _retrieval_rows(chosen, rankings, query, config.top)
    pictures = {
        RETRIEVAL: PageFigure(
            "Best matches",
            draw_retrieval(rows, query, gallery),
            retrieval_alt(rows),
            retrieval_caption(bool(named), config.seed),
        ),
        ACTIVATION: _draw_activation(models, rows, query, gallery, config.source),
        CMC: _draw_cmc(models, rankings),
    }
    if curves is not None:
        pictures[CURVES] = curves
    page = build_page(
        f"Figures of {checkpoint.resolve().name} on {dataset.name}",
        _introduction(models, dataset, config.mirror),
        [
            scores_table(models, rankings),
            *pictures.values(),
            settings_table(models),
            ranking_table(rows, query, gallery),
        ],
    )
    files = [_write(output / name, picture.png) for name, picture in pictures.items()]
    if curves is None:  # the page does not show it: an old one would pass for this model's
        (output / CURVES).unlink(missing_ok=True)
    return Figures([_write(output / PAGE, page.encode("utf-8")), *files], models, rankings)


def _write(path: Path, content: bytes) -> Path:
    replace_file(path, lambda temporary: temporary.write_bytes(content))
    return path


def _introduction(models: Sequence[LoadedModel], dataset: ReidDataset, mirror: bool) -> list[str]:
    crops = "each crop averaged with its mirror image" if mirror else "crops as they are"
    paragraphs = [f"{dataset.name}, {crops}; hamr-edge {__version__}."]
    return paragraphs + [
        f"{model.folder.resolve().name} has no training log, so there are no curves of the {model.role}."
        for model in models
        if model.log is None
    ]


def _retrieval_rows(
    chosen: Sequence[ChosenQuery], rankings: Sequence[Rankings], query: LabelledCrops, top: int
) -> list[RetrievalRow]:
    rows = []
    for picked in chosen:
        ranked, *others = (found.lists[picked.row] for found in rankings)
        title = retrieval_title(query.paths[picked.row].name, picked, ranked, *others)
        rows.append(RetrievalRow(picked.row, ranked.best(top), title))
    return rows


def _draw_activation(
    models: Sequence[LoadedModel],
    rows: Sequence[RetrievalRow],
    query: LabelledCrops,
    gallery: LabelledCrops,
    source: MapSource,
) -> PageFigure:
    """Each chosen query's maps and those of its best right match, which another camera saw."""
    paths, words = [], []
    for row in rows:
        paths.append(query.paths[row.query])
        words.append(f"query: id {query.identities[row.query]}, c{query.cameras[row.query]}")
        if row.ranked.is_scored:
            match = row.ranked.first_right_row
            paths.append(gallery.paths[match])
            words.append(f"rank {row.ranked.first_right}: id {gallery.identities[match]}, c{gallery.cameras[match]}")
    maps = [activation_maps(model.network, paths, source) for model in models]
    images = [MappedImage(*image) for image in zip(paths, words, zip(*maps, strict=True), strict=True)]
    png = draw_activation(images, [model.role for model in models], _IMAGES_A_ROW[len(models)])
    alt = f"{len(images)} images, each beside its activation map: {'; '.join(words)}."
    return PageFigure("Activation maps", png, alt, activation_caption(source, models))


def _draw_curves(models: Sequence[LoadedModel]) -> PageFigure | None:
    """The curves of those models that have a log."""
    logs = {model.name: model.log for model in models if model.log is not None}
    if not logs:
        return None
    titles = ", ".join(panel.title for panel in drawn_panels(logs))
    alt = f"Curves against the epoch: {titles}."
    return PageFigure("Training curves", draw_curves(logs), alt, CURVES_CAPTION)


def _draw_cmc(models: Sequence[LoadedModel], rankings: Sequence[Rankings]) -> PageFigure:
    curves = {model.name: found.cmc for model, found in zip(models, rankings, strict=True)}
    alt = "; ".join(
        f"{name}: {percent(curve[0])} at rank 1, {percent(curve[-1])} at rank {len(curve)}"
        for name, curve in curves.items()
    )
    return PageFigure("Cumulative match characteristic", draw_cmc(curves), f"{alt}.", CMC_CAPTION)
