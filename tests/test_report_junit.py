"""The JUnit XML: whole, and against the structure that the widely used schemas ask for."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from portable_sched import Backoff, FailurePolicy, RunResults, RunStarted, TaskRegistry
from portable_sched.reporting.junit import report
from portable_sched.testing import run_graph


class LoadError(Exception):
    """As a user's own."""


def parsed(results: RunResults, **options: Any) -> ET.Element:
    return ET.fromstring(report(results, **options))


def case_of(results: RunResults, name: str = "task") -> ET.Element:
    [case] = [one for one in parsed(results).iter("testcase") if one.get("name") == name]
    return case


def raising(error: BaseException, name: str = "task") -> RunResults:
    registry = TaskRegistry()

    @registry.task(name)
    async def fail() -> None:
        raise error

    return run_graph(registry)


def nothing() -> RunResults:
    return run_graph(TaskRegistry())


def of_all_kinds() -> RunResults:
    registry = TaskRegistry()

    @registry.task
    async def fetch() -> None: ...

    @registry.task(retries=3, backoff=Backoff(initial=1))
    async def flaky() -> None: ...

    @registry.task(depends_on=[fetch], retries=2, resources=["db"])
    async def load() -> None:
        raise LoadError("no table")

    @registry.task(depends_on=[load])
    async def tell() -> None: ...

    @registry.task(depends_on=[tell])
    async def archive() -> None: ...

    return run_graph(
        registry,
        seconds={"fetch": 1.5, "flaky": 0.25},
        fail={"flaky": {1: ConnectionError("reset"), 2: ConnectionError("again")}},
        resources={"db": 2},
        max_concurrency=4,
    )


def stopped() -> RunResults:
    registry = TaskRegistry()

    @registry.task
    async def fails() -> None:
        raise LoadError("no")

    @registry.task(retries=2)
    async def goes_on() -> None: ...

    @registry.task(depends_on=[goes_on])
    async def never() -> None: ...

    return run_graph(
        registry,
        seconds={"fails": 3, "goes_on": 2},
        fail={"goes_on": [1]},
        on_failure=FailurePolicy.CANCEL,
    )


def with_a_leak() -> RunResults:
    registry = TaskRegistry()

    @registry.task
    async def pool() -> AsyncIterator[None]:
        yield
        raise LoadError("a leak")

    return run_graph(registry)


RUNS: dict[str, Callable[[], RunResults]] = {
    "nothing": nothing,
    "all kinds": of_all_kinds,
    "stopped": stopped,
    "a leak": with_a_leak,
    "odd texts": lambda: raising(LoadError("\x00 caf\udce9 <&\"'>]]>"), "a\n\tb \x1b \udcff"),
}

# What `junit-10.xsd` of Jenkins' xUnit plugin allows; "!" marks what it asks for. Maven's Surefire
# writes by the same rules. Ant's older schema has no output of a single test, and asks for a host.
ATTRIBUTES = {
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": {
        *("name!", "tests!", "failures!", "errors!"),
        *("skipped", "time", "timestamp", "hostname", "id", "package", "group", "file", "log"),
    },
    "properties": set(),
    "property": {"name!", "value!"},
    "testcase": {"name!", "classname", "time", "group"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"type", "message"},
    "system-out": set(),
}
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"testsuite", "properties", "testcase", "system-out", "system-err"},
    "properties": {"property"},
    "testcase": {"skipped", "error", "failure", "system-out", "system-err"},
}
TEXT = {"failure", "error", "skipped", "system-out", "system-err"}


@pytest.fixture(params=RUNS)
def results(request: pytest.FixtureRequest) -> RunResults:
    return RUNS[request.param]()


# Structure


def test_elements_stand_where_they_may(results) -> None:
    root = parsed(results)

    assert "testsuites" == root.tag
    for element in root.iter():
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())
        assert element.tag in TEXT or not (element.text or "").strip()
        assert not (element.tail or "").strip()


def test_elements_have_the_attributes_that_they_may_and_must_have(results) -> None:
    for element in parsed(results).iter():
        allowed = ATTRIBUTES[element.tag]

        assert element.attrib.keys() <= {name.rstrip("!") for name in allowed}
        assert {name[:-1] for name in allowed if name.endswith("!")} <= element.attrib.keys()


def test_a_test_has_one_outcome_at_most(results) -> None:
    for case in parsed(results).iter("testcase"):
        assert len(case.findall("failure") + case.findall("skipped")) <= 1
        assert len(case.findall("system-out")) <= 1


def test_times_are_decimals_without_an_exponent(results) -> None:
    for element in parsed(results).iter():
        time = element.get("time")

        # Surefire's own pattern, for up to 999 seconds.
        assert time is None or re.fullmatch(r"[0-9]{0,3}(\.[0-9]*)?", time)


def test_the_timestamp_has_no_time_zone_as_the_schemas_want_it(results) -> None:
    [suite] = parsed(results)

    assert f"{results.date:%Y-%m-%dT%H:%M:%S}" == suite.get("timestamp")


def test_counts_are_those_of_the_tests(results) -> None:
    root = parsed(results)
    [suite] = root
    counted = {
        "tests": len(suite.findall("testcase")),
        "failures": len(suite.findall("testcase/failure")),
        "errors": 0,
    }

    assert len(results) == counted["tests"]
    assert counted == {name: int(root.attrib[name]) for name in counted}
    assert counted == {name: int(suite.attrib[name]) for name in counted}
    assert len(suite.findall("testcase/skipped")) == int(suite.attrib["skipped"])


def test_a_small_time_is_no_power_of_ten() -> None:
    results = nothing()
    results._record.finished = results._record.began + 1.5e-6

    assert "0.000002" == parsed(results).get("time")


# The whole


def test_the_report_of_a_run_is_this_document() -> None:
    results = of_all_kinds()
    text = re.sub(
        "Traceback .*?(?=\n[A-Za-z_.]*Error)", "Traceback", report(results), flags=re.DOTALL
    )

    assert (
        f"""\
<?xml version="1.0" encoding="utf-8"?>
<testsuites name="portable_sched" time="3.750000" tests="5" failures="1" errors="0">
  <testsuite name="portable_sched" time="3.750000" tests="5" failures="1" errors="0" \
skipped="2" timestamp="{results.date:%Y-%m-%dT%H:%M:%S}">
    <properties>
      <property name="max_concurrency" value="4" />
      <property name="most_running" value="2" />
      <property name="order" value="priority" />
      <property name="resource db" value="2" />
    </properties>
    <testcase classname="portable_sched.testing" name="fetch" time="1.500000" />
    <testcase classname="portable_sched.testing" name="flaky" time="3.750000">
      <system-out>Attempt 1 of 3 failed after 0.25 s: ConnectionError: reset
Traceback
ConnectionError: reset

Attempt 2 of 3 failed after 0.25 s: ConnectionError: again
Traceback
ConnectionError: again
</system-out>
    </testcase>
    <testcase classname="test_report_junit" name="load" time="0.000000">
      <failure type="test_report_junit.LoadError" message="LoadError: no table">Traceback
test_report_junit.LoadError: no table
</failure>
      <system-out>Attempt 1 of 2 failed after 0 s: LoadError: no table
Traceback
test_report_junit.LoadError: no table
</system-out>
    </testcase>
    <testcase classname="test_report_junit" name="tell" time="0.000000">
      <skipped message="Dependency 'load' failed: LoadError: no table" />
    </testcase>
    <testcase classname="test_report_junit" name="archive" time="0.000000">
      <skipped message="Dependency 'tell' failed, because 'load' failed: LoadError: no table" />
    </testcase>
  </testsuite>
</testsuites>
"""
        == text
    )


def test_a_run_of_nothing_is_a_suite_of_nothing() -> None:
    [suite] = parsed(nothing())

    assert [] == suite.findall("testcase")
    assert ("0", "0") == (suite.get("tests"), suite.get("skipped"))


def test_a_suite_can_have_a_name_of_its_own() -> None:
    root = parsed(nothing(), suite="nightly \x00")

    assert ["nightly \ufffd"] * 2 == [root.get("name"), root[0].get("name")]


def test_the_order_of_a_shuffled_run_is_a_property_so_that_it_can_be_repeated() -> None:
    results = run_graph(TaskRegistry(), order="shuffle", seed=7)
    properties = {one.get("name"): one.get("value") for one in parsed(results).iter("property")}

    assert {
        "max_concurrency": "none",
        "most_running": "0",
        "order": "shuffle, seed 7",
    } == properties


# Outcomes


def test_a_failure_has_its_traceback() -> None:
    failure = case_of(raising(LoadError("no table"))).find("failure")

    assert failure is not None
    assert (failure.text or "").startswith("Traceback (most recent call last):\n")
    assert "in fail\n    raise error\n" in (failure.text or "")


def test_what_went_wrong_in_the_teardown_of_a_lifetime_is_a_failure() -> None:
    failure = case_of(with_a_leak(), "pool").find("failure")

    assert failure is not None
    assert "LoadError: a leak" == failure.get("message")


def test_what_was_cancelled_is_skipped_and_says_why() -> None:
    results = stopped()
    skipped = {
        case.get("name"): one.get("message")
        for case in parsed(results).iter("testcase")
        for one in case.iter("skipped")
    }

    assert {
        "goes_on": "'goes_on' was cancelled during attempt 2, after 1.0 s: 'fails' had failed "
        "after 3.0 s",
        "never": "'never' was not started: 'fails' had failed after 3.0 s; it waited for 'goes_on'",
    } == skipped


def test_what_a_cancelled_task_had_tried_is_in_its_output() -> None:
    output = case_of(stopped(), "goes_on").findtext("system-out") or ""

    assert output.startswith("Attempt 1 of 2 failed after 2.0 s: PlannedFailure: ")


def test_what_has_not_ended_yet_is_skipped() -> None:
    registry = TaskRegistry()
    live: list[RunResults] = []
    reports: list[str] = []

    @registry.task
    async def looks() -> None:
        reports.append(report(live[0]))

    @registry.task(depends_on=[looks])
    async def later() -> None: ...

    def notice(event: object) -> None:
        if isinstance(event, RunStarted):
            live.append(event.results)

    run_graph(registry, observers=[notice])

    assert [
        "RUNNING: it had not ended when this report was written.",
        "PENDING: it had not ended when this report was written.",
    ] == [one.get("message") for one in ET.fromstring(reports[0]).iter("skipped")]


# Text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script> & \"quotes\" 'too'", "<script> & \"quotes\" 'too'"),
        ("]]> <!-- <![CDATA[", "]]> <!-- <![CDATA["),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x00\x08\x0b\x0c\x1b\x1f", "\ufffd" * 6),
        ("caf\udce9", "caf\ufffd"),
        ("\ufffe\uffff", "\ufffd\ufffd"),
        (
            "\x7f\x85\u2028 データ \U0001f680 \U0010ffff",
            "\x7f\x85\u2028 データ \U0001f680 \U0010ffff",
        ),
    ],
    ids=["markup", "sections", "white space", "controls", "surrogates", "no characters", "others"],
)
def test_texts_come_through_but_for_what_xml_does_not_allow(text, shown) -> None:
    case = case_of(raising(LoadError(text), f"name {text}"), f"name {shown}")
    failure = case.find("failure")

    assert failure is not None
    assert f"LoadError: {shown}" == failure.get("message")
    assert (failure.text or "").endswith(f"LoadError: {shown}\n")


def test_a_report_says_that_it_is_the_utf8_that_files_are_written_in(tmp_path) -> None:
    path = raising(LoadError("データ"), "検査").save(tmp_path / "run.xml")
    [case] = ET.parse(path).iter("testcase")

    assert b'<?xml version="1.0" encoding="utf-8"?>\n' == path.read_bytes()[:39]
    assert "検査" == case.get("name")


# Size


def test_ten_thousand_tasks_behind_a_failure_stay_short() -> None:
    registry = TaskRegistry()

    async def fail() -> None:
        raise LoadError("no")

    for at in range(10_000):
        registry.task(f"t{at}", depends_on=[f"t{at - 1}"] if at else [])(fail)
    text = report(run_graph(registry))

    assert 9_999 == text.count("<skipped ")
    assert len(text) < 3_000_000
