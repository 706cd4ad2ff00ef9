"""Who is who in a frame: names from a gallery, numbers for everybody else."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError
from hamr_edge.followed_gallery import FollowedGallery
from hamr_edge.gallery import Gallery
from hamr_edge.identities import Identities


@dataclass(frozen=True, slots=True)
class Named:
    """One person of a frame."""

    label: str
    """The gallery's name, or ``#12``."""
    number: int
    """Gives the colour; the same for one label every time."""
    is_known: bool
    """Whether the label is a name of the gallery."""
    similarity: float
    """Cosine with the gallery's nearest view of that name; 0 without a gallery's name."""


class Naming:
    """Gives the people of a frame labels that no two of them share.

    Args:
        identities: Numbers people who have no name, across cameras.
        gallery: Known people; nobody has a name without one. Others may enrol and forget meanwhile.
        threshold: Least cosine for a name, -1..1.

    Raises:
        InputError: ``threshold`` makes no sense.
    """

    def __init__(self, identities: Identities, gallery: Gallery | FollowedGallery | None, threshold: float) -> None:
        if not -1 <= threshold <= 1:
            raise InputError(f"threshold is a cosine in -1..1, got {threshold:g}")
        self._identities, self._gallery, self._threshold = identities, gallery, threshold

    def name(self, embeddings: NDArray[np.float32]) -> list[Named]:
        """Label the people of one frame: (N, D) float32 rows of unit norm, in order.

        Of two who are nearest to one name, the more similar gets it.
        """
        numbers = self._identities.assign(embeddings)
        people = [Named(f"#{number}", int(number), False, 0.0) for number in numbers]
        if self._gallery is None or not len(embeddings):
            return people
        matches = self._gallery.search(embeddings, k=1)
        names, similarity = matches.names[:, 0], matches.similarity[:, 0]
        taken = set()
        for row in np.argsort(-similarity, kind="stable").tolist():
            name = str(names[row])
            if name and similarity[row] >= self._threshold and name not in taken:
                taken.add(name)
                people[row] = Named(name, zlib.crc32(name.encode()) % 1000, True, float(similarity[row]))
        return people
