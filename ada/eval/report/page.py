"""One page for people, all in one file: tables, curves, heat maps and examples; it asks for nothing outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ada.eval.report.examples import data_url, pick, picture_url
from ada.eval.report.figures import axes_of
from ada.eval.report.markdown import Cells, benchmarks_table, kinds_table, percent, runs_table, with_interval
from ada.eval.report.page_style import STYLE
from ada.eval.report.panels import Drawn
from ada.eval.stats.accuracy import Accuracy, Difference
from ada.eval.stats.falloff import RULE, FallOff, change_of, has_fallen
from ada.eval.stats.results import FAMILIES, Row, by_family, by_name, own_planners


@dataclass(frozen=True)
class Notes:
    """What the page says beside the figures: ``command``, ``date``, ``device``, and a line for each thing that was
    decided on the way."""

    command: str
    date: str
    device: str
    method: Sequence[str]


def page(rows: Sequence[Row], falls: Sequence[FallOff], notes: Notes, figures: Mapping[str, Drawn]) -> str:
    """The whole page, well-formed as XML too. figures: by their files' names."""
    families = by_family(rows)
    models = ", ".join(dict.fromkeys(row.run.label for row in rows))
    main, others = rows[0].main.questions, list(rows[0].parts.values())[1:]
    asked = f"{len(main.items):,} {main.title} in {len(main.kinds)} kinds"
    if others:
        asked += f", {sum(len(part.questions.items) for part in others):,} questions of {len(others)} benchmarks"
    links = [(family, title) for family, title in FAMILIES.items() if family in families]
    links += [("examples", "Examples"), ("method", "How it was measured")]
    nav = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in links)
    sections = [_family(family, own, falls, figures) for family, own in families.items()]
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"/><meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>What a latency budget buys: {escape(models)}</title><style>{STYLE}</style></head>
<body>
<header><div><h1>What a latency budget buys</h1>
<p>Models {escape(models)}: {asked}.</p><p>{escape(notes.date)}, {escape(notes.device)}</p><nav>{nav}</nav>
</div></header>
<main>
{"".join(sections)}
{_examples(rows)}
<h2 id="method">How it was measured</h2>
<ul>{"".join(f"<li>{escape(line)}</li>" for line in notes.method)}</ul>
<p>Made by <code>{escape(notes.command)}</code></p>
</main></body></html>
"""


def _family(family: str, rows: Sequence[Row], falls: Sequence[FallOff], figures: Mapping[str, Drawn]) -> str:
    """A section: one kind of unit."""
    groups = by_name(rows)
    leader = groups[0]
    parts = [
        f'<h2 id="{family}">{escape(FAMILIES[family])}</h2>',
        _cards(leader),
        _falls([fall for fall in falls if fall.row.family == family]),
        "<h3>Accuracy against what it costs</h3>",
        _figure(figures[f"accuracy-{family}"], "Test questions; a point is a budget, a band or bar its 95 % interval."),
        "<h3>All runs</h3>",
        _table(runs_table(groups, _against)),
        f'<p class="note">Accuracy on the test questions in percent, with its 95 % interval. Below it the paired '
        f"difference to {escape(leader[0].name)} on the same questions, in points, with its 95 % interval and the "
        f"p-value of McNemar's exact test. Costs are those of {escape(leader[0].name)}.</p>",
        _kinds(leader, figures),
        _benchmarks(leader, figures),
        _heat_maps(leader, figures),
    ]
    return "\n".join(parts)


def _against(difference: Difference) -> str:
    p = difference.p_value
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"{100 * difference.share:+.1f} ± {100 * difference.reach:.1f}, {chance}"


def _cards(leader: Sequence[Row]) -> str:
    """What each budget keeps, at a glance."""
    whole = max(leader, key=lambda row: row.run.budget.fraction)
    cards = []
    for row in leader:
        kept = f"{percent(row.accuracy.correct / whole.accuracy.correct)} %" if whole.accuracy.correct else "none"
        ms = f", first token {row.times.first:.3g} ms" if row.times else ""
        price = 100 * row.main.prefill_gflops / whole.main.prefill_gflops
        cards.append(
            f'<div class="card"><span>budget {row.run.budget} keeps</span><b>{kept}</b>'
            f"<span>of the accuracy, for {price:.0f} % of the operations{ms}</span></div>"
        )
    return f'<p class="note">{escape(leader[0].name)}, test questions:</p><div class="cards">{"".join(cards)}</div>'


def _falls(falls: Sequence[FallOff]) -> str:
    if not falls:
        return f'<div class="falls fine"><h3>Quality does not fall off</h3><p>Nowhere {escape(RULE)}.</p></div>'
    groups: dict[str, list[FallOff]] = {}
    for fall in falls:
        groups.setdefault(f"{fall.row.name}, from budget {fall.row.run.budget} down", []).append(fall)
    lines = [
        f"<h4>{escape(name)}</h4><ul>{''.join(f'<li>{escape(fall.figures)}</li>' for fall in own)}</ul>"
        for name, own in groups.items()
    ]
    return (
        f'<div class="falls"><h3>Where quality falls off</h3>{"".join(lines)}<p class="note">The first budget, from '
        f"the largest one down, with {escape(RULE)}.</p></div>"
    )


def _kinds(leader: Sequence[Row], figures: Mapping[str, Drawn]) -> str:
    main = leader[0].main.questions
    whole = max(leader, key=lambda row: row.run.budget.fraction)
    kinds: list[str | None] = [*main.kinds, None]

    def sort(line: int, column: int) -> str:
        place = (main.name, kinds[line])
        return "fallen" if column >= 3 and has_fallen(change_of(leader[column - 3], whole, place)) else ""

    return "\n".join(
        [
            "<h3>By kind of question</h3>",
            _table(kinds_table(leader, _two_lines), sort, total=True),
            f'<p class="note">{escape(leader[0].name)}: accuracy in percent, with its 95 % interval; shaded where it '
            "has fallen off. Beside it what the best constant answer of each kind would get.</p>",
            _places("kinds", leader, figures),
        ]
    )


def _benchmarks(leader: Sequence[Row], figures: Mapping[str, Drawn]) -> str:
    if len(leader[0].parts) == 1:
        return ""
    return "\n".join(
        [
            "<h3>By benchmark</h3>",
            f'<div class="named">{_table(benchmarks_table(leader, _two_lines))}</div>',
            f'<p class="note">{escape(leader[0].name)}, by each benchmark\'s own scorer, on files of its form.</p>',
            _places("benchmarks", leader, figures),
        ]
    )


def _places(what: str, leader: Sequence[Row], figures: Mapping[str, Drawn]) -> str:
    """Small panels against operations; those against measured times fold out."""
    first, *others = ((axis, figures[f"{what}-{leader[0].family}-{axis.name}"]) for axis in axes_of(leader))
    folded = (
        f"<details><summary>Against {axis.title}</summary>{_figure(own, '')}</details>" for axis, own in others
    )  # fmt: skip
    return _figure(first[1], "") + "".join(folded)


def _heat_maps(leader: Sequence[Row], figures: Mapping[str, Drawn]) -> str:
    family = leader[0].family
    caption = (
        "How often each head and each neuron group of every layer ran, over the test questions; layer 1 is on top. The "
        "layers in front of the scheduler always run."
    )
    return (
        f"<h3>What runs</h3>{_figure(figures[f'plans-{family}'], caption, 'png')}"
        f"<details><summary>{escape(leader[0].name)}, by kind of question</summary>"
        f"{_figure(figures[f'plans-{family}-kinds'], '', 'png')}</details>"
    )


def _examples(rows: Sequence[Row]) -> str:
    """A card for each kind of question: what every model under its own planner says at each budget."""
    leaders = own_planners(rows)
    cards = []
    for place in pick(leaders[0]):
        item = rows[0].main.questions.items[place]
        url = picture_url(rows[0], place)
        image = "" if url is None else f'<img src="{url}" alt="the question\'s picture"/>'
        table = [["", *(f"{row.run.budget}" for row in leaders[0])]]
        table += [[group[0].name, *(row.main.texts[place] or "(nothing)" for row in group)] for group in leaders]

        def sort(line: int, column: int, place: int = place) -> str:
            return ("wrong", "right")[leaders[line][column - 1].main.right[place]] if column else ""

        cards.append(
            f'<div class="example">{image}<div><h4>{escape(item.kind)}</h4><p>{escape(item.question.text)}</p>'
            f"<p><small>right: {escape(item.truth)}</small></p>{_table(table, sort, text=escape)}</div></div>"
        )
    return (
        '<h2 id="examples">Examples</h2><p class="note">Of each kind of test question the one on which the first model '
        "loses most as budgets shrink, among those it gets right at the largest one. They are not typical: "
        f'how often answers are right is in the tables.</p><div class="examples">{"".join(cards)}</div>'
    )


def _two_lines(accuracy: Accuracy) -> str:
    share, _, interval = with_interval(accuracy).partition(" ")
    return f"{share}<br><small>{interval.strip('()')}</small>"


def _figure(forms: Drawn, caption: str, form: str = "svg") -> str:
    url = data_url(forms[form], {"svg": "image/svg+xml", "png": "image/png"}[form])
    told = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{url}" alt="{escape(caption or "curves")}"/>{told}</figure>'


KEPT = {escape(mark): mark for mark in ("<small>", "</small>")} | {escape("<br>"): "<br/>"}


def _text(cell: str) -> str:
    """A cell's text, in which only the marks of our own tables are kept."""
    text = escape(cell)
    for written, mark in KEPT.items():
        text = text.replace(written, mark)
    return text


def _no_class(line: int, column: int) -> str:
    return ""


def _table(
    cells: Cells,
    sort: Callable[[int, int], str] = _no_class,
    total: bool = False,
    text: Callable[[str], str] = _text,
) -> str:
    """``sort(line, column)`` names a cell's class; both count from 0, headings aside. ``total``: the last line sums
    up. ``text``: of a cell."""
    head, *lines = ([text(cell) for cell in line] for line in cells)
    body = []
    for number, line in enumerate(lines):
        classes = [sort(number, column) for column in range(len(line))]
        columns = "".join(
            f'<td class="{name}">{cell}</td>' if name else f"<td>{cell}</td>"
            for name, cell in zip(classes, line, strict=True)
        )
        last = ' class="last"' if total and number == len(lines) - 1 else ""
        body.append(f"<tr{last}>{columns}</tr>")
    heading = "".join(f"<th>{cell}</th>" for cell in head)
    return f'<div class="wide"><table><thead><tr>{heading}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
