from __future__ import annotations

import numpy as np
import pytest

from hamr_edge import Sidecar
from hamr_edge.embedding_space import EmbeddingSpace
from hamr_edge.errors import InputError
from hamr_edge.gallery import Gallery
from hamr_edge.identities import Identities
from hamr_edge.naming import Naming

DIM = 8


def unit(*values: float) -> np.ndarray:
    row = np.zeros(DIM, np.float32)
    row[: len(values)] = values
    return row / np.linalg.norm(row)


@pytest.fixture
def gallery() -> Gallery:
    known = Gallery(EmbeddingSpace.of(Sidecar("a" * 64, (32, 16), DIM, 8, "fp32", "b" * 64)))
    known.enrol("Ada", unit(1)[None])
    known.enrol("Bo", unit(0, 1)[None])
    return known


def test_known_people_have_names_and_the_rest_numbers(gallery: Gallery) -> None:
    naming = Naming(Identities(DIM), gallery, 0.8)
    people = naming.name(np.stack([unit(0, 0, 1), unit(1, 0.1), unit(0.1, 1)]))
    assert [person.label for person in people] == ["#1", "Ada", "Bo"]
    assert [person.is_known for person in people] == [False, True, True]
    assert people[1].similarity == pytest.approx(1 / np.sqrt(1.01), abs=1e-4)
    again = naming.name(np.stack([unit(1, 0.1), unit(0, 0, 1)]))
    assert [person.label for person in again] == ["Ada", "#1"]
    assert again[0].number == people[1].number


def test_one_name_is_given_once_in_a_frame_to_the_most_similar(gallery: Gallery) -> None:
    people = Naming(Identities(DIM), gallery, 0.5).name(np.stack([unit(1, 0, 0.5), unit(1, 0, 0.1)]))
    assert [person.label == "Ada" for person in people] == [False, True]


def test_below_the_threshold_and_after_forgetting_nobody_has_a_name(gallery: Gallery) -> None:
    naming = Naming(Identities(DIM), gallery, 0.99)
    assert naming.name(unit(1, 0.5)[None])[0].label == "#1"
    assert naming.name(unit(1)[None])[0].label == "Ada"
    gallery.forget("Ada")
    assert not naming.name(unit(1)[None])[0].is_known
    assert naming.name(np.empty((0, DIM), np.float32)) == []


def test_without_a_gallery_people_are_numbers() -> None:
    naming = Naming(Identities(DIM), None, 0.5)
    assert [person.label for person in naming.name(np.stack([unit(1), unit(0, 1)]))] == ["#1", "#2"]
    with pytest.raises(InputError, match=r"-1\.\.1"):
        Naming(Identities(DIM), None, 2.0)
