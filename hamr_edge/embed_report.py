"""What ``hamr-edge embed`` says at the end."""

from __future__ import annotations

from pathlib import Path

from hamr_edge.annotate import format_time
from hamr_edge.embed_source import EmbedSummary

_ENDINGS = {"source": "", "max_frames": " (as many as asked for)", "request": " (stopped on request)"}


def format_report(summary: EmbedSummary, facts: dict[str, str], files: list[Path]) -> str:
    """Lines for a person: what was read and found, the files with their sizes, and where the time went.

    Args:
        summary: The run.
        facts: What stands before, such as source and model.
        files: What was written.
    """
    frames = f"{summary.frames}, the last at {format_time(summary.last_time_s)}{_ENDINGS[summary.ending]}"
    lines = {**facts, "frames": frames, "embeddings": str(summary.people)}
    lines |= {"written" if row == 0 else "": f"{file} ({_size(file)})" for row, file in enumerate(files)}
    lines["speed"] = f"{summary.frames_per_s:.1f} frames/s, {summary.total_s:.1f} s in all"
    width = max(len(name) for name in lines)
    text = [f"{name:<{width}}  {value}" for name, value in lines.items()]
    return "\n".join([*text, *_stage_lines(summary)])


def _stage_lines(summary: EmbedSummary) -> list[str]:
    if not summary.frames:
        return []
    lines = ["", f"{'stage':<10}{'ms/frame':>10}{'share':>8}"]
    for name, seconds in summary.stage_seconds.items():
        lines.append(f"{name:<10}{1000 * seconds / summary.frames:>10.2f}{seconds / summary.total_s:>8.1%}")
    return lines


def _size(file: Path) -> str:
    size = file.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
