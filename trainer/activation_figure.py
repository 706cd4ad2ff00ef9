"""Activation maps over the images that made them, the model's beside the baseline's (paper, figure 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.dataset import read_crop
from hamr_edge.trainer.figure_canvas import PALE_INK, drawing, figure_png, place, write_text

if TYPE_CHECKING:
    from matplotlib.cm import ScalarMappable

COLOUR_MAP = "inferno"
"""Perceptually even: jet has bright bands where the value has none, and no order for a colour-blind reader. This one
rises in lightness with the value."""
CELL_WIDTH, CELL_HEIGHT = 0.76, 1.52
"""Room for one picture, in inches."""
ROW_HEIGHT = 2.12
HEADING_HEIGHT = 0.2
_MARGIN, _GAP, _GROUP_GAP = 0.15, 0.05, 0.24
_SCALE_HEIGHT = 0.62
_LEAST_WIDTH = 4.2
"""Room for the scale and its label."""
_LEAST_COLOUR, _MOST_COLOUR = 0.15, 0.85
"""Share of the colour over the grey image where activation is lowest and highest: the person stays visible."""
_TOP_PERCENTILE, _LEAST_TOP = 99.5, 3.0
"""Where the scale ends: a percentile of all maps, but so far up that an even map does not look like a strong one."""


@dataclass(frozen=True, slots=True)
class MappedImage:
    """An image, the words below it, and its activation maps, each (h, w) float32 of mean 1, one a network."""

    path: Path
    words: str
    maps: tuple[NDArray[np.float32], ...]


def draw_activation(images: Sequence[MappedImage], names: Sequence[str], images_a_row: int) -> bytes:
    """Draw each image, and beside it the image under each network's map; one colour scale for all.

    The scale ends at the 99.5th percentile of all maps, at least at 3 times the mean. The image below a map is grey, so
    that colour means activation only.

    Args:
        images: At least one; each has as many maps as there are names.
        names: The networks, as the heading above their maps.
        images_a_row: Images from left to right.

    Returns:
        A PNG file's bytes.

    Raises:
        InputError: An image is missing or cannot be decoded.
        UnavailableError: Matplotlib is not installed.
    """
    cells = 1 + len(names)
    group_width = cells * (CELL_WIDTH + _GAP) - _GAP
    columns = min(images_a_row, len(images))
    width = 2 * _MARGIN + columns * (group_width + _GROUP_GAP) - _GROUP_GAP
    rows = -(-len(images) // columns)
    energies = np.concatenate([energy.ravel() for image in images for energy in image.maps])
    highest = max(float(np.percentile(energies, _TOP_PERCENTILE)), _LEAST_TOP)
    with drawing(max(width, _LEAST_WIDTH), _MARGIN + rows * ROW_HEIGHT + _SCALE_HEIGHT) as figure:
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        colours = ScalarMappable(Normalize(0.0, highest), colormaps[COLOUR_MAP])
        for number, image in enumerate(images):
            left = _MARGIN + number % columns * (group_width + _GROUP_GAP)
            top = _MARGIN + number // columns * ROW_HEIGHT
            pictures = _pictures(image, colours, highest)
            for cell, (drawn, name) in enumerate(zip(pictures, ("image", *names), strict=True)):
                cell_left = left + cell * (CELL_WIDTH + _GAP)
                write_text(figure, cell_left + CELL_WIDTH / 2, top, name, 7.5, PALE_INK, centred=True)
                axes = place(figure, cell_left, top + HEADING_HEIGHT, CELL_WIDTH, CELL_HEIGHT)
                axes.imshow(drawn, interpolation="bilinear", aspect="equal")
            write_text(figure, left, top + HEADING_HEIGHT + CELL_HEIGHT + 0.06, image.words, 7.5)
        scale = place(figure, _MARGIN, _MARGIN + rows * ROW_HEIGHT, _LEAST_WIDTH - 2 * _MARGIN, 0.13)
        bar = figure.colorbar(colours, cax=scale, orientation="horizontal", extend="max")
        bar.set_label("energy of the activations, in times the map's mean", size=8)
        return figure_png(figure)


def _pictures(image: MappedImage, colours: ScalarMappable, highest: float) -> list[NDArray[np.float64]]:
    """The image, then the image under each of its maps: (H, W, 3) RGB in 0..1."""
    picture = read_crop(image.path)[:, :, ::-1]
    height, width = picture.shape[:2]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[:, :, None].repeat(3, axis=2) / 255.0
    pictures = [picture / 255.0]
    for energy in image.maps:
        # Colours are chosen after the resize: those between two colours of the scale are others.
        large = cv2.resize(energy, (width, height), interpolation=cv2.INTER_LINEAR)
        strength = (large / highest).clip(0, 1)[:, :, None]
        share = _LEAST_COLOUR + (_MOST_COLOUR - _LEAST_COLOUR) * strength
        pictures.append(((1 - share) * grey + share * colours.to_rgba(large)[:, :, :3]).clip(0, 1))
    return pictures
