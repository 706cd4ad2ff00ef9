"""Arrays for the tests of shared memory: real numpy arrays of any layout, and embeddings that lie on the host."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hamr_edge.device_embeddings import DeviceEmbeddings
from hamr_edge.dlpack import CPU

DTYPES = [np.dtype(name) for name in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")]


class Watched(np.ndarray):
    """A numpy array that a weak reference may watch."""


@st.composite
def any_layout(draw: st.DrawFn) -> np.ndarray:
    """A writable array, or a view of one: with steps, backwards, transposed, with dimensions of 1 or none at all."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    dtype = draw(st.sampled_from(DTYPES))
    array = np.arange(int(np.prod(shape))).astype(dtype).reshape(shape)
    if array.ndim and draw(st.booleans()):
        array = array[draw(hnp.basic_indices(shape, allow_ellipsis=False))]
    return np.asarray(array.transpose(draw(st.permutations(range(array.ndim)))))


@dataclass
class HostEmbeddings:
    """Embeddings whose "device" is the host's memory, so that numpy and PyTorch on the CPU really read them."""

    rows: np.ndarray
    kind: int = CPU
    freed: list[str] = field(default_factory=list)

    def hand_out(self) -> DeviceEmbeddings:
        """New embeddings; ``freed`` gets an entry each time that they are given back."""
        shape = (self.rows.shape[0], self.rows.shape[1])
        address = self.rows.ctypes.data
        return DeviceEmbeddings(address, shape, 0, lambda: self.freed.append("freed"), self.rows.copy, self.kind)


def host_embeddings(rows: int = 3, width: int = 4, kind: int = CPU) -> HostEmbeddings:
    """(rows, width) float32 of noise."""
    return HostEmbeddings(np.random.default_rng(0).standard_normal((rows, width), np.float32), kind)
