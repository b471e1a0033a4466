"""The report as a paper: one LaTeX document with the text, the tables and the figures of every section.

report/report.tex compiles in its folder with pdfLaTeX (or, where the data has letters beyond Latin, LuaLaTeX) and the
packages geometry, graphicx, booktabs and hyperref; it reads the PNGs of figures/. What is folded on the page is an
appendix.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tuneoff import tables
from tuneoff.formats import latex_text
from tuneoff.report.section import Block, Bullets, Details, Figures, Heading, Section, TableBlock, Text
from tuneoff.tables import Table

_MAX_ROWS = 40  # of a table, so that it fits on a page; all rows are in tables/
_MAX_PIXELS = 520  # height of a figure in its SVG, so that it fits on a page at the width of the text
_TEXT_PIXELS = 760  # width of a figure that fills the width of the text
_PAIR_SHARE = 0.98  # of the text's width, of two figures side by side

_PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[a4paper,margin=25mm]{geometry}
\usepackage{graphicx}
\usepackage{booktabs}
\usepackage[hidelinks]{hyperref}
\setlength{\parindent}{0pt}
\setlength{\parskip}{6pt}
\setlength{\emergencystretch}{3em}
\renewcommand{\topfraction}{0.9}
\renewcommand{\floatpagefraction}{0.7}"""


def paper(title: str, abstract: str, parts: Sequence[Section], sizes: Mapping[str, tuple[int, int]]) -> str:
    """Return sections as a LaTeX document. sizes: width and height of each figure, in pixels of its SVG."""
    body, appendix = [], []
    for section in parts:
        own = [block for block in section.blocks if not isinstance(block, Details)]
        folded = [block for block in section.blocks if isinstance(block, Details)]
        body += [rf"\section{{{latex_text(section.heading)}}}", *_blocks(own, section, sizes)]
        for details in folded:
            if inner := list(_blocks(details.blocks, section, sizes)):
                appendix += [rf"\section{{{latex_text(f'{section.heading}: {_lower(details.summary)}')}}}", *inner]
    lines = [
        _PREAMBLE,
        rf"\title{{{latex_text(title)}: a comparison of fine-tuning strategies}}",
        r"\author{}",
        r"\date{}",
        r"\begin{document}",
        r"\maketitle",
        *([r"\begin{abstract}", latex_text(abstract), r"\end{abstract}"] if abstract else []),
        *body,
        *([r"\clearpage", r"\appendix", *appendix] if appendix else []),
        r"\end{document}",
        "",
    ]
    text = "\n\n".join(lines)
    is_foreign = tables.needs_unicode_engine(text)
    engine = "lualatex" if is_foreign else "pdflatex"
    return f"% {engine} report.tex, twice, in this folder\n{text}"


def _blocks(blocks: Sequence[Block], section: Section, sizes: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    """Yield the LaTeX of blocks; those for the page alone are left out."""
    for block in blocks:
        match block:
            case Text(is_page_only=True) | TableBlock(is_page_only=True):
                pass
            case Text():
                text = latex_text(block.text)
                yield rf"\textbf{{{text}}}" if block.is_key else text
            case Heading():
                yield rf"\subsection{{{latex_text(block.text)}}}"
            case Bullets() if block.items:
                items = "\n".join(rf"\item {latex_text(item)}" for item in block.items)
                yield f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}"
            case TableBlock():
                yield _table(block.table, section)
            case Figures():
                names = [*block.charts, *([block.menu.selected] if block.menu else [])]
                yield from (_figure(row, section) for row in _rows({name: sizes.get(name) for name in names}))
                if block.table:
                    yield _table(block.table, section)
            case Details():
                yield rf"\subsection{{{latex_text(block.summary)}}}"
                yield from _blocks(block.blocks, section, sizes)
            case _:
                pass  # on the page only


def _table(table: Table, section: Section) -> str:
    """Return a table with its first rows, as many as fit on a page."""
    caption = f"{section.heading}: {table.name.replace('-', ' ')}"
    if len(table.rows) > _MAX_ROWS:
        caption += f", the first {_MAX_ROWS} of {len(table.rows):,} rows; all are in tables/{table.name}.csv"
        table = replace(table, rows=table.rows[:_MAX_ROWS], marks=())
    return tables.latex(table, caption)


def _rows(sizes: Mapping[str, tuple[int, int] | None]) -> list[dict[str, float]]:
    """Divide figures into rows of at most two. Returns the share of the text's width of each, so that it fits a page.

    sizes: width and height in pixels.
    """
    rows: list[dict[str, float]] = []
    for name, size in sizes.items():
        width, height = size or (_TEXT_PIXELS, _MAX_PIXELS)
        share = min(1.0, width / _TEXT_PIXELS, _MAX_PIXELS / height * width / _TEXT_PIXELS)
        if rows and len(rows[-1]) == 1 and sum(rows[-1].values()) + share < _PAIR_SHARE:
            rows[-1][name] = share
        else:
            rows.append({name: share})
    return rows


def _figure(row: Mapping[str, float], section: Section) -> str:
    """Return a figure of one chart, or of two side by side. row: share of the text's width of each."""
    names = [name.replace("-", " ") for name in row]
    caption = names[0] if len(names) == 1 else f"{names[0]} (left), {names[1]} (right)"
    images = [rf"\includegraphics[width={share:.2f}\linewidth]{{../figures/{name}.png}}" for name, share in row.items()]
    return (
        "\\begin{figure}\n\\centering\n"
        + "\\hspace{0.02\\linewidth}".join(images)
        + f"\n\\caption{{{latex_text(f'{section.heading}: {caption}')}}}\n\\end{{figure}}"
    )


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
