"""A loss that is not finite: what to tell about it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hamr_edge.errors import HamrEdgeError
from hamr_edge.trainer.checkpoint import DESCRIPTION, write_file
from hamr_edge.trainer.image_names import list_names

BAD_BATCH = "bad_batch.txt"


def refuse_loss(run: Path, epoch: int, step: int, losses: list[float], batch: list[str], before: list[str]) -> None:
    """Stop a run whose loss broke; ``bad_batch.txt`` in its folder names the images.

    Images are bytes and always finite, and batch normalisation spreads what breaks over the whole batch: so no image
    can be told apart from the others.

    Args:
        run: Folder of the run.
        epoch: In which the loss broke, from 1.
        step: Of the epoch, from 1.
        losses: Total, ID and metric loss.
        batch: Names of the step's images.
        before: Names of the images of the step before, whose gradients the weights have taken; none for the first.

    Raises:
        HamrEdgeError: Always.
    """
    listing = run / BAD_BATCH
    lines = [f"# epoch {epoch}, step {step}: its loss is not finite", *batch]
    if before:
        lines += ["# the step before, from whose gradients the weights come", *before]
    with contextlib.suppress(HamrEdgeError):  # the loss is the news, not a full disk
        write_file(listing, lambda path: path.write_text("\n".join(lines) + "\n", "utf-8"))
    kept = f"the last checkpoint in {run} is whole" if (run / DESCRIPTION).exists() else "nothing was saved"
    raise HamrEdgeError(
        f"the loss became {losses[0]} in epoch {epoch}, step {step} (ID loss {losses[1]}, metric loss {losses[2]}); "
        f"{kept}. The step's images are in {listing}: {list_names(batch)}. Most often the weights ran away: try a "
        "lower --learning-rate, or --amp off"
    )
