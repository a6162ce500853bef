"""The graph as a picture: Mermaid, Graphviz, a tree of text, and what a notebook shows."""

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from portable_sched import Graph, RunResults, TaskRegistry, TaskScheduler
from portable_sched._state import RunState
from portable_sched.reporting import dot as dot_format
from portable_sched.reporting import drawn, mermaid, render, tree
from portable_sched.testing import run_graph

needs_graphviz = pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")

HOSTILE = [
    'a"b',
    "<script>alert(1)</script>",
    "</title>",
    "end",
    "`code`",
    "[x](y)",
    "{{x}}",
    "a;b",
    "#35;",
    "&amp;",
    "back\\slash",
    "\\N",
    "%%{init}%%",
    "subgraph",
    "naïve 😀 漢字",
    "a -->|no| b",
]
UNPRINTABLE = {
    "bell\a": "bell�",
    "8-bit\x9b": "8-bit�",
    "a\ttab": "a tab",
    "turned \N{RIGHT-TO-LEFT OVERRIDE}back\N{POP DIRECTIONAL ISOLATE}": "turned �back�",
    "report-\udcff.csv": "report-�.csv",
    "no character\ufffe\uffff": "no character��",
    "\n": "�",
}

# Shown, though `str.isprintable` says no of most: joined letters and emoji, spaces of other widths,
# what is newer than Python's table of characters. The last is what Mermaid makes of `#35;` within.
SHOWN = [
    "👨\N{ZERO WIDTH JOINER}👩\N{ZERO WIDTH JOINER}👧",
    "نمی\N{ZERO WIDTH NON-JOINER}خواهم",
    "10\N{NO-BREAK SPACE}km",
    "東京\N{IDEOGRAPHIC SPACE}大阪",
    "new\U0001fae9",
    "ﬂ°°35¶ß",
]


@pytest.fixture
def registry() -> TaskRegistry:
    """fetch -> parse (failed) -> load (not started); tidy after load; parse uses a lifetime."""
    registry = TaskRegistry()

    @registry.task
    async def database() -> AsyncIterator[str]:
        yield "open"

    @registry.task(retries=2)
    async def fetch() -> str:
        return "rows"

    @registry.task
    async def parse(fetch: str, database: str) -> str:
        raise ValueError("no rows")

    @registry.task
    async def load(parse: str) -> None: ...

    @registry.task(after=[load])
    async def tidy() -> None: ...

    return registry


@pytest.fixture
def graph(registry: TaskRegistry) -> Graph:
    return TaskScheduler(registry).graph


@pytest.fixture
def results(registry: TaskRegistry) -> RunResults:
    return run_graph(registry, seconds={"fetch": 2, "parse": 1}, fail={"fetch": [1]})


def named(*names: str) -> Graph:
    registry = TaskRegistry()
    for name in names:

        @registry.task(name)
        async def no_op() -> None: ...

    return TaskScheduler(registry).graph


def chain(length: int) -> Graph:
    registry = TaskRegistry()
    for at in range(length):

        @registry.task(f"t{at}", depends_on=[f"t{at - 1}"] if at else [])
        async def no_op() -> None: ...

    return TaskScheduler(registry).graph


def states(registry: TaskRegistry) -> RunResults:
    """A run in which one task is running, one has ended and the rest are to come."""
    state = RunState(TaskScheduler(registry).graph, 0.0)
    state.completed(state.take(0.0), "", 1.0)
    state.take(1.0)
    return RunResults(state.record)


# Mermaid


def test_a_graph_is_this_flowchart(graph) -> None:
    assert [
        "flowchart TD",
        '  t0(["database"])',
        '  t1["fetch"]',
        '  t2["parse"]',
        '  t3["load"]',
        '  t4["tidy"]',
        "  t1 --> t2",
        "  t0 --> t2",
        "  t2 --> t3",
        "  t3 -.-> t4",
        "  classDef critical stroke-width:4px",
        "  class t0,t2,t3,t4 critical",
        "  linkStyle 1,2,3 stroke-width:4px",
    ] == mermaid.draw(graph).splitlines()


def test_a_run_is_this_flowchart(results) -> None:
    assert [
        "flowchart TD",
        '  t0(["database<br>completed, 0 s"])',
        '  t1["fetch<br>completed, 4.0 s, 2 attempts"]',
        '  t2["parse<br>failed, 1.0 s"]',
        '  t3["load<br>failed"]',
        '  t4["tidy<br>completed, 0 s"]',
        "  t1 --> t2",
        "  t0 --> t2",
        "  t2 --> t3",
        "  t3 -.-> t4",
    ] == mermaid.report(results).splitlines()[:10]


def test_a_run_is_coloured_by_status_and_its_chain_is_thick(results) -> None:
    lines = mermaid.report(results).splitlines()

    assert "  class t0,t1,t4 completed" in lines
    assert "  class t2,t3 failed" in lines
    assert any(line.startswith("  classDef failed fill:#") for line in lines)
    assert "  class t1,t2,t4 critical" in lines
    # The arrow from fetch to parse alone: tidy came after a task that never ran.
    assert "  linkStyle 0 stroke-width:4px" in lines


def test_tasks_of_a_run_under_way_are_shown_as_they_are(registry) -> None:
    lines = mermaid.report(states(registry)).splitlines()

    assert '  t0(["database<br>running"])' in lines or '  t1["fetch<br>running"]' in lines
    assert '  t2["parse<br>pending"]' in lines
    assert any(line.endswith(" running") for line in lines)


def test_an_empty_graph_is_an_empty_flowchart() -> None:
    assert "flowchart TD" == mermaid.draw(named())


@pytest.mark.parametrize("name", [*HOSTILE, *SHOWN], ids=ascii)
def test_labels_of_mermaid_hold_nothing_that_means_anything(name) -> None:
    line = mermaid.draw(named(name)).splitlines()[1]
    label = re.fullmatch(r'  t0\["(.*)"\]', line)

    assert label is not None
    assert re.fullmatch(r"(?:[\w ._,-]|#[0-9]+;)*", label[1])
    assert name == unescape(label[1].replace("#", "&#"))


@pytest.mark.parametrize(("name", "shown"), UNPRINTABLE.items(), ids=ascii)
def test_what_cannot_be_shown_is_marked_in_mermaid(name, shown) -> None:
    line = mermaid.draw(named(name)).splitlines()[1]

    assert f'  t0["{shown}"]' == unescape(line.replace("#", "&#"))


def test_letters_of_any_script_stand_in_mermaid_as_they_are() -> None:
    assert (
        '  t0["naïve 漢字 загрузка"]' == mermaid.draw(named("naïve 漢字 загрузка")).splitlines()[1]
    )


def test_lines_of_a_name_are_lines_in_mermaid() -> None:
    assert '  t0["two<br>lines"]' == mermaid.draw(named("two\r\nlines")).splitlines()[1]


PARSER = """
import { JSDOM } from "jsdom";
globalThis.window = new JSDOM("").window;
globalThis.document = window.document;
const { default: mermaid } = await import("mermaid");
let text = "";
for await (const chunk of process.stdin) text += chunk;
for (const each of JSON.parse(text)) await mermaid.parse(each);
console.log("parsed");
"""


@pytest.fixture(scope="session")
def mermaid_parser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that reads flowcharts with Mermaid's own parser."""
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("mermaid")
    options = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts", f"--prefix={folder}"]
    try:
        subprocess.run(
            [npm, "install", *options, "mermaid@11", "jsdom@26"],
            check=True,
            capture_output=True,
            timeout=90,
        )
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"npm cannot bring Mermaid: {error}")
    program = folder / "parse.mjs"
    program.write_text(PARSER)
    return program


def test_mermaid_itself_reads_every_flowchart(mermaid_parser, graph, results, registry) -> None:
    flowcharts = [
        mermaid.draw(graph),
        mermaid.report(results),
        mermaid.report(states(registry)),
        mermaid.draw(named(*HOSTILE, *SHOWN, *UNPRINTABLE, "two\nlines")),
        mermaid.draw(named()),
    ]
    done = subprocess.run(
        ["node", mermaid_parser],
        input=json.dumps(flowcharts),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=mermaid_parser.parent,
    )

    assert ("parsed\n", 0) == (done.stdout, done.returncode), done.stderr


# Graphviz


def test_a_graph_is_this_dot(graph) -> None:
    assert [
        "digraph {",
        '  node [shape=box, style="rounded,filled", fillcolor="#ffffff", color="#8c959f"]',
        '  node [fontname="sans-serif", fontsize=11]',
        '  edge [color="#57606a"]',
        '  t0 [label="database", shape=ellipse, style=filled, penwidth=3]',
        '  t1 [label="fetch"]',
        '  t2 [label="parse", penwidth=3]',
        '  t3 [label="load", penwidth=3]',
        '  t4 [label="tidy", penwidth=3]',
        "  t1 -> t2",
        "  t0 -> t2 [penwidth=3]",
        "  t2 -> t3 [penwidth=3]",
        "  t3 -> t4 [style=dashed, penwidth=3]",
        "}",
    ] == dot_format.draw(graph).splitlines()


def test_a_run_has_its_colours_in_dot(results) -> None:
    lines = dot_format.report(results).splitlines()

    assert (
        '  t2 [label="parse\\nfailed, 1.0 s", fillcolor="#ffdcd9", color="#c62828", penwidth=3]'
    ) in lines
    assert '  t3 [label="load\\nfailed", fillcolor="#ffdcd9", color="#c62828"]' in lines


def labels_of(svg: str) -> set[str]:
    root = ET.fromstring(svg)
    return {element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")}


@needs_graphviz
def test_graphviz_draws_every_task_of_a_run(graph, results) -> None:
    labels = labels_of(dot_format.svg(graph, results))

    assert {"database", "fetch", "parse", "load", "tidy"} <= labels
    assert {"failed, 1.0 s", "completed, 4.0 s, 2 attempts"} <= labels


@needs_graphviz
def test_graphviz_shows_every_name_as_it_is() -> None:
    assert {*HOSTILE, *SHOWN, *UNPRINTABLE.values()} == labels_of(
        dot_format.svg(named(*HOSTILE, *SHOWN, *UNPRINTABLE))
    )


@needs_graphviz
def test_graphviz_shows_lines_of_a_name_as_lines() -> None:
    assert {"two", "lines"} == labels_of(dot_format.svg(named("two\nlines")))


def test_without_graphviz_there_is_an_error_that_says_what_to_do(graph, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError) as caught:
        dot_format.svg(graph)

    assert (
        "Expected the program `dot` of Graphviz, which draws the picture, and found none. "
        "Install Graphviz, or take the format 'mermaid', which needs no program."
    ) == str(caught.value)


@pytest.fixture
def other_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of the name `dot` that a test writes."""
    if not shutil.which("sh"):
        pytest.skip("no shell to write such a program for")
    program = tmp_path / "dot"
    program.touch(mode=0o755)
    monkeypatch.setattr(dot_format, "which", lambda name: str(program))
    return program


def test_what_graphviz_says_of_its_failure_is_told(graph, other_dot) -> None:
    other_dot.write_text("#!/bin/sh\ncat > /dev/null\necho 'out of ink' >&2\nexit 3\n")

    with pytest.raises(RuntimeError, match=r"^Graphviz failed with exit code 3: out of ink$"):
        dot_format.svg(graph)


def test_graphviz_is_not_waited_for_for_ever(graph, other_dot) -> None:
    # `exec`, or the shell would be killed and the program go on.
    other_dot.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(RuntimeError) as caught:
        dot_format.svg(graph, patience=0.01)
    assert (
        "Expected Graphviz to draw 5 tasks within 0.01 s, and it did not. Draw a part: "
        "graph.subset([...])."
    ) == str(caught.value)


# A tree of text


def test_a_graph_is_this_tree(graph) -> None:
    assert [
        "tidy",
        "└─ load (after)",
        "   └─ parse",
        "      ├─ fetch",
        "      └─ database",
    ] == tree.draw(graph).splitlines()


def test_a_run_is_this_tree(graph, results) -> None:
    assert [
        "tidy: completed, 0 s",
        "└─ load: failed (after)",
        "   └─ parse: failed, 1.0 s",
        "      ├─ fetch: completed, 4.0 s, 2 attempts",
        "      └─ database: completed, 0 s",
    ] == tree.draw(graph, results).splitlines()


def test_what_several_need_is_drawn_with_what_it_needs_once() -> None:
    registry = TaskRegistry()
    for name, depends_on in {
        "fetch": "",
        "parse": "fetch",
        "north": "parse",
        "south": "parse fetch",
        "report": "north south",
        "alone": "",
    }.items():

        @registry.task(name, depends_on=depends_on.split())
        async def no_op() -> None: ...

    assert [
        "report",
        "├─ north",
        "│  └─ parse",
        "│     └─ fetch",
        "└─ south",
        "   ├─ parse (above)",
        "   └─ fetch",
        "alone",
    ] == tree.draw(TaskScheduler(registry).graph).splitlines()


def test_a_deep_tree_stays_on_the_screen() -> None:
    lines = tree.draw(chain(100_000)).splitlines()

    assert 100_000 == len(lines)
    assert "t99999" == lines[0]
    assert "└─ t99998" == lines[1]
    assert f"{'   ' * 19}└─ t99979" == lines[20]
    assert f"{'   ' * 20}[21] t99978" == lines[21]
    assert f"{'   ' * 20}[99999] t0" == lines[-1]


def test_a_name_of_two_lines_stands_on_one() -> None:
    assert "two | lines" == tree.draw(named("two\nlines"))


@pytest.mark.parametrize(
    ("name", "shown"), [*UNPRINTABLE.items(), *zip(SHOWN, SHOWN, strict=True)], ids=ascii
)
def test_a_tree_marks_what_cannot_be_shown_alone(name, shown) -> None:
    assert shown == tree.draw(named(name))


def test_an_empty_graph_is_no_tree() -> None:
    assert "" == tree.draw(named())


# The table of formats


@pytest.mark.parametrize(
    "name", ["tree", "mermaid", "dot", pytest.param("svg", marks=needs_graphviz)]
)
def test_a_graph_is_drawn_in_each_format(graph, results, name) -> None:
    assert "parse" in drawn(graph, name)
    assert "failed, 1.0 s" in drawn(graph, name, results)


def test_a_run_is_reported_in_the_formats_of_its_graph(results) -> None:
    assert render(results, "dot") == dot_format.draw(results.graph, results)
    assert render(results, "mermaid") == mermaid.draw(results.graph, results)


def test_a_format_of_graphs_that_there_is_not_is_refused(graph) -> None:
    with pytest.raises(
        ValueError, match=r"^Expected format to be one of 'tree', .*, got 'html'\.$"
    ):
        drawn(graph, "html")


# Notebooks


@needs_graphviz
def test_a_notebook_shows_a_graph_as_a_picture(graph) -> None:
    bundle = graph._repr_mimebundle_(include=None, exclude=None)

    assert {"text/plain", "text/vnd.mermaid", "image/svg+xml"} == set(bundle)
    assert "<Graph of 5 tasks>" == bundle["text/plain"]
    assert mermaid.draw(graph) == bundle["text/vnd.mermaid"]
    assert "parse" in labels_of(bundle["image/svg+xml"])


def test_without_graphviz_a_notebook_has_mermaid(graph, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert {"text/plain", "text/vnd.mermaid"} == set(graph._repr_mimebundle_())


def test_a_large_graph_is_not_laid_out_for_a_notebook() -> None:
    assert {"text/plain", "text/vnd.mermaid"} == set(chain(201)._repr_mimebundle_())
    # Mermaid would show an error.
    assert {"text/plain"} == set(chain(502)._repr_mimebundle_())
    assert {"text/plain"} == set(named("x" * 50_000, *map(str, range(200)))._repr_mimebundle_())


def test_a_notebook_does_not_wait_long_for_graphviz(graph, monkeypatch) -> None:
    patiences = []

    def takes_too_long(graph, *, patience) -> str:
        patiences.append(patience)
        raise RuntimeError

    monkeypatch.setattr(dot_format, "svg", takes_too_long)

    assert {"text/plain", "text/vnd.mermaid"} == set(graph._repr_mimebundle_())
    assert [3] == patiences


def test_a_notebook_shows_results_as_a_table(results) -> None:
    table = results._repr_html_()
    root = ET.fromstring(table)

    assert ["Task", "Status", "Attempts", "Duration", "Error"] == [
        cell.text for cell in root.iter("th")
    ]
    assert ["parse", "FAILED", "1", "1.0000 s", "ValueError: no rows"] == [
        cell.text for cell in root.findall("tbody/tr")[2]
    ]
    assert ["tidy", "COMPLETED", "1", "0.0000 s", None] == [
        cell.text for cell in root.findall("tbody/tr")[4]
    ]
    assert "5 tasks: 3 completed, 2 failed; 5.0000 s wall time" == root.findtext("caption")


def test_names_are_escaped_in_a_notebook() -> None:
    registry = TaskRegistry()

    @registry.task("<script>alert(1)</script>")
    async def fails() -> None:
        raise ValueError("<b>")

    root = ET.fromstring(run_graph(registry)._repr_html_())

    assert ["<script>alert(1)</script>", "ValueError: <b>"] == [
        cell.text for cell in root.findall("tbody/tr/td") if "<" in (cell.text or "")
    ]


def test_a_table_in_a_notebook_can_be_sent_whatever_is_in_it() -> None:
    registry = TaskRegistry()

    @registry.task("caf\udce9\0")
    async def fails() -> None:
        raise ValueError("two\nlines\x1b")

    table = run_graph(registry)._repr_html_()

    assert ["caf��", "FAILED", "1", "0.0000 s", "ValueError: two lines�"] == [
        cell.text for cell in ET.fromstring(table.encode()).findall("tbody/tr/td")
    ]


def test_one_result_is_counted_in_the_singular() -> None:
    root = ET.fromstring(run_graph(named("fetch").tasks)._repr_html_())

    assert "1 task: 1 completed; 0.0000 s wall time" == root.findtext("caption")


def test_of_many_results_a_notebook_shows_the_first() -> None:
    registry = TaskRegistry()
    for at in range(201):

        @registry.task(f"t{at}")
        async def no_op() -> None: ...

    root = ET.fromstring(run_graph(registry)._repr_html_())

    assert 200 == len(root.findall("tbody/tr"))
    caption = root.findtext("caption")
    assert "The first 200 of 201 tasks: 201 completed; 0.0000 s wall time" == caption
