"""PK sampling: batches of P identities with K images each (Hermans et al., 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError


def epoch_batches(
    labels: NDArray[np.int64], ids_per_batch: int, images_per_id: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """The batches of one epoch: a function of its arguments alone, so a resumed run sees what an unbroken one saw.

    Every identity's images are shuffled and cut into groups of K (the last one filled up by repeats); groups go to the
    first batch that has room and not yet that identity. Batches that stay short are left out, so an epoch shows nearly
    every image once.

    Args:
        labels: (N,) identity of every image.
        ids_per_batch: P.
        images_per_id: K.
        seed: Of the run.
        epoch: From 1.

    Returns:
        Index arrays of P * K images each, an identity's images side by side; at least one.

    Raises:
        InputError: There are fewer than P identities.
    """
    identities = np.unique(labels)
    if len(identities) < ids_per_batch:
        remedy = (
            f"use --ids-per-batch {len(identities)} or less" if len(identities) > 1 else "training needs at least 2"
        )
        raise InputError(f"a batch needs {ids_per_batch} identities, the training set has {len(identities)}; {remedy}")
    random = np.random.default_rng([seed, epoch])
    groups: list[tuple[int, NDArray[np.int64]]] = []
    for identity in identities:
        images = random.permutation(np.flatnonzero(labels == identity))
        spare = -len(images) % images_per_id
        images = np.concatenate([images, random.choice(images, spare)])
        groups.extend((int(identity), group) for group in images.reshape(-1, images_per_id))
    batches: list[dict[int, NDArray[np.int64]]] = []
    for place in random.permutation(len(groups)):
        identity_, group = groups[place]
        for batch in batches:
            if len(batch) < ids_per_batch and identity_ not in batch:
                batch[identity_] = group
                break
        else:
            batches.append({identity_: group})
    whole = [np.concatenate(list(batch.values())) for batch in batches if len(batch) == ids_per_batch]
    return [whole[place] for place in random.permutation(len(whole))]
