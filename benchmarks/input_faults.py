"""Faults of a network's input: each is tried out with crops on which a faulty artifact and the reference agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from hamr_edge.sidecar import Sidecar

Batch = NDArray[np.uint8]
COLOURS, MIRRORED, UPSIDE_DOWN, LAYOUT = "red and blue swapped", "mirrored", "upside down", "wrong layout"
NORMALISED_TWICE, NOT_NORMALISED, SCALED_TWICE = "normalised twice", "not normalised", "scaled twice"
INPUT_FAULTS = (COLOURS, MIRRORED, UPSIDE_DOWN, LAYOUT, NORMALISED_TWICE, NOT_NORMALISED, SCALED_TWICE)


@dataclass(frozen=True, slots=True)
class InputFault:
    """A hypothesis: an artifact with this fault gives for one batch what the reference gives for the other."""

    fault: str
    words: str
    """What is wrong and what to do."""
    for_artifact: Callable[[Batch], Batch]
    for_reference: Callable[[Batch], Batch]
    shown: str
    """What the artifact, and what the reference is given, in words."""


def input_faults(sidecar: Sidecar) -> Iterator[InputFault]:
    """The faults that are tried.

    Both batches must be uint8. Where the fault's own effect on a crop is none, the crop is chosen so that both are: an
    artifact that normalises twice gets a crop whose first normalisation gives what the reference's crop is.

    Args:
        sidecar: The reference's, for its mean and deviation; ImageNet's where it states none.
    """
    mean, std = (np.array(values, np.float32) for values in (sidecar.mean, sidecar.std))
    if not mean.any():
        mean, std = (np.array(values[::-1], np.float32) for values in (IMAGENET_MEAN_RGB, IMAGENET_STD_RGB))

    def to_mean(batch: Batch) -> Batch:
        """What normalising makes ``batch / 255`` of; 0..255 becomes about 100..180."""
        return _rounded(std * batch + 255 * mean)

    def as_few(batch: Batch) -> Batch:
        """0, 1 and 2: so little that values 255 times as large are still a uint8."""
        return np.asarray(batch // 86, np.uint8)

    def few_to_mean(batch: Batch) -> Batch:
        """What normalising makes 0, 1 and 2 of."""
        return _rounded(255 * (std * as_few(batch) + mean))

    def light(batch: Batch) -> Batch:
        return np.asarray(batch // 128, np.uint8)

    yield InputFault(
        COLOURS,
        "red and blue are swapped: the graph takes RGB where BGR is promised; export again, or turn the channels round",
        lambda batch: batch[..., ::-1],
        _as_is,
        "crops with red and blue swapped",
    )
    yield InputFault(MIRRORED, "crops are mirrored inside", lambda batch: batch[:, :, ::-1], _as_is, "mirrored crops")
    yield InputFault(
        UPSIDE_DOWN, "crops stand on their heads inside", lambda batch: batch[:, ::-1], _as_is, "crops upside down"
    )
    yield InputFault(
        LAYOUT,
        "the layout is wrong: (N, H, W, 3) is read as (N, 3, H, W) without a transpose",
        _as_is,
        lambda batch: batch.reshape(len(batch), 3, *batch.shape[1:3]).transpose(0, 2, 3, 1),
        "crops as they are, the reference the same bytes read in planes",
    )
    yield InputFault(
        NORMALISED_TWICE,
        "the input is normalised twice: take one of the two subtractions of the mean out, and export again",
        to_mean,
        _as_is,
        "crops on which the first of two normalisations cancels",
    )
    yield InputFault(
        NORMALISED_TWICE,
        "the input is normalised twice, and scaled by 1/255 each time: take one of the two out, and export again",
        few_to_mean,
        as_few,
        "crops that the first of two normalisations turns into 0, 1 and 2",
    )
    yield InputFault(
        NOT_NORMALISED,
        "the input is not normalised: mean and deviation are missing behind the division by 255",
        _as_is,
        to_mean,
        "crops as they are, the reference what they would have to be",
    )
    yield InputFault(
        NOT_NORMALISED,
        "the input is not normalised at all: 0..255 goes in where the network expects values about 0",
        as_few,
        few_to_mean,
        "crops of 0, 1 and 2, the reference those that normalise to 0, 1 and 2",
    )
    yield InputFault(
        SCALED_TWICE,
        "pixels are divided by 255 twice: to the network every crop is almost black; take one division out",
        lambda batch: np.asarray(255 * light(batch), np.uint8),
        light,
        "crops of black and white, the reference the same 255 times as dark",
    )


def _as_is(batch: Batch) -> Batch:
    return batch


def _rounded(values: NDArray[np.float32]) -> Batch:
    return np.asarray(values.round().clip(0, 255), np.uint8)
