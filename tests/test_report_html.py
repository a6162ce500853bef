"""The report as one HTML page: what stands in it, and what it does in a real browser."""

import json
import re
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import anyio
import pytest
from browser import Browser, chromium
from make_pictures import nightly_run

from portable_sched import (
    Backoff,
    FailurePolicy,
    Priority,
    RunResults,
    RunStarted,
    TaskRegistry,
    TaskScheduler,
    TaskStarted,
)
from portable_sched.reporting import html
from portable_sched.reporting.html import report
from portable_sched.testing import run_graph

HOSTILE = [
    "<script>window.hurt = 1</script>",
    "</script><script>window.hurt = 1</script>",
    "<!--<script>",
    "]]>",
    "<img src=x onerror=window.hurt=1>",
    '" onmouseover="window.hurt = 1',
    "' onfocus='window.hurt = 1' autofocus='",
    "{{data}} {{program}}",
    "javascript:window.hurt=1",
    "__proto__",
    "constructor",
    "&lt;b&gt; &amp; &#60;",
    "line\u2028separator\u2029 and\nline end\r\n",
    "lone \udcff surrogate \ud83d",
    "bell \x07 null \x00 escape \x1b[31m delete \x7f",
    "right \u202e to left",
    "検査 \U0001f600",
    " ",
]


class Page(HTMLParser):
    """What a parser of HTML makes of a page: its elements, and the texts of some."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: dict[str, list[str]] = {}
        self.policy = ""
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = True
        self.tags.append(tag)
        self.attributes += attrs
        self.text.setdefault(tag, []).append("")
        given = dict(attrs)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.text[self.tags[-1]][-1] += data


def data_of(page: str) -> dict[str, Any]:
    """What the page has been told of the run."""
    data: dict[str, Any] = json.loads(Page(page).text["script"][0])
    return data


def lines_of(data: dict[str, Any], places: list[int]) -> str:
    return "\n".join(data["strings"][place] for place in places)


def traceback_of(page: str, task: str, attempt: int = 1) -> str:
    """What the page shows of a failed attempt."""
    data = data_of(page)
    failures = dict(data["failures"])[data["tasks"]["name"].index(task)]
    return lines_of(data, failures[attempt - 1][4])


def explanation_of(page: str, task: str) -> str | None:
    data = data_of(page)
    told: dict[int, str] = dict(data["explanations"])
    return told.get(data["tasks"]["name"].index(task))


def failing(error: BaseException) -> Callable[[], Any]:
    async def fail() -> None:
        raise error

    return fail


async def nothing() -> None: ...


@pytest.fixture(scope="module")
def nightly() -> RunResults:
    return nightly_run()


@pytest.fixture(scope="module")
def nightly_page(nightly: RunResults) -> str:
    return report(nightly, title="Nightly export")


# What the page is told


def test_every_task_has_its_columns(registry) -> None:
    task = registry.task
    task("fetch", retries=3, backoff=Backoff(initial=2))(nothing)
    task("load", depends_on=["fetch"])(nothing)
    task("tell", after=["load"])(nothing)
    seconds = {"fetch": 1, "load": 0.25, "tell": 0.5}
    data = data_of(report(run_graph(registry, seconds=seconds, fail={"fetch": [1]})))

    assert {
        "name": ["fetch", "load", "tell"],
        "status": [2, 2, 2],
        "attempts": [2, 1, 1],
        "allowed": [3, 1, 1],
        "start": [0, 4, 4.25],
        "end": [4, 4.25, 4.75],
        "dependencies": [[], [0], []],
        "waited": [0, 4, 4.25],
        "slot": [0, 0, 0],
        "backoff": [2, 0, 0],
        "running": [2, 0.25, 0.5],
        "slack": [0, 0, 0],
    } == data["tasks"]
    assert [[2, [1]]] == data["after"]


def test_what_is_worth_saying_of_a_definition_is_said(registry) -> None:
    @registry.task(resources=["db"], priority=Priority.HIGH, timeout=60, executor="thread")
    async def load() -> None:
        """Load the rows.

        With more to say.
        """

    registry.task("plain")(nothing)
    data = data_of(report(anyio.run(TaskScheduler(registry, resources={"db": 2}).run)))
    settings = {
        "priority": "HIGH",
        "resources": [["db", 1]],
        "executor": "thread",
        "timeout": 60,
        "about": 0,
    }

    assert [[0, settings]] == data["settings"]
    assert "Load the rows." == data["strings"][0]


def test_the_docstring_of_a_class_is_not_that_of_its_instance(registry) -> None:
    class Load:
        """Says nothing of the task."""

        async def __call__(self) -> None: ...

    registry.task("load")(Load())

    assert [] == data_of(report(run_graph(registry)))["settings"]


def test_a_docstring_of_spaces_says_nothing(registry) -> None:
    async def load() -> None: ...

    load.__doc__ = " \n "
    registry.task(load)

    assert [] == data_of(report(run_graph(registry)))["settings"]


def test_every_attempt_has_its_place_in_time(registry) -> None:
    registry.task("fetch", retries=2)(nothing)
    registry.task("read")(nothing)
    results = run_graph(registry, seconds={"fetch": 1, "read": 3}, fail={"fetch": [1]})

    assert {
        "task": [0, 1, 0],
        "attempt": [1, 1, 2],
        "slot": [0, 1, 0],
        "start": [0, 0, 1],
        "end": [1, 3, 2],
        "status": [3, 2, 2],
    } == data_of(report(results))["spans"]


def test_the_run_is_told_with_its_limits_and_the_advice(registry) -> None:
    for name in ["north", "south"]:
        registry.task(name, resources=["db"])(nothing)
    seconds = {"north": 2, "south": 3}
    results = run_graph(registry, seconds=seconds, resources={"db": 1}, max_concurrency=4)
    data = data_of(report(results))

    assert {
        "date": results.date.isoformat(timespec="seconds"),
        "wall_time": 5,
        "is_over": True,
        "most_running": 1,
        "max_concurrency": 4,
        "resources": [["db", 1]],
        "order": "",
        "advice": "`db` 1 \u2192 2 saves at most 2.0 s",
    } == data["run"]
    assert [[0, "start", "", 0, 2], [1, "resource", "db", 2, 5]] == data["chain"]
    assert [[1, [["db", 2]]]] == data["resources"]


def test_another_order_is_told(registry) -> None:
    registry.task("fetch")(nothing)

    assert (
        "shuffle" in data_of(report(run_graph(registry, order="shuffle", seed=7)))["run"]["order"]
    )


def test_the_time_that_a_lifetime_was_open_is_told(registry) -> None:
    @registry.task
    async def pool() -> AsyncIterator[None]:
        yield

    registry.task("use", depends_on=[pool])(nothing)
    results = run_graph(registry, seconds={"pool": 1, "use": 2})

    assert [[0, 1, 3]] == data_of(report(results))["open"]


def test_a_failure_is_told_with_its_traceback(registry) -> None:
    @registry.task(retries=2)
    async def load() -> None:
        try:
            {}["rows"]
        except KeyError as error:
            raise ValueError("no rows") from error

    page = report(run_graph(registry))

    assert [[0, "ValueError: no rows"]] == data_of(page)["errors"]
    assert [1, 2] == [failure[0] for failure in data_of(page)["failures"][0][1]]
    shown = traceback_of(page, "load", attempt=2)
    assert re.search(r"KeyError: .rows.\n\nThe above exception.*\n\nTraceback", shown)
    assert '{}["rows"]' in shown
    assert shown.endswith("ValueError: no rows")


def test_a_traceback_that_was_recorded_is_shown_as_it_was(registry) -> None:
    error = ValueError("read back")
    error.recorded_traceback = "Traceback:\n  there\nValueError: then\n"  # type: ignore[attr-defined] # as of an error read from a file
    registry.task("load")(failing(error))

    assert "Traceback:\n  there\nValueError: then" == traceback_of(
        report(run_graph(registry)), "load"
    )


def test_lines_that_tracebacks_share_are_told_once(registry) -> None:
    for at in range(50):
        registry.task(f"load-{at}")(failing(ValueError(f"no {at}")))
    strings = data_of(report(run_graph(registry)))["strings"]

    assert len(strings) == len(set(strings)) < 50 + 20


def test_a_long_error_is_cut_in_the_middle(registry) -> None:
    error = ValueError("a" * 50_000 + "b" * 50_000)
    registry.task("load")(failing(error))
    page = report(run_graph(registry))
    [[_, told]] = data_of(page)["errors"]

    assert re.fullmatch(r"ValueError: a+ \[\.\.\. [\d,]+ characters left out \.\.\.\] b+", told)
    assert len(told) < 2100
    assert len(traceback_of(page, "load")) < 20_100


def test_what_was_not_started_points_to_what_failed(registry) -> None:
    registry.task("fetch")(failing(OSError("no network")))
    registry.task("clean", depends_on=["fetch"])(nothing)
    registry.task("load", depends_on=["clean"])(nothing)
    page = report(run_graph(registry))

    assert [[1, 0, 0], [2, 1, 0]] == data_of(page)["skipped"]
    assert [[0, "OSError: no network"]] == data_of(page)["errors"]
    assert (
        "'load' was not started: it depends on 'clean', which depends on 'fetch', which failed: "
        "OSError: no network"
    ) == explanation_of(page, "load")


def test_a_long_way_to_the_root_cause_is_no_sentence(registry) -> None:
    registry.task("task-0")(failing(OSError("no network")))
    for at in range(1, 50):
        registry.task(f"task-{at}", depends_on=[f"task-{at - 1}"])(nothing)
    page = report(run_graph(registry))

    assert "which failed: OSError: no network" in str(explanation_of(page, "task-7"))
    assert None is explanation_of(page, "task-8")
    assert None is explanation_of(page, "task-49")


def test_what_has_completed_needs_no_explanation(registry) -> None:
    registry.task("fetch")(nothing)

    assert [] == data_of(report(run_graph(registry)))["explanations"]


def test_a_cancelled_task_is_explained(registry) -> None:
    registry.task("fetch")(failing(OSError("no network")))
    registry.task("other", depends_on=["long"])(nothing)
    registry.task("long")(nothing)
    results = run_graph(registry, seconds={"long": 9}, on_failure=FailurePolicy.CANCEL)

    assert "'other' was not started: 'fetch' had failed after 0 s; it waited for 'long'" == (
        explanation_of(report(results), "other")
    )


# A run under way


def during(registry: TaskRegistry, task: str, **settings: Any) -> str:
    """The report at the moment when a task starts."""
    pages: list[str] = []
    runs: list[RunResults] = []

    def watch(event: object) -> None:
        if isinstance(event, RunStarted):
            runs.append(event.results)
        if isinstance(event, TaskStarted) and event.task == task:
            pages.append(report(runs[0]))

    run_graph(registry, observers=[watch], **settings)
    return pages[0]


def test_a_run_under_way_is_told_as_it_stands(registry) -> None:
    registry.task("fetch")(nothing)
    registry.task("load", depends_on=["fetch"])(nothing)
    registry.task("tell", depends_on=["load"])(nothing)
    page = during(registry, "load", seconds={"fetch": 2, "load": 1})
    data = data_of(page)

    assert (False, 2) == (data["run"]["is_over"], data["run"]["wall_time"])
    assert ["COMPLETED", "RUNNING", "PENDING"] == [
        data["statuses"][code] for code in data["tasks"]["status"]
    ]
    assert [2, None, None] == data["tasks"]["end"]
    assert [0, 2, None] == data["tasks"]["start"]
    assert [1, 1, 0] == data["tasks"]["attempts"]
    assert "'tell' waits for 'load'; running: 'load'" == explanation_of(page, "tell")


def test_of_many_waiting_tasks_the_first_are_explained(registry) -> None:
    for at in range(300):
        registry.task(f"task-{at}")(nothing)
    page = during(registry, "task-0", max_concurrency=1)

    assert [*range(200)] == [number for number, _ in data_of(page)["explanations"]]


# The page around it


def test_a_graph_of_nothing_has_a_page() -> None:
    page = report(run_graph(TaskRegistry()))

    assert [] == data_of(page)["tasks"]["name"]
    assert ["Run of 0 tasks: nothing to run"] == Page(page).text["title"]


def test_the_title_says_how_it_went(registry) -> None:
    registry.task("fetch")(failing(OSError()))
    registry.task("read")(nothing)
    results = run_graph(registry)

    assert ["Run of 2 tasks: 1 completed, 1 failed"] == Page(report(results)).text["title"]
    assert ["<Nightly> & more: 1 completed, 1 failed"] == (
        Page(report(results, title="<Nightly> & more")).text["title"]
    )


def test_one_task_is_no_tasks(registry) -> None:
    registry.task("fetch")(nothing)

    assert ["Run of 1 task: 1 completed"] == Page(report(run_graph(registry))).text["title"]


def test_the_same_results_give_the_same_page(nightly) -> None:
    assert report(nightly) == report(nightly)


def test_a_page_is_ascii_whatever_stands_in_it(registry) -> None:
    registry.task("\u691c\u67fb \udcff")(failing(ValueError("\xe9\u2028")))

    assert report(run_graph(registry), title="\u691c \udcff").isascii()


def test_hostile_values_arrive_as_they_are_and_change_nothing_else(registry) -> None:
    calm = TaskRegistry()
    for at, name in enumerate(HOSTILE):
        registry.task(name, resources=[name])(failing(ValueError(name)))
        calm.task(f"task-{at}", resources=[f"task-{at}"])(failing(ValueError(f"task-{at}")))
    hostile = report(run_graph(registry, resources=dict.fromkeys(HOSTILE, 1)), title=HOSTILE[1])
    names = [f"task-{at}" for at in range(len(HOSTILE))]
    harmless = report(run_graph(calm, resources=dict.fromkeys(names, 1)), title="Run")

    assert HOSTILE == data_of(hostile)["tasks"]["name"]
    assert [f"ValueError: {name}" for name in HOSTILE] == [
        error for _, error in data_of(hostile)["errors"]
    ]
    assert Page(harmless).tags == Page(hostile).tags
    assert Page(harmless).attributes == Page(hostile).attributes
    assert Page(harmless).text["script"][1:] == Page(hostile).text["script"][1:]


def test_the_policy_allows_what_stands_in_the_page_and_nothing_else(nightly_page) -> None:
    page = Page(nightly_page)

    def allowed(text: str) -> str:
        return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"

    _, library, program = page.text["script"]
    [style] = page.text["style"]
    assert page.policy == (
        f"default-src 'none'; script-src {allowed(library)} {allowed(program)}; "
        f"style-src {allowed(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_the_page_refers_to_nothing_outside(nightly_page) -> None:
    page = Page(nightly_page)
    addresses = [
        value for name, value in page.attributes if name in {"src", "href", "action", "srcset"}
    ]
    [style] = page.text["style"]

    assert ["data:image/svg+xml", "#tasks"] == [str(each).split(",")[0] for each in addresses]
    assert "url(" not in style
    assert "@import" not in style
    assert "sourceMappingURL" not in nightly_page


def test_the_page_has_no_code_in_attributes(nightly_page) -> None:
    names = {name for name, _ in Page(nightly_page).attributes}

    assert set() == {name for name in names if name.startswith("on") or name == "style"}


@pytest.mark.parametrize("part", html._PROGRAM)
def test_the_program_makes_no_html_of_values(part) -> None:
    program = (html._ASSETS / part).read_text("ascii")
    ways = "innerHTML outerHTML insertAdjacentHTML document.write eval( Function( DOMParser srcdoc"

    assert [] == [way for way in ways.split() if way in program]


def test_no_part_can_end_the_element_that_it_stands_in() -> None:
    parts = {path.name: path.read_text("ascii") for path in html._ASSETS.glob("*.??*")}

    assert {"report.css", "dagre.min.js", *html._PROGRAM} <= parts.keys()
    assert [] == [
        name
        for name, text in parts.items()
        if name.endswith((".js", ".css"))
        and re.search(r"</(script|style)|<!--", text, re.IGNORECASE)
    ]


def test_the_library_has_its_licence_in_the_page(nightly_page) -> None:
    licence = (html._ASSETS / "dagre.LICENSE").read_text("utf-8")

    assert licence in nightly_page
    assert "Permission is hereby granted" in licence


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests: it takes longer to start than most of them."""
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def shown(browser: Browser, nightly_page: str) -> Browser:
    """A browser that shows the nightly run."""
    browser.show(nightly_page)
    return browser


def names_in_table(browser: Browser) -> list[str]:
    return browser.texts("#grid-body .c-name")


def focused(browser: Browser) -> str:
    """The id of what has the focus, or its text."""
    found: str = browser.run(
        "const e = document.activeElement; return e.id || e.textContent || e.tagName"
    )
    return found


def places_of(browser: Browser, canvas: str, colour: str) -> list[list[int]]:
    """The first places of a canvas that have a colour of the style, row by row."""
    found: list[list[int]] = browser.run(
        """
        const [canvas, name] = arguments;
        const probe = document.createElement("i");
        document.body.append(probe);
        probe.style.color = `var(--${name})`;
        const wanted = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
        probe.remove();
        const e = document.querySelector(canvas);
        const { data } = e.getContext("2d").getImageData(0, 0, e.width, e.height);
        const places = [];
        for (let at = 0; at < data.length && places.length < 5000; at += 4) {
          if (wanted.every((part, of) => data[at + of] === part)) {
            places.push([(at / 4) % e.width, Math.floor(at / 4 / e.width)]);
          }
        }
        return places;
        """,
        canvas,
        colour,
    )
    return found


def see_the_graph(browser: Browser) -> None:
    browser.run("document.querySelector('#graph').scrollIntoView()")
    browser.wait_until("document.querySelector('#graph-shown').textContent")
    browser.wait_for_frames()


def test_the_page_opens_quietly_and_asks_nobody(browser, nightly_page) -> None:
    browser.show(nightly_page)
    see_the_graph(browser)

    [address] = browser.requests()
    assert address.startswith("file:")
    assert [] == browser.console()


def test_no_request_can_leave_the_page(shown) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = "http://{}:{}/".format(*server.getsockname())
        shown.run(
            """
            window.refused = [];
            addEventListener("securitypolicyviolation", (event) => {
              refused.push(event.effectiveDirective);
            });
            fetch(arguments[0]).catch(() => {});
            new Image().src = arguments[0];
            const script = document.createElement("script");
            script.textContent = "window.hurt = 1";
            document.body.append(script);
            """,
            address,
        )
        shown.wait_until("window.refused.length >= 3")
        refused = shown.run("return window.refused")
        with pytest.raises(BlockingIOError):
            server.accept()

    assert ["connect-src", "img-src", "script-src-elem"] == sorted(refused)
    assert None is shown.run("return window.hurt ?? null")


def test_the_summary_says_how_it_went(shown) -> None:
    assert ["Nightly export"] == shown.texts("#heading")
    assert ["5 failed"] == shown.texts("#verdict")
    summary = " ".join(shown.texts("#summary > div"))
    assert "Completed39" in summary
    assert "Failed54 of them not started" in summary
    assert "Most at once8of 8" in summary
    assert shown.texts("#advice")[0].startswith("db 4 \u2192 ")


def test_what_failed_stands_first_with_what_it_stopped(shown) -> None:
    [failure] = shown.texts("#failed-list li")

    assert failure == (
        "export-isles-refunds attempt 3 of 3; 4 tasks not started because of itUnknownColumnError: "
        "table 'refunds' of region 'isles' has no column 'amount_eur'"
    )


def test_the_chain_leads_to_its_tasks(shown) -> None:
    links = shown.texts("#chain .name")
    shown.all("#chain button")[-1].click()

    assert ("calendar", "tell") == (links[0], links[-1])
    assert ["tell"] == shown.texts("#details-title")


def test_a_column_sorts_one_way_then_the_other_then_not(shown) -> None:
    before = names_in_table(shown)
    [head] = shown.all("th.c-duration button")
    head.click()
    longest = names_in_table(shown)
    directions = [shown.all("th.c-duration")[0].get_attribute("aria-sort")]
    head.click()
    shortest = names_in_table(shown)
    directions.append(shown.all("th.c-duration")[0].get_attribute("aria-sort"))
    head.click()
    directions.append(shown.all("th.c-duration")[0].get_attribute("aria-sort"))

    assert "export-isles-refunds" == longest[0]
    assert "tell" == shortest[0]
    assert before == names_in_table(shown)
    assert ["descending", "ascending", "none"] == directions


def test_names_sort_by_their_numbers(browser, registry) -> None:
    for at in [10, 9, 1, 2]:
        registry.task(f"part-{at}")(nothing)
    browser.show(report(run_graph(registry)))
    browser.click("th.c-name button")

    assert ["part-1", "part-2", "part-9", "part-10"] == names_in_table(browser)


def test_a_search_finds_words_in_names_and_errors(shown) -> None:
    shown.all("#search")[0].send_keys("ISLES amount_eur")
    errors = names_in_table(shown)
    shown.all("#search")[0].clear()
    shown.all("#search")[0].send_keys("load- north")

    assert [
        "export-isles-refunds",
        "clean-isles",
        "load-isles",
        "totals-isles",
        "publish",
    ] == errors
    assert ["load-north"] == names_in_table(shown)
    assert ["1 of 44 tasks"] == shown.texts("#found")


def test_a_search_for_what_is_not_there_says_so(shown) -> None:
    shown.all("#search")[0].send_keys("nowhere")

    assert ["No task is like that."] == shown.texts("#grid-body tr")


def test_the_table_can_show_one_status_alone(shown) -> None:
    [failed] = [each for each in shown.all("#filters button") if "FAILED" in each.text]
    failed.click()
    alone = shown.texts("#grid-body .c-status")
    pressed = failed.get_attribute("aria-pressed")
    failed.click()

    assert ["FAILED"] * 5 == alone
    assert "true" == pressed
    assert ["44 tasks"] == shown.texts("#found")


def test_a_click_opens_a_failure_and_escape_closes_it(shown) -> None:
    shown.click("#failed-list button")
    title, why = shown.texts("#details-title, #details-why")
    attempts = shown.texts(".attempt summary")
    traceback = shown.texts(".attempt pre")[-1]
    shown.press("ESCAPE")

    assert "export-isles-refunds" == title
    assert why.startswith("'export-isles-refunds' failed at attempt 3 of 3: UnknownColumnError:")
    assert 3 == len(attempts)
    assert traceback.startswith("Traceback (most recent call last):")
    assert not shown.all("#details")[0].is_displayed()
    assert focused(shown).startswith("export-isles-refunds")


def test_the_keyboard_alone_opens_a_failure(shown) -> None:
    shown.press("/")
    in_search = focused(shown)
    shown.press(*"isles", "ENTER")
    in_table = focused(shown)
    shown.press("END", "ARROW_UP", "ARROW_UP", "ENTER")
    title = shown.texts("#details-title")
    in_details = focused(shown)
    shown.press("ESCAPE")

    assert ["search", "grid", "details-title"] == [in_search, in_table, in_details]
    assert title == names_in_table(shown)[-3:-2]
    assert "grid" == focused(shown)


def test_tab_comes_to_everything_in_the_order_of_the_page(shown) -> None:
    shown.run("document.activeElement.blur(); scrollTo(0, 0)")
    passed: list[str] = []
    while len(passed) < 60 and "Error" not in passed:
        shown.press("TAB")
        passed.append(focused(shown))
    stops = ["Skip to the table of tasks", "by-slot", "timeline-in", "timeline-canvas", "graph-in"]
    stops += ["graph-canvas", "search", "grid", "Task", "Error"]

    assert stops == [each for each in passed if each in stops]


def test_the_focus_can_be_seen(shown) -> None:
    shown.press("/")

    assert "solid" == shown.run("return getComputedStyle(document.activeElement).outlineStyle")


def test_the_table_tells_its_shape_to_screen_readers(shown) -> None:
    [grid] = shown.all("#grid")
    shown.press("/", "ENTER", "ARROW_DOWN")
    row = grid.get_attribute("aria-activedescendant")
    active = shown.texts(f"#{row} .c-name")

    assert ("grid", "45", "9") == (
        grid.get_attribute("role"),
        grid.get_attribute("aria-rowcount"),
        grid.get_attribute("aria-colcount"),
    )
    assert ["calendar"] == active
    assert "3" == shown.all("tr.active")[0].get_attribute("aria-rowindex")


def test_details_lead_from_what_was_not_started_to_the_root_cause(shown) -> None:
    shown.all("#search")[0].send_keys("publish")
    shown.click("#grid-body tr")
    why = shown.texts("#details-why")[0]
    shown.all(".details .names button")[2].click()

    assert "'publish' was not started: it depends on 'totals-isles', which depends on" in why
    assert ["clean-isles"] == shown.texts("#details-title")


def test_the_address_names_the_open_task(browser, nightly_page) -> None:
    browser.show(nightly_page)
    browser.click("#failed-list button")
    address = browser.run("return location.hash")
    browser.show(nightly_page, opened=address)

    assert ["export-isles-refunds"] == browser.texts("#details-title")
    assert browser.all("#details")[0].is_displayed()


def test_the_timeline_is_drawn_and_a_click_opens_an_attempt(shown) -> None:
    assert places_of(shown, "#timeline-canvas", "completed")
    failed = places_of(shown, "#timeline-canvas", "failed")
    shown.click_at("#timeline-canvas", *failed[len(failed) // 2])

    assert shown.texts("#details-title")[0] in {
        "rates",
        "export-east-visits",
        "export-isles-refunds",
    }


def test_the_timeline_tells_what_the_pointer_is_on(shown) -> None:
    failed = places_of(shown, "#timeline-canvas", "failed")
    shown.point_at("#timeline-canvas", *failed[len(failed) // 2])

    assert re.search(r"attempt \d of \d, failed: .* s", shown.texts("#tip")[0])


def test_the_timeline_zooms_and_pans_and_shows_all_again(shown) -> None:
    whole = shown.texts("#timeline-shown")
    shown.click("#timeline-in")
    shown.wait_for_frames()
    closer = shown.texts("#timeline-shown")
    shown.run("document.querySelector('#timeline-canvas').focus()")
    shown.press("+")
    closest = shown.texts("#timeline-shown")
    shown.drag("#timeline-canvas", [600, 150], [300, 150])
    moved = shown.texts("#timeline-shown")
    shown.press("0")

    assert ["45 s"] == whole == shown.texts("#timeline-shown")
    assert 3 == len({*closer, *closest, *moved})
    assert all(
        re.fullmatch(r"[\d.]+ s \u2013 [\d.]+ s of 45 s", each[0]) for each in (closer, moved)
    )


def test_the_timeline_shows_what_each_task_waited_for(shown) -> None:
    by_slot = places_of(shown, "#timeline-canvas", "resource")
    shown.click("#by-task")
    shown.wait_for_frames()

    assert [] == by_slot
    assert places_of(shown, "#timeline-canvas", "resource")
    assert places_of(shown, "#timeline-canvas", "backoff")
    assert "true" == shown.all("#by-task")[0].get_attribute("aria-pressed")


def test_the_timeline_works_from_the_keyboard(shown) -> None:
    shown.run("document.querySelector('#timeline-canvas').focus()")
    shown.press("HOME", "ARROW_RIGHT", "ARROW_DOWN", "ARROW_UP", "ARROW_LEFT", "ARROW_RIGHT")
    said = shown.texts("#said")[0]
    shown.press("ENTER")

    assert "attempt 1 of " in said
    assert said.startswith(shown.texts("#details-title")[0])


def test_the_graph_is_drawn_and_a_click_opens_a_task(shown) -> None:
    see_the_graph(shown)
    assert places_of(shown, "#graph-canvas", "completed")
    assert places_of(shown, "#graph-canvas", "skipped")
    assert places_of(shown, "#graph-canvas", "accent")
    failed = places_of(shown, "#graph-canvas", "failed")
    shown.click_at("#graph-canvas", *failed[len(failed) // 2])

    assert ["export-isles-refunds"] == shown.texts("#details-title")


def test_the_graph_is_walked_along_its_arrows(shown) -> None:
    see_the_graph(shown)
    shown.run("document.querySelector('#graph-canvas').focus()")
    shown.press("END", "ARROW_LEFT")
    before_the_last = shown.texts("#said")[0]
    shown.press("ARROW_RIGHT", "ENTER")

    assert before_the_last.startswith("forecast: ")
    assert ["tell"] == shown.texts("#details-title")


def test_the_graph_is_only_laid_out_where_somebody_comes_near(browser, nightly_page) -> None:
    browser.show(nightly_page, height=300)
    browser.wait_for_frames(5)
    far = browser.texts("#graph-shown")
    see_the_graph(browser)

    assert [""] == far
    assert ["44 tasks"] == browser.texts("#graph-shown")


def test_a_narrow_page_has_no_sideways_scrolling(browser, nightly_page) -> None:
    browser.show(nightly_page, width=360, height=700)
    see_the_graph(browser)
    closed = browser.run("return document.documentElement.scrollWidth")
    browser.click("#failed-list button")

    assert 360 == closed == browser.run("return document.documentElement.scrollWidth")
    assert ["c-name", "c-status", "c-duration"] == [
        head.get_attribute("class").split()[0]
        for head in browser.all("#grid-head th")
        if head.is_displayed()
    ]


def test_it_is_dark_where_the_user_likes_it_dark(browser, nightly_page) -> None:
    colours = []
    for dark in [False, True]:
        browser.show(nightly_page, dark=dark)
        page = browser.run("return getComputedStyle(document.body).backgroundColor")
        [canvas] = browser.run(
            "const c = document.querySelector('#timeline-canvas');"
            "return [[...c.getContext('2d').getImageData(c.width - 2, 2, 1, 1).data]]"
        )
        colours.append((page, canvas[:3]))

    assert [("rgb(245, 246, 248)", [255] * 3), ("rgb(14, 17, 22)", [22, 27, 34])] == colours


def test_paper_has_all_rows_and_the_failures_in_full_and_is_light(browser, nightly_page) -> None:
    browser.show(nightly_page, height=500, dark=True)
    on_screen = len(names_in_table(browser))
    browser.run("dispatchEvent(new Event('beforeprint'))")
    on_paper = len(names_in_table(browser))
    pixel = browser.run(
        "const c = document.querySelector('#graph-canvas');"
        "return [...c.getContext('2d').getImageData(2, 2, 1, 1).data]"
    )
    browser.run("dispatchEvent(new Event('afterprint'))")

    assert on_screen < on_paper == 44
    assert [255, 255, 255, 255] == pixel
    assert "Traceback (most recent call last)" in browser.texts("#in-full-list pre")[0]
    assert on_screen == len(names_in_table(browser))


def test_the_page_can_be_printed(shown) -> None:
    assert shown.paper().startswith(b"%PDF")
    assert [] == shown.console()


def test_hostile_names_are_shown_and_do_nothing(browser, registry) -> None:
    for name in HOSTILE:
        registry.task(name, resources=[name], executor=name)(failing(ValueError(name)))
    resources = dict.fromkeys(HOSTILE, 1)
    executors = dict.fromkeys(HOSTILE, ThreadPoolExecutor)
    scheduler = TaskScheduler(registry, resources=resources, executors=executors)
    page = report(anyio.run(scheduler.run), title=HOSTILE[0])
    browser.show(page, height=1600)
    see_the_graph(browser)
    browser.click("#by-task")
    tracebacks: list[str] = []
    for place in range(len(HOSTILE)):
        browser.run(f"document.querySelectorAll('#grid-body tr')[{place}].click()")
        tracebacks += browser.texts(".attempt pre")
    browser.press("ESCAPE")
    browser.run("dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint'))")
    names = names_in_table(browser)

    assert [HOSTILE[0]] == browser.texts("#heading")
    assert HOSTILE[:6] == names[:6]
    assert r"line\u2028separator\u2029 and\nline end\r\n" in names
    assert r"lone \udcff surrogate \ud83d" in names
    assert r"bell \u0007 null \u0000 escape \u001b[31m delete \u007f" in names
    assert r"right \u202e to left" in names
    assert "\u691c\u67fb \U0001f600" in names
    assert tracebacks[1].endswith(f"ValueError: {HOSTILE[1]}")
    assert r"ValueError: bell \u0007 null \u0000 escape \u001b[31m delete \u007f" in tracebacks[14]
    assert [] == browser.all("main script, main img, aside script, aside img")
    assert None is browser.run("return window.hurt ?? null")
    assert [] == browser.console()
    assert 1 == len(browser.requests())


def test_ten_thousand_tasks_are_a_table_of_few_rows(browser, registry) -> None:
    for at in range(10_000):
        registry.task(f"task-{at:04}", depends_on=[f"task-{at - 100:04}"] if at >= 100 else [])(
            nothing
        )
    browser.show(report(run_graph(registry, max_concurrency=20)))
    rows = len(names_in_table(browser))
    see_the_graph(browser)
    browser.press("/", "ENTER", "END")
    last = names_in_table(browser)[-1]
    browser.press("ENTER")

    assert rows < 100
    assert "task-9999" == last
    assert ["task-9999"] == browser.texts("#details-title")
    assert ["10,000 tasks, level by level; click one to see its arrows"] == browser.texts(
        "#graph-shown"
    )
    assert places_of(browser, "#graph-canvas", "completed")
    assert [] == browser.console()


def test_a_long_chain_and_many_failures_are_shown_in_part_and_then_in_full(
    browser, registry
) -> None:
    for at in range(30):
        registry.task(f"step-{at}", depends_on=[f"step-{at - 1}"] if at else [])(nothing)
        registry.task(f"bad-{at}")(failing(ValueError(at)))
    browser.show(report(run_graph(registry, seconds={f"step-{at}": 1 for at in range(30)})))
    in_part = len(browser.all("#chain .name"))
    browser.click("#chain .more")
    in_full = len(browser.all("#chain .name"))
    listed = len(browser.all("#failed-list li"))
    browser.click("#failed-more button")

    assert (12, 30, 8) == (in_part, in_full, listed)
    assert ["30 of 60 tasks"] == browser.texts("#found")


def test_a_run_under_way_says_so(browser, registry) -> None:
    registry.task("fetch")(nothing)
    registry.task("load", depends_on=["fetch"])(nothing)
    registry.task("tell", depends_on=["load"])(nothing)
    browser.show(during(registry, "load", seconds={"fetch": 2, "load": 1}))

    assert ["Under way"] == browser.texts("#verdict")
    assert ["The run was still under way: this is how it stood 2.0 s after it began."] == (
        browser.texts("#notice")
    )
    assert ["COMPLETED", "RUNNING", "PENDING"] == browser.texts("#grid-body .c-status")


def test_a_run_of_nothing_has_a_page_without_pictures(browser) -> None:
    browser.show(report(run_graph(TaskRegistry())))

    assert ["Nothing to run"] == browser.texts("#verdict")
    assert ["There were no tasks to run."] == browser.texts("#grid-body tr")
    assert not any(each.is_displayed() for each in browser.all("#timeline, #graph, #time, #failed"))
    assert [] == browser.console()
