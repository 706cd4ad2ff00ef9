"""Compact embeddings: a PCA-whitening of the embedding, learned on training crops, that folds into the last layer.

A camera keeps and compares 512 values a person instead of 10,752, and the network does no more work than before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.calibration.crops import choose_calibration_crops
from hamr_edge.dataset import ReidDataset
from hamr_edge.errors import InputError
from hamr_edge.export.raw_embeddings import embed_raw_files
from hamr_edge.sidecar import Sidecar
from hamr_edge.trainer.network import Hamr

WHITENING = 0.5
"""Default share of whitening: of 0, 0.25, 0.5, 0.75 and 1 the best mAP at 256 values and more on Market-1501-mini."""
MAX_CROPS = 4096
"""Training crops that a projection is learned on at most."""
_ROWS = 512
"""Rows that are widened to float64 at a time."""
_SMALLEST_NORM = 1e-12
_SMALLEST_VARIANCE = 1e-10
"""Relative to the largest: below it a direction is rounding, and whitening would blow it up."""


@dataclass(frozen=True, slots=True)
class Projection:
    """An affine map of un-normalised embeddings, D values to d; unit rows of its result are compact embeddings."""

    mean: NDArray[np.float64]
    """(D,) of the training crops' embeddings."""
    matrix: NDArray[np.float64]
    """(D, d): principal directions, that of most variance first, each times ``variance ** (-whitening / 2)``."""
    variances: NDArray[np.float64]
    """(d,) of the training crops along the directions, falling."""
    total_variance: float
    """Of the training crops along all D directions."""
    whitening: float
    """0: plain PCA; 1: the training crops' results have unit variance in every direction."""
    crops: int
    """Training crops that it was learned on."""

    @property
    def dim(self) -> int:
        """Values of a compact embedding."""
        return len(self.variances)

    @property
    def variance_share(self) -> float:
        """Share, 0..1, of the training crops' variance that lies in the directions kept."""
        return float(self.variances.sum() / self.total_variance)

    def first(self, dim: int) -> Projection:
        """The projection to the first ``dim`` directions: the same as learning it with that dimension.

        Raises:
            InputError: ``dim`` is not in 1..``self.dim``.
        """
        if not 1 <= dim <= self.dim:
            raise InputError(f"embedding dimension must be in 1..{self.dim}, got {dim}")
        return replace(self, matrix=self.matrix[:, :dim], variances=self.variances[:dim])

    def project(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """Un-normalised embeddings (N, D) to (N, d), not normalised either; computed in float64."""
        blocks = [embeddings[start : start + _ROWS] for start in range(0, len(embeddings), _ROWS)]
        return np.concatenate([np.empty((0, self.dim)), *((block - self.mean) @ self.matrix for block in blocks)])

    def apply(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Un-normalised embeddings (N, D) to compact ones, (N, d) float32 with rows of unit norm."""
        return unit_rows(self.project(embeddings))

    def to_json(self) -> dict[str, Any]:
        """How it was made, and a hash in place of its numbers: for the sidecar."""
        numbers = hashlib.sha256(self.mean.astype("<f4").tobytes() + self.matrix.astype("<f4").tobytes())
        return {
            "sha256": numbers.hexdigest(),
            "source_dim": len(self.mean),
            "crops": self.crops,
            "variance_share": round(self.variance_share, 6),
            "whitening": self.whitening,
        }


def learn_projection(
    embeddings: NDArray[np.float32], dim: int, whitening: float = WHITENING, most: int | None = None
) -> Projection:
    """Principal component analysis with whitening (Jegou and Chum, ECCV 2012), whitened in part.

    Full whitening gives directions of little variance, which are mostly noise, as much say as the first ones; none
    lets a few directions drown the others. The eigenvalues are of the smaller of the two Gram matrices, in float64,
    and each direction's entry of greatest magnitude is positive: the same embeddings give the same projection.

    Args:
        embeddings: (N, D) of training crops, not normalised.
        dim: d, values to keep.
        whitening: In 0..1; see :class:`Projection`.
        most: Keep more values than ``dim``, up to so many, as far as the crops span them; for a report, from whose
            projection :meth:`Projection.first` takes the ``dim`` ones.

    Raises:
        InputError: ``dim`` is more than the crops span (at most N - 1, and D), a value is not finite, or a setting is
            out of range.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise InputError(f"a projection is learned on (N, D) embeddings of at least 2 crops, got {embeddings.shape}")
    if not 0 <= whitening <= 1:
        raise InputError(f"whitening must be in 0..1, got {whitening}")
    count, width = embeddings.shape
    _check_dim(dim, count, width)
    centred = embeddings.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(centred).all(axis=1))
    if len(wrong):
        raise InputError(f"embedding {wrong[0]} of the training crops (and {len(wrong) - 1} more) is not finite")
    mean = centred.mean(axis=0)
    centred -= mean
    # Each direction's sum of squares, rising, by the smaller of the two products.
    squares, vectors = np.linalg.eigh(centred @ centred.T if count <= width else centred.T @ centred)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    spanned = int(np.count_nonzero(squares > _SMALLEST_VARIANCE * squares[0])) if squares[0] > 0 else 0
    if dim > spanned:
        raise InputError(
            f"the {count} training crops differ in {spanned} directions only, got embedding dimension {dim}; take "
            "fewer values, or a data set with more training crops"
        )
    kept = max(dim, min(most or dim, spanned))
    vectors = vectors[:, :kept]
    if count <= width:
        vectors = centred.T @ vectors
    vectors /= np.linalg.norm(vectors, axis=0)
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)])
    variances = squares[:kept] / (count - 1)
    total = float(np.einsum("nd,nd->", centred, centred)) / (count - 1)
    return Projection(mean, vectors * variances ** (-whitening / 2), variances, total, whitening, count)


def _check_dim(dim: int, count: int, width: int) -> None:
    most = max(0, min(count - 1, width))
    if not 1 <= dim <= most:
        raise InputError(
            f"embedding dimension must be in 1..{most} for {count} training crops and {width} values of the network "
            f"(PCA finds at most one direction fewer than there are crops), got {dim}"
        )


def learn_from_dataset(
    network: Hamr,
    dataset: ReidDataset | None,
    dim: int,
    seed: int = 0,
    max_crops: int = MAX_CROPS,
    whitening: float = WHITENING,
    most: int | None = None,
    quiet: bool = True,
) -> Projection:
    """Learn a projection on a data set's training crops, balanced over identities and cameras.

    Args:
        network: The trained network, on any device.
        dataset: Only its training split is used.
        dim: Values of a compact embedding.
        seed: Chooses the crops where there are more than ``max_crops``.
        max_crops: Crops to learn on at most.
        whitening: See :func:`learn_projection`.
        most: See :func:`learn_projection`.
        quiet: No progress bar.

    Raises:
        InputError: There is no data set, it has too few training crops, or a crop cannot be read.
    """
    if dataset is None:
        raise InputError("--embedding-dim needs --data: the projection is learned on a data set's training crops")
    available = min(len(dataset.train), max_crops)
    _check_dim(dim, available, network.config.embedding_dim)  # before minutes of embedding
    paths = choose_calibration_crops(dataset, available, seed).paths
    return learn_projection(embed_raw_files(network, paths, quiet, "training crops"), dim, whitening, most)


def describe_compact(sidecar: Sidecar, projection: Projection, dataset: str, seed: int) -> Sidecar:
    """The sidecar of an artifact whose embeddings a projection made compact.

    Args:
        sidecar: The checkpoint's.
        projection: What was folded in.
        dataset: Name of the data set that it was learned on.
        seed: Of the choice of crops.
    """
    compact = {**projection.to_json(), "dataset": dataset, "seed": seed}
    return replace(sidecar, embedding_dim=projection.dim, compact=compact)


def unit_rows(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Rows of unit L2 norm, float32; a row of zeros stays."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, _SMALLEST_NORM), np.float32)
