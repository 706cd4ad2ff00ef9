from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hamr_edge.batch_buckets import batch_buckets, bucket_of


@given(st.integers(1, 1024))
def test_every_batch_has_a_bucket_that_adds_less_than_itself(max_batch: int) -> None:
    buckets = batch_buckets(max_batch)
    assert buckets[0] == 1
    assert buckets[-1] == max_batch
    assert list(buckets) == sorted(set(buckets))
    for rows in range(1, max_batch + 1):
        bucket = bucket_of(rows, buckets)
        assert rows <= bucket <= max_batch
        assert bucket < 2 * rows
        if rows > 8:
            assert bucket < 1.5 * rows + 1


def test_the_usual_maximum_has_eight_buckets() -> None:
    assert batch_buckets(32) == (1, 2, 4, 8, 12, 16, 24, 32)
    assert batch_buckets(1) == (1,)
    assert batch_buckets(3) == (1, 2, 3)
    assert batch_buckets(20) == (1, 2, 4, 8, 12, 16, 20)
