"""The paper's ablations as settings: what each row of tables 6 to 10 changes, and what the paper reached with it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hamr_edge.trainer.config import TrainConfig

Scores = tuple[float, float]
"""Rank-1 and mAP in percent, as the paper prints them."""
MARKET, DUKE = "Market-1501", "DukeMTMC-reID"
_DUKE_TO_MARKET, _MARKET_TO_DUKE = "Duke to Market", "Market to Duke"


@dataclass(frozen=True, slots=True)
class AblationRow:
    """One run of a table."""

    name: str
    """As the paper calls it."""
    network: dict[str, Any] = field(default_factory=dict)
    """Changed fields of the network's settings."""
    training: dict[str, Any] = field(default_factory=dict)
    """Changed fields of the run's settings."""
    paper: dict[str, Scores] = field(default_factory=dict)
    """The paper's scores, by data set; empty where it has none."""

    def settings(self, base: TrainConfig) -> TrainConfig:
        """The row's settings: those of the whole method with the row's changes."""
        return replace(base, network=replace(base.network, **self.network), **self.training)


# The baseline is a ResNet with its own stride in the last stage ("the cancellation of the last spatial down-sample" is
# what makes the paper's method slower than it), one map, one part and mean pooling. The paper does not say with which
# row of table 6 the stride and the fusion of four stages come in: here with the stripes, which need the larger map, and
# with spatial attention, which works on each stage before the concatenation.
_PLAIN: dict[str, Any] = {"stages": (4,), "attention": "cat", "stripes": 1, "pooling": "avg", "last_stride": 2}
_NO_TRICKS: dict[str, Any] = {"erase": 0.0, "label_smoothing": 0.0, "warmup_epochs": 0}


def _plain_but(*given_back: str, **changes: Any) -> dict[str, Any]:
    return {**{name: value for name, value in _PLAIN.items() if name not in given_back}, **changes}


def _extra(name: str, **training: Any) -> AblationRow:
    return AblationRow(name, {}, {"drop_block": 0.0, **training})


_SIX: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("Baseline", _PLAIN, _NO_TRICKS),
    ("+ Bag of Tricks", _PLAIN, {}),
    ("+ MPFE", _plain_but("pooling"), {}),
    ("+ MGO", _plain_but("pooling", "stripes", "last_stride"), {}),
    ("+ SAM", {"attention": "s+cat"}, {}),
    ("+ CAM", {}, {}),
)
_SIX_SCORES: tuple[dict[str, Scores], ...] = (
    {MARKET: (88.1, 71.1), DUKE: (79.2, 63.7)},
    {MARKET: (92.3, 81.9), DUKE: (85.1, 69.5)},
    {MARKET: (93.4, 83.4), DUKE: (86.6, 73.5)},
    {MARKET: (94.7, 86.5), DUKE: (88.6, 77.9)},
    {MARKET: (95.3, 87.2), DUKE: (89.2, 78.1)},
    {MARKET: (95.7, 87.7), DUKE: (90.2, 80.2)},
)
_EIGHT_SCORES: tuple[dict[str, Scores], ...] = (
    {_DUKE_TO_MARKET: (33.43, 12.65), _MARKET_TO_DUKE: (19.61, 9.19)},
    {_DUKE_TO_MARKET: (41.21, 17.13), _MARKET_TO_DUKE: (30.48, 15.95)},
    {_DUKE_TO_MARKET: (42.31, 18.90), _MARKET_TO_DUKE: (34.07, 18.22)},
    {_DUKE_TO_MARKET: (51.15, 24.68), _MARKET_TO_DUKE: (39.86, 23.01)},
    {_DUKE_TO_MARKET: (51.98, 25.16), _MARKET_TO_DUKE: (40.79, 23.96)},
    {_DUKE_TO_MARKET: (54.33, 26.43), _MARKET_TO_DUKE: (42.52, 25.37)},
)
# Table 9's first rows use "the feature map of Stage 4 only".
_STAGE_4 = (4,)

TABLES: dict[str, tuple[AblationRow, ...]] = {
    "6": tuple(AblationRow(*row, paper) for row, paper in zip(_SIX, _SIX_SCORES, strict=True)),
    "7": (
        AblationRow("Baseline", _PLAIN, _NO_TRICKS, {DUKE: (79.2, 63.7)}),
        AblationRow("Baseline, Tricks", _PLAIN, {}, {DUKE: (85.1, 69.5)}),
        AblationRow("Baseline, MGO", _plain_but("stripes"), _NO_TRICKS, {DUKE: (84.9, 69.5)}),
        AblationRow("Baseline, MPFE", _plain_but("pooling"), _NO_TRICKS, {DUKE: (83.6, 71.2)}),
        AblationRow("Baseline, SAM", _plain_but(attention="s+cat"), _NO_TRICKS, {DUKE: (84.3, 72.3)}),
        AblationRow("Baseline, CAM", _plain_but(attention="cat+c"), _NO_TRICKS, {DUKE: (85.1, 72.8)}),
        AblationRow("all", {}, {}, {DUKE: (90.2, 80.2)}),
        AblationRow("all, PCB for MGO", {"partition": "pcb"}, {}, {DUKE: (88.7, 79.5)}),
    ),
    "8": tuple(AblationRow(*row, paper) for row, paper in zip(_SIX, _EIGHT_SCORES, strict=True)),
    "9": (
        AblationRow("Baseline BMM", {"attention": "cat", "stages": _STAGE_4}, {}, {MARKET: (94.7, 86.5)}),
        AblationRow("+ S", {"attention": "s+cat", "stages": _STAGE_4}, {}, {MARKET: (94.9, 86.6)}),
        AblationRow("+ C", {"attention": "cat+c", "stages": _STAGE_4}, {}, {MARKET: (95.1, 86.9)}),
        AblationRow("+ cat + C + S", {"attention": "cat+c+s"}, {}, {MARKET: (94.8, 86.7)}),
        AblationRow("+ C + S + cat", {"attention": "c+s+cat"}, {}, {MARKET: (95.3, 86.2)}),
        AblationRow("+ C + cat + S", {"attention": "c+cat+s"}, {}, {MARKET: (95.3, 87.2)}),
        AblationRow("+ cat + S + C", {"attention": "cat+s+c"}, {}, {MARKET: (95.0, 86.9)}),
        AblationRow("+ S + C + cat", {"attention": "s+c+cat"}, {}, {MARKET: (95.5, 87.2)}),
        AblationRow("+ S + cat + C", {"attention": "s+cat+c"}, {}, {MARKET: (95.7, 87.7)}),
    ),
    "10": (
        AblationRow("stage 1", {"stages": (1,)}, {}, {MARKET: (84.80, 63.67), DUKE: (74.69, 55.67)}),
        AblationRow("stage 2", {"stages": (2,)}, {}, {MARKET: (90.62, 76.02), DUKE: (82.50, 67.56)}),
        AblationRow("stage 3", {"stages": (3,)}, {}, {MARKET: (93.89, 83.43), DUKE: (87.93, 75.36)}),
        AblationRow("stage 4", {"stages": (4,)}, {}, {MARKET: (93.72, 86.05), DUKE: (88.63, 77.47)}),
        AblationRow("stage 1-2", {"stages": (1, 2)}, {}, {MARKET: (90.80, 76.06), DUKE: (82.23, 68.00)}),
        AblationRow("stage 1-3", {"stages": (1, 2, 3)}, {}, {MARKET: (94.42, 85.85), DUKE: (88.33, 76.09)}),
        AblationRow("stage 2-4", {"stages": (2, 3, 4)}, {}, {MARKET: (95.24, 86.93), DUKE: (88.78, 78.01)}),
        AblationRow("all stages", {}, {}, {MARKET: (95.65, 87.67), DUKE: (90.17, 80.16)}),
    ),
    "stripes": tuple(AblationRow(f"{count} stripes", {"stripes": count}) for count in (1, 2, 3, 4, 6)),
    "stride": tuple(AblationRow(f"stride {stride}", {"last_stride": stride}) for stride in (2, 1)),
    "extras": (
        _extra("nothing added"),
        _extra("batch drop-block 0.5", drop_block=0.5),
        _extra("EMA 0.99", ema=0.99),
        _extra("soft-margin triplet", metric_loss="soft-triplet"),
        AblationRow("GeM", {"pooling": "gem"}, {"drop_block": 0.0}),
        _extra("colour jitter 0.2", color_jitter=0.2),
        _extra("step schedule", schedule="step"),
    ),
}
"""By the paper's number; ``stripes`` and ``stride`` vary what it fixes, ``extras`` what the field adds to it."""
