"""The report as Markdown and as a page, also where names are hostile."""

from __future__ import annotations

import base64
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamr_edge.benchmarks.diagnosis import Cause
from hamr_edge.benchmarks.html_report import build_html, check_html_possible
from hamr_edge.benchmarks.markdown_report import markdown_table, to_markdown
from hamr_edge.benchmarks.report_figures import draw_throughput
from hamr_edge.benchmarks.results import BenchReport
from hamr_edge.benchmarks.sensitivity import BlockSensitivity
from hamr_edge.errors import UnavailableError
from tests.made_reports import CROPS, GALLERY, made_report, made_result, made_worst_crops

REPORT = made_report()
_VOID = {"meta", "img", "br"}
_HOSTILE_NAMES = (
    *("a|b", "<script>alert(1)</script>", '"><img src=x>', "$\\frac{", "_hidden", "NAME001", "行人 😀", "x" * 400),
    *("a\nb", "\x1b[31m", "]]>", "&lt;", "\udc80", "`" * 4, "-->", "</svg>", "", "#010101", "url(#a"),
)
_HOSTILE = st.one_of(st.text(max_size=30), st.sampled_from(_HOSTILE_NAMES))


class _Page(HTMLParser):
    """Notes unbalanced tags, and gathers attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.faults: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self.stack]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.faults.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attrs.get(attribute) or "" for name, attrs in self.tags if name == tag]


def hostile_report(name: str, other: str) -> BenchReport:
    """A small report whose every word is given."""
    result = made_result(
        name,
        1.3,
        lost=0.01,
        distance=1e-3,
        artifact=other,
        batches=(1, 8),
        failures=(other,),
        causes=(Cause(name, other),),
        notes=(name,),
        worst_crops=made_worst_crops((name,), (other, *GALLERY)),
        sensitivity=(BlockSensitivity(name, False, 0.99, -0.001),),
        backend=other,
        precision=name,
    )
    return made_report(
        results=(result,),
        reference=replace(REPORT.reference, name=other, artifact=name, backend=name),
        notes=(name,),
        environment={name: other, "libraries": {other: name}},
        config={"budgets": [name], "beside": [other]},
        data={"name": name, "folder": other, "images": 9, "queries": 3, "gallery": 6},
    )


def markdown_cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1


@settings(max_examples=15, deadline=None)
@given(_HOSTILE, _HOSTILE)
def test_no_name_breaks_the_page(name: str, other: str) -> None:
    text = build_html(hostile_report(name, other), dataset_folder="nowhere")
    text.encode("utf-8")
    page = _Page(text)
    assert page.faults == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "base", "form", "object"})
    assert page.values("img", "src") == []
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)


@given(_HOSTILE, _HOSTILE)
def test_no_name_breaks_a_markdown_table(name: str, other: str) -> None:
    text = to_markdown(hostile_report(name, other))
    text.encode("utf-8")
    columns = 0
    for line in text.splitlines():
        if line.startswith("|"):
            columns = columns or markdown_cells(line)
            assert markdown_cells(line) == columns, line
        else:
            columns = 0
    outside = [line for line in text.splitlines() if not line.startswith("hamr-edge bench")]  # its block is code
    assert not any("<script" in line.replace("\\<", "") for line in outside)


def test_markdown_says_verdicts_first_and_tables_after() -> None:
    text = to_markdown(REPORT)
    assert text.index("✅ pass: **model.fp32.onnx**") < text.index("### ")
    assert "❌ fail: **model.bgr.onnx**" in text
    assert "  - **colour order**: red and blue are swapped" in text
    assert "- beside: **osnet\\_x1\\_0.onnx**" in text
    assert "hamr-edge bench build/model.fp32.onnx" in text
    assert "| cpu | AMD EPYC |" in text


def test_markdown_table_puts_figures_right() -> None:
    assert markdown_table(["a", "b", "c"], [["x|y", "1", "z"]], {"c"}).splitlines() == [
        "| a | b | c |",
        "| --- | ---: | --- |",
        "| x\\|y | 1 | z |",
    ]


def test_page_is_well_formed_and_loads_nothing() -> None:
    page = _Page(build_html(REPORT))
    assert page.faults == []
    assert page.values("meta", "content")[-1].startswith("default-src 'none'")
    assert all(src.startswith("data:image/jpeg;base64,") for src in page.values("img", "src"))
    assert not [link for _, attrs in page.tags for link in (attrs.get("href"),) if link and not link.startswith("#")]
    assert "url(http" not in build_html(REPORT)


def test_ids_are_unique_and_every_reference_has_its_id() -> None:
    text = build_html(REPORT)
    page = _Page(text)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", text))
    assert used
    assert used <= set(ids)


def test_equal_reports_give_equal_pages() -> None:
    assert build_html(REPORT) == build_html(made_report())


def test_plots_follow_the_pages_colours_and_hold_text() -> None:
    figure = draw_throughput(REPORT, end_to_end=True)
    assert figure is not None
    assert "model.int8-cpu.onnx" in figure.svg
    assert set(re.findall(r"#[0-9a-f]{6}\b", figure.svg)) == set()
    assert {f"var(--m{number})" for number in range(7)} <= set(re.findall(r"var\(--\w+\)", figure.svg))


def test_every_part_has_what_a_screen_reader_needs() -> None:
    page = _Page(build_html(REPORT))
    assert all(attrs.get("aria-label") for tag, attrs in page.tags if tag == "svg")
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")
    assert all(attrs.get("scope") in ("row", "col") for tag, attrs in page.tags if tag == "th")


def test_one_batch_size_needs_no_line() -> None:
    report = made_report(results=(made_result("a.onnx", 1.2, batches=(8,)),))
    reference = replace(REPORT.reference, latency=REPORT.reference.latency[1:2], end_to_end=())
    assert draw_throughput(replace(report, reference=reference), end_to_end=False) is None


def test_many_models_and_bare_ones_can_be_drawn() -> None:
    bare = made_result("bare", 1.0, batches=(), distance=None, stages=None, cold_start=None)
    many = tuple(made_result(f"model {number}", 1 + 0.1 * number) for number in range(20))
    assert _Page(build_html(made_report(results=(*many, bare)))).faults == []
    reference = replace(REPORT.reference, latency=(), end_to_end=())
    assert "<h2>Plots</h2>" not in build_html(made_report(results=(bare,), reference=reference))


@pytest.fixture
def crops_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in (*CROPS, *GALLERY[:-1]):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(file), rng.integers(0, 256, (160, 80, 3), np.uint8))
    return tmp_path


def test_worst_crops_are_pictures_with_who_they_are(crops_folder: Path) -> None:
    report = made_report(results=REPORT.results[2:3], data={**REPORT.data, "folder": str(crops_folder)})
    page = _Page(build_html(report))
    pictures = [(attrs.get("alt") or "", attrs.get("src") or "") for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == len(CROPS) * (1 + 5 + 5)
    alt, source = pictures[1]
    assert alt == f"before, neighbour 1: same person, cosine 0.900, {GALLERY[0]}"
    jpeg = cv2.imdecode(np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
    assert jpeg is not None
    assert jpeg.shape == (112, 56, 3)
    assert page.words.count("new") == len(CROPS) * 2 + 1  # and once in the explanation


def test_a_missing_picture_leaves_a_gap_with_its_name(crops_folder: Path) -> None:
    (crops_folder / CROPS[0]).unlink()
    (crops_folder / CROPS[1]).write_bytes(b"no image")
    report = made_report(results=REPORT.results[2:3])
    page = _Page(build_html(report, crops_folder))
    gaps = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("class") == "gap"]
    assert gaps == [f"crop {crop}; no picture" for crop in CROPS[:2]]


def test_pictures_can_be_left_out(crops_folder: Path) -> None:
    text = build_html(REPORT, crops_folder, pictures=False)
    assert _Page(text).values("img", "src") == []
    assert "The crops that moved most" not in text


def test_crops_that_did_not_move_are_not_shown(crops_folder: Path) -> None:
    worst = tuple(replace(one, cosine=0.999997) for one in made_worst_crops())
    text = build_html(made_report(results=(replace(REPORT.results[0], worst_crops=worst),)), crops_folder)
    assert "the crop that moved most has a cosine of 0.999997" in text
    assert _Page(text).values("img", "src") == []


def test_missing_matplotlib_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    check_html_possible()
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnavailableError, match=r"hamr-edge\[figures\]"):
        check_html_possible()
