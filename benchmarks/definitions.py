"""What each figure of a report means, in short."""

DEFINITIONS = (
    ("cosine", "Of a crop's embedding to the reference's embedding of the same crop; 1 is the same direction."),
    ("1st pct.", "The cosine at or below which 1 % of the crops lie."),
    (
        "top-1 same, overlap at 10",
        "Share of crops whose nearest other crop is the same in both models; mean share of the 10 nearest in common.",
    ),
    ("in a batch", "Least cosine of a crop embedded in company to the same crop embedded alone."),
    (
        "rank-k",
        "Share of queries with a right gallery crop among the k nearest. Crops of the query's own person and camera "
        "do not count.",
    ),
    ("mAP", "Mean over queries of the average precision of the ranked gallery (Zheng and others, 2015)."),
    ("mINP", "Mean over queries of right crops divided by the rank of the last of them (Ye and others, 2021)."),
    (
        "change",
        "The model's less the reference's, in percentage points; 95 % interval by paired bootstrap over queries.",
    ),
    ("d'", "Difference of the mean cosines of same and different people, over their root mean square deviation."),
    ("threshold", "The cosine at and above which two crops count as one person, at a fixed rate of false accepts."),
    ("p50, p95, p99", "Milliseconds that half, 95 % and 99 % of the runs did not exceed."),
    (
        "x speed",
        "The reference's time over this model's in the same round; all run once a round, in random order, so that a "
        "machine that drifts drifts for all. Median, with its 95 % interval.",
    ),
    ("ready batch", "From uint8 crops in host memory to float32 embeddings there: upload, compute and download."),
    ("end to end", "From a frame and its boxes to embeddings: cropping and resizing included."),
    ("upload, compute, download", "As trtexec's H2D latency, GPU compute time and D2H latency; 0 on a CPU."),
    ("first embedding", "In a fresh process, without the interpreter's own start; the file is in the system's cache."),
)
"""Name and meaning."""
