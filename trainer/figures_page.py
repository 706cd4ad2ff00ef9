"""One self-contained HTML page of figures and tables: images inside, nothing loaded from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1a1a1a; --pale: #5a5a5a; --line: #d5d5d5; --card: #f5f5f3; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17181a; --ink: #ececec; --pale: #a9a9a9; --line: #3a3c40; --card: #212327; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
p, figcaption, caption { max-width: 48rem; }
.pale, figcaption { color: var(--pale); }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption { font-size: .92rem; margin-top: .6rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--pale); padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: break-word; }
th { font-weight: 600; }
tr.marked td, tr.marked th { background: var(--card); font-weight: 600; }
summary { cursor: pointer; font-weight: 600; margin: 1.5rem 0 .5rem; }
a { color: inherit; }
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --pale: #333; --line: #bbb; --card: #eee; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { break-after: avoid; margin-top: 1.2rem; }
  figure, figcaption, tr { break-inside: avoid; }
  figure img { max-height: 19cm; width: auto; border-radius: 0; }
}
"""
_SCALE = 0.68
"""CSS pixels a pixel of a PNG: letters of one size in all figures, about as high as the page's, and sharp in print."""


@dataclass(frozen=True, slots=True)
class PageFigure:
    """A picture on the page."""

    heading: str
    png: bytes
    alt: str
    """What the picture shows, for those who do not see it."""
    caption: str


@dataclass(frozen=True, slots=True)
class PageTable:
    """A table on the page; the first cell of a row names it."""

    heading: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()
    """Rows to stand out."""
    folded: bool = False
    """Shown when the heading is clicked."""


def build_page(title: str, introduction: Sequence[str], contents: Sequence[PageFigure | PageTable]) -> str:
    """The page's HTML: light or dark as the reader's system is, fit for print, no script, no link outward.

    Args:
        title: Of the page.
        introduction: Paragraphs below the title.
        contents: Figures and tables, from top to bottom.
    """
    paragraphs = "\n".join(f"<p>{escape(text)}</p>" for text in introduction)
    sections = "\n".join(_figure(part) if isinstance(part, PageFigure) else _table(part) for part in contents)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{paragraphs}
{sections}
</body>
</html>
"""


def _figure(figure: PageFigure) -> str:
    width, height = (int(_SCALE * int.from_bytes(figure.png[place : place + 4], "big")) for place in (16, 20))
    data = base64.b64encode(figure.png).decode("ascii")
    return f"""<section>
<h2>{escape(figure.heading)}</h2>
<figure>
<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{escape(figure.alt)}">
<figcaption>{escape(figure.caption)}</figcaption>
</figure>
</section>"""


def _table(table: PageTable) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    lines = []
    for number, (name, *cells) in enumerate(table.rows):
        mark = ' class="marked"' if number in table.marked else ""
        values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr{mark}><th scope="row">{escape(name)}</th>{values}</tr>')
    body = f"""<div class="table"><table>
<caption>{escape(table.caption)}</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{chr(10).join(lines)}
</tbody>
</table></div>"""
    if table.folded:
        return f"<details>\n<summary>{escape(table.heading)}</summary>\n{body}\n</details>"
    return f"<section>\n<h2>{escape(table.heading)}</h2>\n{body}\n</section>"
