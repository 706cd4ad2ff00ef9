"""What the figures' page says: titles, captions, texts for those who do not see the pictures, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hamr_edge.dataset import LabelledCrops
from hamr_edge.ranked_list import RankedList
from hamr_edge.trainer.activation_maps import MapSource
from hamr_edge.trainer.figure_queries import ChosenQuery
from hamr_edge.trainer.figures_page import PageTable
from hamr_edge.trainer.network import NetworkConfig
from hamr_edge.trainer.retrieval_figure import RetrievalRow
from hamr_edge.trainer.scored_model import LoadedModel, Rankings

PAPER = "Hybrid-attention guided network with multiple resolution features for person re-identification"


def percent(share: float) -> str:
    """A share in 0..1 as text that stays on one line."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def retrieval_title(name: str, chosen: ChosenQuery, ranked: RankedList, baseline: RankedList | None = None) -> str:
    """The words above a query's row."""
    if not ranked.is_scored:
        return f"{name} ({chosen.reason}): no right image in the gallery; not scored"
    against = f" (baseline {percent(baseline.average_precision)})" if baseline is not None else ""
    first = "rank 1 right" if ranked.first_right == 1 else f"rank 1 wrong, first right at {ranked.first_right}"
    images = f"{ranked.right_count} right image{'s' if ranked.right_count > 1 else ''}"
    left_out = f"; {ranked.left_out} of the same camera left out" if ranked.left_out else ""
    return f"{name} ({chosen.reason}): {first}; AP {percent(ranked.average_precision)}{against}, {images}{left_out}"


def retrieval_alt(rows: Sequence[RetrievalRow]) -> str:
    """The rows in words: each one's title, and at which ranks its matches are right."""
    sentences = []
    for row in rows:
        right = [str(rank) for rank, is_right in enumerate(row.ranked.right.tolist(), 1) if is_right]
        sentences.append(
            f"Query {row.title}. Of the {len(row.ranked.right)} matches shown, "
            f"{'those at rank ' + ', '.join(right) + ' are' if right else 'none is'} right."
        )
    return " ".join(sentences)


def retrieval_caption(named: bool, seed: int) -> str:
    """What a retrieval figure shows, and how its queries were chosen."""
    choice = (
        "The queries were named by file."
        if named
        else f"Queries marked random were drawn with seed {seed}; those marked low AP are among the worst, one of each "
        "identity as far as there are others."
    )
    return (
        "Each row: a query, without a frame, and its best matches in the gallery, by cosine. Solid green frame and "
        "tick: the query's identity; dashed red frame and cross: another. Gallery images of the query's identity from "
        "its own camera, and junk, are left out. Below each picture: rank, identity, camera (c), cosine. AP: the "
        f"query's average precision over the whole gallery. {choice} After figure 7 of “{PAPER}”."
    )


def describe_map(source: MapSource, config: NetworkConfig) -> str:
    """Which feature map an activation map was made of."""
    if source == "fused":
        return f"stages {', '.join(map(str, config.stages))} fused, as the heads get them"
    where = "before attention" if source == "backbone" else "as the heads get it"
    return f"stage {config.stages[-1]}, {where}"


def activation_caption(source: MapSource, models: Sequence[LoadedModel]) -> str:
    """What an activation figure shows."""
    sources = "; ".join(f"{model.name}: {describe_map(source, model.network.config)}" for model in models)
    return (
        "Each group: an image, then its activation map under each network, over the image in grey. Shown are each "
        "chosen query and, beside it, its best-ranked right match from another camera. Colour: the squares of the "
        "activations summed over channels, divided by the map's own mean, so that 1 is the average and all maps share "
        f"one scale; dark to bright is low to high. {sources}. After figure 8 of “{PAPER}”."
    )


CMC_CAPTION = (
    "Cumulative match characteristic: the share of queries whose first right match is at that rank or better, over "
    "every scored query of the data set."
)
CURVES_CAPTION = (
    "What the training log holds, against the epoch. Scores have a mark at each epoch at which the model was "
    "evaluated; where training evaluates plain images and the table above mirrors them, the two differ."
)


def scores_table(models: Sequence[LoadedModel], rankings: Sequence[Rankings]) -> PageTable:
    """Each model's retrieval scores, measured now."""
    found = [ranking.scores for ranking in rankings]
    rows = [
        [model.name, *(percent(share) for share in (s.rank1, s.rank5, s.rank10, s.map, s.minp))]
        for model, s in zip(models, found, strict=True)
    ]
    caption = f"Measured for this page: {found[0].queries} queries, {found[0].gallery} gallery images; no re-ranking."
    return PageTable("Scores", caption, ["", "rank-1", "rank-5", "rank-10", "mAP", "mINP"], rows)


def settings_table(models: Sequence[LoadedModel]) -> PageTable:
    """Each model's settings; rows that differ are marked."""
    columns = [_settings(model) for model in models]
    names = list(dict.fromkeys(name for settings in columns for name in settings))
    rows = [[name, *(settings.get(name, "") for settings in columns)] for name in names]
    marked = frozenset(number for number, (_, *cells) in enumerate(rows) if len(set(cells)) > 1)
    caption = "From each checkpoint's description." + (" Marked: where the two differ." if len(models) > 1 else "")
    return PageTable("Settings", caption, ["", *(model.name for model in models)], rows, marked)


def _settings(model: LoadedModel) -> dict[str, str]:
    info, config = model.info, model.info.config.to_json()
    facts: dict[str, Any] = {
        "trained on": info.dataset,
        "identities": info.classes,
        "epochs trained": info.epoch,
        "first weights": Path(info.pretrained).name or "random",
        "embedding": f"{info.config.network.embedding_dim} values",
        **config.pop("network"),
        **config,
    }
    return {name.replace("_", " "): _setting(value) for name, value in facts.items()}


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " x ".join(map(str, value)) if len(value) == 2 else ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def ranking_table(rows: Sequence[RetrievalRow], query: LabelledCrops, gallery: LabelledCrops) -> PageTable:
    """The retrieval figure's pictures as a list of files."""
    lines = []
    for row in rows:
        ranked = row.ranked
        for rank, (place, similarity, right) in enumerate(
            zip(ranked.gallery.tolist(), ranked.similarity, ranked.right, strict=True), 1
        ):
            labels = [str(gallery.identities[place]), str(gallery.cameras[place]), f"{similarity:.4f}"]
            verdict = "right" if right else "wrong"
            lines.append([query.paths[row.query].name, str(rank), verdict, gallery.paths[place].name, *labels])
    columns = ["query", "rank", "", "gallery file", "identity", "camera", "cosine"]
    return PageTable("The rankings as a list", "The pictures of the first figure.", columns, lines, folded=True)
