"""hamr-edge: person re-identification from training to the camera. The runtime needs NumPy and OpenCV only."""

from hamr_edge.backend import Backend, open_backend
from hamr_edge.embedder import Embedder
from hamr_edge.errors import ArtifactError, GateError, HamrEdgeError, InputError, OverloadError, UnavailableError
from hamr_edge.gallery import Gallery
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.sidecar import Sidecar

__version__ = "0.1.0"
__all__ = [
    "ArtifactError",
    "Backend",
    "Embedder",
    "EmbeddingService",
    "Gallery",
    "GateError",
    "HamrEdgeError",
    "InputError",
    "OverloadError",
    "Sidecar",
    "UnavailableError",
    "__version__",
    "open_backend",
]
