from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge.growing_array import GrowingArray


@given(count=st.integers(0, 40), data=st.data())
def test_what_is_removed_is_gone_and_overwritten_and_the_rest_is_there(count: int, data: st.DataObject) -> None:
    array = GrowingArray((2,), np.float32)
    rows = np.arange(1, 2 * count + 1, dtype=np.float32).reshape(-1, 2)
    array.append(rows)
    places = np.array(sorted(data.draw(st.sets(st.integers(0, max(0, count - 1)), max_size=count))), np.int64)
    left = count - len(places)
    kept = sorted(map(tuple, np.delete(rows, places, 0).tolist()))
    for _ in range(2):  # once more changes nothing
        array.remove(places, left)
        assert len(array) == left
        assert sorted(map(tuple, array.rows.tolist())) == kept
        assert not array._room[left:].any()
    array.append(rows)
    np.testing.assert_array_equal(array.rows[left:], rows)


def test_an_array_is_taken_over_and_not_copied() -> None:
    array, rows = GrowingArray((3,), np.float32), np.ones((4, 3), np.float32)
    array.adopt(rows)
    array.remove(np.array([0, 3]), 2)
    assert rows.tolist() == [[1] * 3] * 2 + [[0] * 3] * 2
    array.truncate(1)
    assert rows.tolist() == [[1] * 3] + [[0] * 3] * 3
    array.append(np.full((9, 3), 2, np.float32))
    assert not rows.any()  # it became too small
    assert len(array) == 10


@pytest.mark.parametrize("changed", [np.asfortranarray, lambda rows: rows.view()])
def test_an_array_of_another_order_serves_too(changed: object) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    array = GrowingArray((3,), np.float32)
    array.adopt(changed(rows))  # type: ignore[operator]
    np.testing.assert_array_equal(array.rows, np.arange(12).reshape(4, 3))
