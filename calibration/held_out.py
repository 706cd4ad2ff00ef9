"""People whom neither training nor calibration saw: what a quantised network is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hamr_edge.dataset import ReidDataset, read_crop
from hamr_edge.errors import InputError
from hamr_edge.onnx_session import open_session
from hamr_edge.preprocess import stack_crops
from hamr_edge.progress import stderr_console
from hamr_edge.ranking import RetrievalScores
from hamr_edge.scored_crops import ScoredCrops, choose_crops, score_crops

if TYPE_CHECKING:
    import onnx

_BATCH = 16


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Decoded crops of a data set's query and gallery, and how the float32 network does on them."""

    images: NDArray[np.uint8]
    """(N, H, W, 3) BGR, query first."""
    crops: ScoredCrops
    embeddings: NDArray[np.float32]
    """(N, D) of the float32 network."""
    scores: RetrievalScores
    """Of the float32 network."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a change of the network costs on held-out people."""

    rank1: float
    """0..1."""
    map: float
    """0..1."""
    rank1_drop: float
    """Percentage points below the float32 network; negative where it is better."""
    map_drop: float
    min_cosine: float
    """The least cosine of any crop to the float32 network."""
    p01_cosine: float
    """1st percentile."""
    mean_cosine: float


def load_held_out(
    model: onnx.ModelProto,
    dataset: ReidDataset,
    size_hw: tuple[int, int],
    max_crops: int | None,
    seed: int,
    quiet: bool = True,
) -> HeldOut:
    """Choose held-out people, decode their crops, and score the float32 network on them.

    Args:
        model: The float32 network.
        dataset: Its query and gallery are used.
        size_hw: The network's input size in pixels.
        max_crops: Whole identities in random order while they fit; all when None.
        seed: Fixes the order.
        quiet: No words on stderr.

    Raises:
        InputError: Nothing can be scored, or a crop cannot be read.
    """
    crops = choose_crops(dataset, max_crops, seed)
    stderr_console(quiet).print(f"embedding {len(crops)} crops of held-out people in float32")
    images = stack_crops([read_crop(path) for path in crops.paths], size_hw)
    embeddings = embed_model(model, images)
    return HeldOut(images, crops, embeddings, score_crops(embeddings, crops))


def embed_model(model: onnx.ModelProto, images: NDArray[np.uint8], fuse_quantised: bool = False) -> NDArray[np.float32]:
    """Embed crops with a model that was never written to a file.

    Args:
        model: Input ``images``, uint8 (N, H, W, 3); one output of (N, D).
        images: (N, H, W, 3) uint8 BGR.
        fuse_quantised: Let ONNX Runtime run its own integer kernels; else Q/DQ does what it says.

    Raises:
        InputError: ONNX Runtime cannot load the model.
    """
    session, _ = open_session(model.SerializeToString(), "cpu", fuse_quantised=fuse_quantised)
    name = session.get_inputs()[0].name
    starts = range(0, len(images), _BATCH)
    rows = [session.run(None, {name: images[start : start + _BATCH]})[0] for start in starts]
    return np.asarray(np.concatenate(rows), np.float32)


def measure_loss(embeddings: NDArray[np.float32], held_out: HeldOut) -> Loss:
    """Hold (N, D) unit rows of a changed network against the float32 network's.

    A row that is not finite counts as zeros: its cosine to anything is 0.

    Raises:
        InputError: There are other rows or values than the float32 network gives.
    """
    if embeddings.shape != held_out.embeddings.shape:
        raise InputError(
            f"embeddings have shape {embeddings.shape}, the float32 network gives {held_out.embeddings.shape}"
        )
    finite = np.all(np.isfinite(embeddings), axis=1, keepdims=True)
    rows = np.where(finite, embeddings, np.float32(0))
    cosines = np.einsum("nd,nd->n", rows, held_out.embeddings, dtype=np.float64)
    found, before = score_crops(rows, held_out.crops), held_out.scores
    return Loss(
        rank1=found.rank1,
        map=found.map,
        rank1_drop=100 * (before.rank1 - found.rank1),
        map_drop=100 * (before.map - found.map),
        min_cosine=float(cosines.min()),
        p01_cosine=float(np.percentile(cosines, 1)),
        mean_cosine=float(cosines.mean()),
    )
