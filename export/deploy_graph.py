"""The network as it is shipped: preprocessing in front, batch normalisation folded, unit rows at the end."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hamr_edge.errors import InputError
from hamr_edge.export.compact import Projection
from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from hamr_edge.trainer.network import Hamr

_SMALLEST_NORM = 1e-12


class DeployNetwork(nn.Module):
    """uint8 (N, H, W, 3) BGR crops to (N, D) float32 embeddings of unit norm.

    Folding is done in float64. The swap to RGB is folded into the first convolution, whose input channels change
    places; mean and deviation stay outside it, because its zero padding must stay ImageNet's mean.

    Args:
        network: A trained network; it is copied, not changed.
        projection: Makes the embeddings compact. It is folded into the last layer, which becomes one dense product of
            all parts, (N, P * reduced_dim) @ (P * reduced_dim, d); with d = ``part_dim`` it has as many weights as the
            part-wise one.

    Raises:
        InputError: The projection is of another embedding's width.
    """

    def __init__(self, network: Hamr, projection: Projection | None = None) -> None:
        super().__init__()
        network = deepcopy(network).cpu().double().eval()
        self.embedding_dim = network.config.embedding_dim if projection is None else projection.dim
        fold_convolutions(network.backbone)
        first = network.backbone.conv1
        first.weight = nn.Parameter(first.weight.flip(1))
        heads = network.heads
        reduce, reduce_bias = _fold_product(heads.reduce, heads.reduce_bn)
        project, project_bias = _fold_product(heads.project, heads.project_bn)
        if projection is not None:
            project, project_bias = _fold_projection(project, project_bias, projection)
        self.network = network.float()
        self.mean: Tensor
        self.inverse_std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN_RGB[::-1]) * 255)
        self.register_buffer("inverse_std", 1 / (torch.tensor(IMAGENET_STD_RGB[::-1]) * 255))
        self.reduce = nn.Parameter(reduce.float())
        self.reduce_bias = nn.Parameter(reduce_bias.float())
        self.project = nn.Parameter(project.float())
        self.project_bias = nn.Parameter(project_bias.float())

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) BGR to (N, embedding_dim) float32."""
        normalised = (images.float() - self.mean) * self.inverse_std
        pooled = self.network.pool(normalised.permute(0, 3, 1, 2))
        reduced = F.relu(torch.matmul(pooled, self.reduce) + self.reduce_bias)
        if self.project.ndim == 2:
            joined = reduced.transpose(0, 1).reshape(-1, self.project.shape[0])
            embedding = torch.matmul(joined, self.project) + self.project_bias
        else:
            parts = torch.matmul(reduced, self.project) + self.project_bias
            embedding = parts.transpose(0, 1).reshape(-1, self.embedding_dim)
        norm = torch.linalg.vector_norm(embedding, dim=1, keepdim=True)
        unit: Tensor = embedding / norm.clamp_min(_SMALLEST_NORM)
        return unit


def fold_convolutions(module: nn.Module) -> None:
    """Fold, in place, every batch normalisation that follows a convolution among a module's children, at any depth."""
    previous: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and previous is not None:
            setattr(module, previous[0], fuse_conv_bn_eval(previous[1], child))
            setattr(module, name, nn.Identity())
        previous = (name, child) if isinstance(child, nn.Conv2d) else None
        fold_convolutions(child)


def _fold_product(weight: Tensor, bn: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Fold the batch normalisation behind a part-wise product (P, in, out): weight of that shape, bias (P, 1, out)."""
    parts, _, width = weight.shape
    if bn.running_mean is None or bn.running_var is None:
        raise TypeError("batch normalisation without running statistics cannot be folded")
    scale = (bn.weight / torch.sqrt(bn.running_var + bn.eps)).detach()
    bias = bn.bias.detach() - bn.running_mean * scale
    return weight.detach() * scale.reshape(parts, 1, width), bias.reshape(parts, 1, width)


def _fold_projection(project: Tensor, bias: Tensor, projection: Projection) -> tuple[Tensor, Tensor]:
    """Fold a projection (D, d) behind a part-wise product (P, in, out), D = P * out: weight (P * in, d), bias (d)."""
    parts, reduced_dim, part_dim = project.shape
    if len(projection.mean) != parts * part_dim:
        raise InputError(
            f"the projection takes embeddings of {len(projection.mean)} values, the network gives {parts * part_dim}; "
            "learn it with this network"
        )
    matrix = torch.tensor(projection.matrix)
    weight = torch.bmm(project, matrix.reshape(parts, part_dim, projection.dim))
    centred = bias.flatten() - torch.tensor(projection.mean)
    return weight.reshape(parts * reduced_dim, projection.dim), centred @ matrix
