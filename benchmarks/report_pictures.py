"""The crops that a model changed most, as pictures with their neighbours before and after."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Sequence
from html import escape
from pathlib import Path

import cv2

from hamr_edge.benchmarks.report_text import printable
from hamr_edge.benchmarks.results import ArtifactResult
from hamr_edge.benchmarks.worst_crops import Neighbour, WorstCrop
from hamr_edge.dataset import read_crop
from hamr_edge.errors import HamrEdgeError

_HEIGHT, _WIDTH, _QUALITY = 112, 84, 80
"""Pixels of a picture at most: enough to tell people apart, small enough for a page of hundreds."""
_NOTHING_MOVED = 0.9999
_SHOWN = 6


def pictures_section(result: ArtifactResult, folder: Path) -> str:
    """HTML of a model's worst crops; empty where there are none.

    Args:
        result: The model.
        folder: Of the data set; a picture that is not there leaves a gap with its name.
    """
    if not result.worst_crops:
        return ""
    name = printable(result.name)
    moved = [worst for worst in result.worst_crops if worst.cosine < _NOTHING_MOVED][:_SHOWN]
    if not moved:
        least = min(worst.cosine for worst in result.worst_crops)
        return f"<h3>{escape(name)}</h3>\n<p>Nothing to show: the crop that moved most has a cosine of {least:.6f}.</p>"
    rows = "\n".join(_worst(worst, folder) for worst in moved)
    return f"<h3>{escape(name)}</h3>\n{rows}"


def _worst(worst: WorstCrop, folder: Path) -> str:
    name = printable(worst.crop)
    before = {neighbour.crop for neighbour in worst.before}
    same = [neighbour.crop for neighbour in worst.before] == [neighbour.crop for neighbour in worst.after]
    says = "the same neighbours in the same order" if same else _exchanged(worst)
    return f"""<div class="worst">
<figure class="asked">{_picture(worst.crop, folder, f"crop {name}")}
<figcaption>cosine {worst.cosine:.4f}<br><span class="file">{escape(name)}</span></figcaption></figure>
<div><p class="row">before: by the reference</p>
<div class="strip">{"".join(_neighbours(worst.before, folder, "before", before))}</div></div>
<div><p class="row">after: {escape(says)}</p>
<div class="strip">{"".join(_neighbours(worst.after, folder, "after", before))}</div></div>
</div>"""


def _exchanged(worst: WorstCrop) -> str:
    new = {neighbour.crop for neighbour in worst.after} - {neighbour.crop for neighbour in worst.before}
    return f"{len(new)} of {len(worst.after)} are new" if new else "the same neighbours in another order"


def _neighbours(neighbours: Sequence[Neighbour], folder: Path, when: str, before: Collection[str]) -> Iterator[str]:
    for place, neighbour in enumerate(neighbours, 1):
        who = "same person" if neighbour.same_person else "another person"
        new = neighbour.crop not in before
        kind, mark = ("right", "✓") if neighbour.same_person else ("wrong", "✗")
        said = f"{when}, neighbour {place}: {who}, cosine {neighbour.cosine:.3f}, {printable(neighbour.crop)}"
        badge = '<span class="new">new</span>' if new else ""
        yield (
            f'<figure class="{kind}">{_picture(neighbour.crop, folder, said)}{badge}'
            f'<figcaption><span aria-hidden="true">{mark}</span> {neighbour.cosine:.3f}</figcaption></figure>'
        )


def _picture(crop: str, folder: Path, alt: str) -> str:
    data = _jpeg(folder / crop)
    if data is None:
        return f'<span class="gap" role="img" aria-label="{escape(alt)}; no picture">no picture</span>'
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(alt)}">'


def _jpeg(path: Path) -> str | None:
    """A small JPEG in base64; None where there is no image."""
    try:
        image = read_crop(path)
    except (HamrEdgeError, OSError, ValueError):
        return None
    scale = min(_HEIGHT / image.shape[0], _WIDTH / image.shape[1], 1.0)
    size = (max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0])))
    _, data = cv2.imencode(
        ".jpg", cv2.resize(image, size, interpolation=cv2.INTER_AREA), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return base64.b64encode(data.tobytes()).decode("ascii")
