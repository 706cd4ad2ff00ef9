"""The paper's text, written out part by part, slowly: what the vectorised network must equal.

Only the ResNet is the package's: pooling, attention, windows, heads and losses are spelled out anew.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamr_edge.trainer.network import Hamr


class ReferencePart(nn.Module):
    """Section 3.4 for one part: two pools, 1x1 convolution, BN, ReLU, FC, BN, FC."""

    def __init__(self, channels: int, reduced: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, reduced, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(reduced)
        self.fc = nn.Linear(reduced, width, bias=False)
        self.bn2 = nn.BatchNorm1d(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pooled = torch.cat([F.adaptive_max_pool2d(window, 1), F.adaptive_avg_pool2d(window, 1)], dim=1)
        descriptor = F.relu(self.bn1(self.conv(pooled))).flatten(1)
        triplet = self.fc(descriptor)
        embedding = self.bn2(triplet)
        return triplet, embedding, self.classifier(embedding)


class ReferenceHamr(nn.Module):
    """The whole network with one module a part, its weights copied from a vectorised one."""

    def __init__(self, network: Hamr) -> None:
        super().__init__()
        self.source = network
        self.stripes = network.config.stripes
        heads = network.heads
        parts, doubled, reduced = heads.reduce.shape
        width, classes = heads.classify.shape[1:]
        self.parts = nn.ModuleList(ReferencePart(doubled // 2, reduced, width, classes) for _ in range(parts))
        self.parts.to(heads.reduce.dtype)  # before copying: float32 would round
        with torch.no_grad():
            for index, part in enumerate(self.parts):
                part.conv.weight.copy_(heads.reduce[index].t()[:, :, None, None])
                part.fc.weight.copy_(heads.project[index].t())
                part.classifier.weight.copy_(heads.classify[index].t())
                part.classifier.bias.copy_(heads.classify_bias[index, 0])
                for bn, joined, size in ((part.bn1, heads.reduce_bn, reduced), (part.bn2, heads.project_bn, width)):
                    rows = slice(index * size, (index + 1) * size)
                    for name in ("weight", "bias", "running_mean", "running_var"):
                        getattr(bn, name).copy_(getattr(joined, name)[rows])

    def fused(self, images: Tensor) -> Tensor:
        backbone = self.source.backbone
        x = backbone.maxpool(F.relu(backbone.bn1(backbone.conv1(images))))
        stage1 = backbone.layer1(x)
        stage2 = backbone.layer2(stage1)
        stage3 = backbone.layer3(stage2)
        stage4 = backbone.layer4(stage3)
        aligned = [F.max_pool2d(stage1, 4, 4), F.max_pool2d(stage2, 2, 2), stage3, stage4]
        attended = []
        for features, attention in zip(aligned, self.source.spatial, strict=True):
            mean = torch.mean(features, dim=1, keepdim=True)
            maximum = torch.max(features, dim=1, keepdim=True).values
            weight = attention.conv.weight
            map_ = torch.sigmoid(F.conv2d(torch.cat([mean, maximum], 1), weight, padding=weight.shape[2] // 2))
            attended.append(features * map_)  # equation 1
        features = torch.cat(attended, dim=1)
        first, _, second = self.source.channel.mlp
        pools = F.adaptive_avg_pool2d(features, 1).flatten(1) + F.adaptive_max_pool2d(features, 1).flatten(1)
        hidden = F.relu(F.linear(pools, first.weight, first.bias))
        gates = torch.sigmoid(F.linear(hidden, second.weight, second.bias))
        return features * gates[:, :, None, None]  # equation 2

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        features = self.fused(images)
        stripe = features.shape[2] // self.stripes
        outputs = []
        part = iter(self.parts)
        for level in range(1, self.stripes + 1):  # equation 3: level p holds p windows of K - p + 1 stripes
            size = self.stripes - level + 1
            for first in range(level):
                outputs.append(next(part)(features[:, :, first * stripe : (first + size) * stripe]))
        triplets, embeddings, logits = zip(*outputs, strict=True)
        return list(triplets), list(embeddings), list(logits)


def reference_loss(
    triplets: list[Tensor], logits: list[Tensor], labels: Tensor, stripes: int, margin: float, smoothing: float
) -> Tensor:
    """Equation 4: the mean of the N ID losses and the mean of the M triplet losses, image by image."""
    identity = []
    for part in logits:
        log_probability = torch.log_softmax(part, dim=1)
        classes = part.shape[1]
        target = torch.full_like(part, smoothing / classes)
        target[torch.arange(len(labels)), labels] += 1 - smoothing
        identity.append(-(target * log_probability).sum(1).mean())
    triplet = []
    place = 0
    for level in range(1, stripes + 1):
        features = torch.cat(triplets[place : place + level], dim=1)
        place += level
        hinges = []
        for anchor in range(len(labels)):
            distances = [torch.linalg.vector_norm(features[anchor] - other) for other in features]
            positives = [d for i, d in enumerate(distances) if labels[i] == labels[anchor] and i != anchor]
            negatives = [d for i, d in enumerate(distances) if labels[i] != labels[anchor]]
            hinges.append(torch.relu(torch.stack(positives).max() - torch.stack(negatives).min() + margin))
        triplet.append(torch.stack(hinges).mean())
    return torch.stack(identity).mean() + torch.stack(triplet).mean()
