"""A run is resumed by its id: what has ended well is not run again."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    Parameter,
    ResultStore,
    SequentialTaskRunner,
    Task,
    ThreadPoolTaskRunner,
    context,
    flatten,
    flow,
    task,
)
from prefect_dask_core.errors import (
    MissingResult,
    ResumeError,
    UnknownRunError,
)
from prefect_dask_core.ledger import Ledger, RunWriter
from prefect_dask_core.results.policies import NO_CACHE
from prefect_dask_core.signals import PAUSE
from prefect_dask_core.triggers import all_finished

ROOT = Path(__file__).parents[1]


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.sqlite")


@pytest.fixture(params=["sequential", "threads"])
def runner(request):
    """A runner whose bodies are in this process; see the drill for Dask."""
    if request.param == "sequential":
        return SequentialTaskRunner()
    return ThreadPoolTaskRunner(2)


class Scene:
    """Bodies that count how often they run, and fail while they are told to."""

    def __init__(self, store):
        self.store = str(store)
        self.runs = Counter()
        self.bad = set()

    def task(self, name, body, stored=True, **options):
        def run(*args):
            index = context.get("map_index")
            told = name if index is None else f"{name}[{index}]"
            self.runs[told] += 1
            if told in self.bad:
                raise ValueError(told)
            return body(*args)

        if stored:
            options |= {"persist_result": True, "result_storage": self.store}
        made = [lambda: run(), lambda x: run(x), lambda x, y: run(x, y)]
        return Task(made[body.__code__.co_argcount], name=name, **options)

    def took(self):
        found = dict(self.runs)
        self.runs.clear()
        return found


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path / "store")


def squares(scene, **options):
    square = scene.task("square", lambda x: x * x, **options)
    total = scene.task("total", lambda xs: sum(xs))
    with Flow("squares") as made:
        result = total(square.map(Parameter("xs")))
    return made, result


def last(ledger):
    return ledger.runs()[0].id


# -- graph flows ---------------------------------------------------------------------


def test_only_what_did_not_complete_runs_again(runner, ledger, scene):
    made, result = squares(scene)
    scene.bad = {"square[2]"}
    made.run(xs=[1, 2, 3, 4], task_runner=runner, ledger=ledger)
    scene.took()
    scene.bad.clear()

    state = made.run(resume=last(ledger), task_runner=runner, ledger=ledger)

    assert state[result].result() == 30
    assert scene.took() == {"square[2]": 1, "total": 1}
    run = ledger.run(last(ledger))
    assert [attempt.state for attempt in run.attempts] == ["Failed", "Completed"]
    assert run.states("square") == ["Completed"] * 4

    # And once more: nothing is left to do.
    state = made.run(resume=run.record.id, task_runner=runner, ledger=ledger)
    assert state[result].result() == 30
    assert scene.took() == {}


def test_without_a_ledger_the_store_knows(runner, ledger, scene):
    made, result = squares(scene)
    scene.bad = {"square[2]"}
    made.run(xs=[1, 2, 3, 4], task_runner=runner, ledger=ledger)
    scene.took()
    scene.bad.clear()

    again = {"task_runner": runner, "ledger": False}
    state = made.run(xs=[1, 2, 3, 4], resume=uuid.UUID(last(ledger)), **again)

    assert state[result].result() == 30
    assert scene.took() == {"square[2]": 1, "total": 1}
    assert len(ledger.run(last(ledger)).attempts) == 1


def test_nothing_depends_on_what_was_written_last(ledger, scene):
    # The client died before it wrote anything but the begin of the run.
    made, result = squares(scene)
    made.run(xs=[1, 2, 3], ledger=False, context={"flow_run_id": "x"})
    runner = ThreadPoolTaskRunner(1)
    state = made.run(xs=[1, 2, 3], task_runner=runner, ledger=ledger)
    record = replace(ledger.runs()[0], id=uuid.uuid4().hex, end=None, state="Running")
    scene.took()

    with pytest.raises(UnknownRunError):
        made.run(resume=record.id, ledger=ledger, task_runner=runner)
    empty = replace(record, id=last(ledger), process=2**22, seen=0.0)
    RunWriter(ledger.engine, empty).begin(after=1)
    with pytest.raises(Exception, match="needs the parameter 'xs'"):
        made.run(resume=empty.id, ledger=ledger, task_runner=runner)
    state = made.run(xs=[1, 2, 3], resume=empty.id, ledger=ledger, task_runner=runner)

    assert state[result].result() == 14
    assert scene.took() == {}


def test_what_completed_and_nobody_needs_is_not_even_submitted(ledger, scene, caplog):
    first = scene.task("first", lambda: 1, stored=False)
    second = scene.task("second", lambda x: x + 1)
    third = scene.task("third", lambda x: x + 1, stored=False)
    with Flow("chain") as made:
        above = second(first())
        result = third(above)
    scene.bad = {"third"}
    made.run(ledger=ledger, task_runner=SequentialTaskRunner())
    scene.took()
    scene.bad.clear()

    again = {"ledger": ledger, "task_runner": SequentialTaskRunner()}
    state = made.run(resume=last(ledger), **again)

    # `second` is looked for in the store, and its input made once more for that.
    assert scene.took() == {"first": 1, "third": 1}
    assert state[result].result() == 3

    state = made.run(resume=last(ledger), **again)
    assert scene.took() == {}
    assert state.is_successful()
    assert state[above].result() == 2
    with pytest.raises(MissingResult, match="persist_result=True"):
        state[result].result()
    assert "nothing of it runs again; the values of third-1 were not" in caplog.text


def test_what_stands_took_as_long_as_it_did(ledger, scene):
    made, _ = squares(scene, stored=False)
    again = {"ledger": ledger, "task_runner": SequentialTaskRunner()}
    state = made.run(xs=[1, 2], **again)
    before = ledger.run(last(ledger)).columns("total")
    assert before.ends[0] > before.begins[0]

    made.run(resume=last(ledger), **again)
    after = ledger.run(last(ledger)).columns("total")
    assert (after.begins, after.ends) == (before.begins, before.ends)
    assert len(ledger.run(last(ledger)).attempts) == 2

    # A state knows when it was reached, and not since when; so nothing is told.
    summary = str(made.run(resume=state, xs=[1, 2], progress=False).states.view)
    assert "longest 0 µs" not in summary


def test_where_values_are_is_known_after_several_attempts(ledger, scene):
    made, result = squares(scene)
    again = {"ledger": ledger, "task_runner": SequentialTaskRunner()}
    made.run(xs=[1, 2], **again)
    before = ledger.run(last(ledger)).columns("total").keys

    for _ in range(3):
        assert made.run(resume=last(ledger), **again)[result].result() == 5
        assert ledger.run(last(ledger)).columns("total").keys == before
    assert scene.took() == {"square[0]": 1, "square[1]": 1, "total": 1}


def test_a_parameter_with_another_value_runs_again_what_reads_it(ledger, scene):
    double = scene.task("double", lambda x: 2 * x, cache_policy=NO_CACHE)
    other = scene.task("other", lambda x: x, cache_policy=NO_CACHE)
    total = scene.task("total", lambda x, y: x + y, cache_policy=NO_CACHE)
    with Flow("sum") as made:
        result = total(double(Parameter("a")), other(Parameter("b")))
    runner = SequentialTaskRunner()
    made.run(a=1, b=10, ledger=ledger, task_runner=runner)
    scene.took()

    state = made.run(a=2, resume=last(ledger), ledger=ledger, task_runner=runner)

    assert state[result].result() == 14
    assert scene.took() == {"double": 1, "total": 1}
    assert ledger.run(last(ledger)).parameters() == {"a": 2, "b": 10}

    # What is stored now is of the new value.
    state = made.run(
        {"a": 2, "b": 10}, resume=last(ledger), ledger=False, task_runner=runner
    )
    assert state[result].result() == 14
    assert scene.took() == {}


def test_what_read_a_failure_is_made_anew_when_that_succeeds(runner, ledger, scene):
    square = scene.task("square", lambda x: x * x)
    look = scene.task(
        "look", lambda x: repr(x), trigger=all_finished, cache_policy=NO_CACHE
    )
    report = scene.task(
        "report", lambda xs: list(xs), trigger=all_finished, cache_policy=NO_CACHE
    )
    with Flow("looks") as made:
        looks = look.map(square.map(Parameter("xs")))
        result = report(looks)
    scene.bad = {"square[1]"}
    again = {"ledger": ledger, "task_runner": runner}
    state = made.run(xs=[1, 2, 3], **again)
    assert state[result].result()[1] == "ValueError('square[1]')"
    scene.took()
    scene.bad.clear()

    state = made.run(resume=last(ledger), **again)

    assert state[result].result() == ["1", "4", "9"]
    assert scene.took() == {"square[1]": 1, "look[1]": 1, "report": 1}


def test_a_flow_that_has_changed_takes_what_still_matches(ledger, scene, caplog):
    def made(swapped):
        first = scene.task("first", lambda: 1, cache_policy=NO_CACHE)
        second = scene.task("second", lambda: 2, cache_policy=NO_CACHE)
        twice = scene.task("twice", lambda x: 2 * x, cache_policy=NO_CACHE)
        more = scene.task("more", lambda x: x + 1, cache_policy=NO_CACHE)
        with Flow("changing") as found:
            a, b = first(), second()
            doubled = twice(b if swapped else a)
            result = more(doubled)
            if not swapped:
                scene.task("gone", lambda: 0)()
        return found, result

    again = {"ledger": ledger, "task_runner": SequentialTaskRunner()}
    before, result = made(swapped=False)
    before.run(**again)
    scene.took()
    after, result = made(swapped=True)

    state = after.run(resume=last(ledger), **again)

    assert state[result].result() == 5
    assert scene.took() == {"twice": 1, "more": 1}
    assert (
        "twice-1: it read first-1 as x and it reads second-1 as x now; gone-1: it is "
        "gone"
    ) in caplog.text


def report_and_fail(scene, constant, body=None, **options):
    """A flow in which nobody reads again what had completed before a failure."""
    report = scene.task("report", body or (lambda x: x), **options)
    fail = scene.task("fail", lambda: 0)
    with Flow("reports") as made:
        one = report(constant)
        several = report.map([constant + 1, constant + 2, 7])
        fail()
    return made, one, several


@pytest.mark.parametrize("options", [{}, {"cache_policy": NO_CACHE}])
def test_another_constant_counts_where_nobody_reads_the_task(
    runner, ledger, scene, caplog, options
):
    how = {"ledger": ledger, "task_runner": runner}
    scene.bad = {"fail"}
    report_and_fail(scene, 1, **options)[0].run(**how)
    scene.bad.clear()
    scene.took()

    made, one, several = report_and_fail(scene, 50, **options)
    state = made.run(resume=last(ledger), **how)

    assert state[one].result() == 50
    assert state[several].result() == [51, 52, 7]
    # The third item is what it was.
    ran = {"report": 1, "report[0]": 1, "report[1]": 1, "fail": 1}
    assert scene.took() == ran
    assert "report-1: it has another constant as 'x'" in caplog.text
    assert "report-2: it has another constant as 'x'" in caplog.text

    state = made.run(resume=last(ledger), **how)
    assert state[several].result() == [51, 52, 7]
    assert scene.took() == {}


def test_a_body_that_was_mended_counts_where_nobody_reads_the_task(
    runner, ledger, scene, caplog
):
    how = {"ledger": ledger, "task_runner": runner}
    for policy, ran in ((None, 4), (NO_CACHE, 0)):
        options = {} if policy is None else {"cache_policy": policy}
        scene.bad = {"fail"}
        report_and_fail(scene, 1, lambda x: x, **options)[0].run(**how)
        scene.bad.clear()
        scene.took()

        made, one, several = report_and_fail(scene, 1, lambda x: -x, **options)
        state = made.run(resume=last(ledger), **how)

        took = scene.took()
        assert took.pop("fail") == 1
        assert sum(took.values()) == ran
        assert state[one].result() == (-1 if ran else 1)
        assert state[several].result() == ([-2, -3, -7] if ran else [2, 3, 7])
    assert "report-1: its function has changed" in caplog.text


@pytest.mark.parametrize("options", [{}, {"cache_policy": NO_CACHE}])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("xs", [[1, 2, 3, 4], [7, 2, 3], [1, 2]])
def test_a_completed_run_with_another_list_has_another_total(
    runner, ledger, scene, options, kept, xs
):
    def made(xs):
        square = scene.task("square", lambda x: x * x, **options)
        total = scene.task("total", lambda xs: sum(xs), stored=kept, **options)
        with Flow("squares") as found:
            result = total(square.map(xs))
        return found, result

    how = {"ledger": ledger, "task_runner": runner}
    made([1, 2, 3])[0].run(**how)
    scene.took()

    after, result = made(xs)
    state = after.run(resume=last(ledger), **how)

    assert state[result].result() == sum(x * x for x in xs)
    fresh = {f"square[{n}]": 1 for n, x in enumerate(xs) if x not in (1, 2, 3)}
    assert scene.took() == {**fresh, "total": 1}


def test_a_resumed_run_that_died_does_not_hide_what_differed(ledger, scene):
    def made(constant):
        first = scene.task("first", lambda x: x, cache_policy=NO_CACHE)
        second = scene.task("second", lambda x: 2 * x, cache_policy=NO_CACHE)
        with Flow("two") as found:
            result = second(first(constant))
        return found, result

    how = {"ledger": ledger, "task_runner": SequentialTaskRunner()}
    made(1)[0].run(**how)
    # The second attempt comes as far as the first task.
    after, result = made(5)
    scene.bad = {"second"}
    after.run(resume=last(ledger), **how)
    scene.bad.clear()
    scene.took()

    state = after.run(resume=last(ledger), **how)

    assert state[result].result() == 10
    assert scene.took() == {"second": 1}


def in_a_relative_store(scene, place):
    scene.store = place
    square = scene.task("square", lambda x: x * x)
    total = scene.task("total", lambda xs: sum(xs), stored=False)
    with Flow("squares") as made:
        result = total(square.map([1, 2, 3]))
    return made, result


@pytest.mark.parametrize("place", ["results", "./results/", "deep/results"])
def test_values_are_taken_from_where_a_relative_store_was(
    runner, ledger, scene, tmp_path, monkeypatch, place
):
    how = {"ledger": ledger, "task_runner": runner}
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "x")
    scene.bad = {"square[1]"}
    in_a_relative_store(scene, place)[0].run(**how)
    scene.bad.clear()
    scene.took()

    monkeypatch.chdir(tmp_path / "y")
    made, result = in_a_relative_store(scene, place)
    state = made.run(resume=last(ledger), **how)

    assert state[result].result() == 14
    assert scene.took() == {"square[1]": 1, "total": 1}
    assert not list((tmp_path / "y").iterdir())


def test_a_function_flow_finds_a_relative_store_on_dask(
    client, ledger, tmp_path, monkeypatch
):
    begins = tmp_path / "begins"

    def made():
        @task(persist_result=True, result_storage="results")
        def work(x):
            with begins.open("a") as file:
                print(x, file=file)
            return x

        @flow(name="etl", task_runner=DaskTaskRunner(client), ledger=ledger)
        def etl():
            found = sum(work.map(range(3)).result())
            if not (tmp_path / "mended").exists():
                raise ValueError("not yet")
            return found

        return etl

    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "x")
    with pytest.raises(ValueError, match="not yet"):
        made()()
    (tmp_path / "mended").touch()
    monkeypatch.chdir(tmp_path / "y")

    assert made().resume(last(ledger)) == 3
    assert sorted(begins.read_text().split()) == ["0", "1", "2"]


def test_values_that_are_not_where_they_were_are_told_once(
    runner, ledger, scene, tmp_path, caplog
):
    how = {"ledger": ledger, "task_runner": runner}
    scene.bad = {"square[1]"}
    in_a_relative_store(scene, str(tmp_path / "old"))[0].run(**how)
    scene.bad.clear()

    in_a_relative_store(scene, str(tmp_path / "new"))[0].run(resume=last(ledger), **how)
    told = f"2 task runs that are stored in {tmp_path / 'old'} are looked for in "
    assert caplog.text.count(told + str(tmp_path / "new")) == 1

    scene.bad = {"total"}
    in_a_relative_store(scene, str(tmp_path / "new"))[0].run(**how)
    scene.bad.clear()
    scene.took()
    shutil.rmtree(tmp_path / "new")
    made, result = in_a_relative_store(scene, str(tmp_path / "new"))
    assert made.run(resume=last(ledger), **how)[result].result() == 14
    told = f"3 task runs that are stored in {tmp_path / 'new'} were not found there"
    assert caplog.text.count(told) == 1


@pytest.mark.parametrize("options", [{}, {"cache_policy": NO_CACHE}])
def test_a_resume_that_finds_nothing_says_so(runner, scene, caplog, options):
    made, _ = squares(scene, **options)
    ids = []
    watch = scene.task("watch", lambda: ids.append(context.flow_run_id), stored=False)
    with made:
        watch()
    how = {"xs": [1, 2], "ledger": False, "task_runner": runner}
    made.run(**how)
    made.run(resume=ids[0], **how)
    assert "nothing of that run was found" not in caplog.text

    made.run(resume="0" * 32, **how)
    assert f"nothing of that run was found in {scene.store}; it runs" in caplog.text


def test_parameters_that_nobody_knows_are_told(ledger, scene, caplog):
    double = scene.task("double", lambda x: 2 * x)
    with Flow("double") as graph:
        double(Parameter("n", default=5))

    @flow
    def function(n=5):
        return n

    runner = SequentialTaskRunner()
    graph.run(n=7, resume="0" * 32, ledger=False, task_runner=runner)
    function.resume("0" * 32, {"n": 7}, ledger=False)
    assert "is not known" not in caplog.text

    graph.run(resume="0" * 32, ledger=False, task_runner=runner)
    assert function.resume("0" * 32, ledger=False) == 5
    told = "'n' is not given now, and the default stands; give the parameters"
    assert caplog.text.count(told) == 2


@pytest.mark.parametrize("stored", [False, True])
def test_lists_that_are_gone_are_not_counted_if_nobody_reads_them(
    ledger, runner, scene, stored
):
    lists = scene.task("lists", lambda n: list(range(n)), stored=stored)
    square = scene.task("square", lambda x: x * x)
    other = scene.task("other", lambda: 1)
    with Flow("flattened") as made:
        square.map(flatten(lists.map([2, 3])))
        result = other()
    scene.bad = {"other"}
    made.run(ledger=ledger, task_runner=runner)
    scene.bad.clear()
    scene.took()
    store = ResultStore(scene.store)
    for key in store.list_keys():
        if store.read(key).metadata.task == "lists":
            store.delete(key)

    state = made.run(resume=last(ledger), ledger=ledger, task_runner=runner)

    assert state[result].result() == 1
    assert scene.took() == {"other": 1}


def test_a_paused_task_is_resumed(ledger, tmp_path):
    @task
    def ask():
        if not context.get("resume"):
            raise PAUSE("wait for me")
        return "asked"

    with Flow("pause") as made:
        result = ask()
    again = {"ledger": ledger, "task_runner": SequentialTaskRunner()}
    assert made.run(**again).is_paused()

    assert made.run(resume=last(ledger), **again)[result].result() == "asked"


# -- what is refused -----------------------------------------------------------------


def test_the_run_of_another_flow_is_refused(ledger, scene):
    made, _ = squares(scene)
    made.run(xs=[1], ledger=ledger, task_runner=SequentialTaskRunner())
    with Flow("other") as other:
        pass
    with pytest.raises(ResumeError, match="which is one of flow 'squares'"):
        other.run(resume=last(ledger), ledger=ledger)

    @flow(name="squares")
    def function():
        return 1

    with pytest.raises(ResumeError, match="a graph flow of the same name"):
        function.resume(last(ledger), ledger=ledger)


def test_an_unknown_run_is_refused(ledger, scene):
    made, _ = squares(scene)
    with pytest.raises(UnknownRunError, match="has no run 'ffff'"):
        made.run(xs=[1], resume="ffff", ledger=ledger)
    with pytest.raises(ResumeError, match="only a whole id"):
        made.run(xs=[1], resume="ffff", ledger=False)


def test_of_several_who_resume_a_run_at_once_one_does(ledger, scene):
    made, _ = squares(scene)
    how = {"ledger": ledger, "task_runner": SequentialTaskRunner()}
    scene.bad.add("square[1]")
    made.run(xs=[1, 2], **how)
    scene.bad.clear()
    scene.took()
    # The other one looks before this one is entered, and is entered later.
    looked, begun = threading.Event(), threading.Event()

    class Waiting(Ledger):
        def run(self, id):
            found = super().run(id)
            _ = found.parameters_told, found.nodes
            looked.set()
            begun.wait(30)
            return found

    refused = []

    def resume():
        try:
            made.run(resume=run_id, **{**how, "ledger": Waiting(ledger.url)})
        except ResumeError as error:
            refused.append(str(error))

    run_id = last(ledger)
    other = threading.Thread(target=resume)
    other.start()
    looked.wait(30)
    assert made.run(resume=run_id, **how).is_successful()
    begun.set()
    other.join()
    assert "was resumed by somebody else" in refused[0]
    assert len(ledger.run(run_id).attempts) == 2


# -- function flows ------------------------------------------------------------------


def test_a_function_flow_takes_what_it_had_stored(local_flow_runner, ledger, scene):
    load = scene.task("load", lambda x: x + 1)
    total = scene.task("total", lambda xs: sum(xs))

    @flow(task_runner=local_flow_runner, ledger=ledger)
    def etl(n):
        first = load(0)
        parts = [load.submit(k) for k in range(1, n)]
        more = load.map(range(10, 10 + n))
        return first + total([p.result() for p in parts]) + total.submit(more).result()

    scene.bad = {"load[2]"}
    with pytest.raises(Exception):  # noqa: B017, PT011
        etl(4)
    assert sum(scene.took().values()) == 9
    scene.bad.clear()

    assert etl.resume(last(ledger)[:12]) == 1 + 9 + 50
    assert scene.took() == {"load[2]": 1, "total": 1}


def test_a_function_flow_is_resumed_on_dask_without_a_ledger(client, tmp_path):
    begins = tmp_path / "begins"

    @task(persist_result=True, result_storage=str(tmp_path / "store"))
    def work(x):
        with begins.open("a") as file:
            print(x, file=file)
        if x == 3 and not (tmp_path / "mended").exists():
            raise ValueError(x)
        return x

    ids = []

    @flow(task_runner=DaskTaskRunner(client))
    def etl(n):
        ids.append(context.flow_run_id)
        return sum(work.map(range(n)).result())

    with pytest.raises(ValueError, match="3"):
        etl(5)
    (tmp_path / "mended").touch()

    assert etl.resume(ids[0], {"n": 5}) == 10
    assert ids[0] == ids[1]
    assert sorted(begins.read_text().split()) == ["0", "1", "2", "3", "3", "4"]


def test_flows_inside_of_a_resumed_one_take_what_they_had_stored(ledger, scene):
    work = scene.task("work", lambda x: x, cache_policy=NO_CACHE)
    with Flow("graph") as graph:
        result = work(Parameter("x"))

    @flow
    def inner(x):
        return work(x)

    @task
    def runs_a_flow(x):
        return inner(x)

    @flow(ledger=ledger, task_runner=ThreadPoolTaskRunner(1))
    def outer():
        found = [inner(1), inner(2), runs_a_flow.submit(3).result()]
        found.append(
            graph.run(x=4, task_runner=SequentialTaskRunner())[result].result()
        )
        if scene.bad:
            raise ValueError("not yet")
        return found

    scene.bad = {"outer"}
    with pytest.raises(ValueError, match="not yet"):
        outer()
    assert scene.took() == {"work": 4}
    scene.bad.clear()

    (top,) = ledger.runs(flow="outer")
    assert outer.resume(top.id) == [1, 2, 3, 4]
    assert scene.took() == {}
    # Two runs of it in the flow, and one in the task; each had two attempts.
    assert [run.attempt for run in ledger.runs(flow="inner")] == [2, 2, 2]


def test_each_run_of_a_flow_inside_of_another_is_one_of_its_own(ledger, scene):
    work = scene.task("work", lambda x: x, cache_policy=NO_CACHE)

    @flow
    def inner(x):
        return work(x)

    @flow(ledger=ledger)
    def outer():
        return [inner(x) for x in range(3)]

    assert outer() == outer() == [0, 1, 2]
    assert scene.took() == {"work": 6}


def test_another_attempt_of_a_body_runs_its_flows_anew(scene):
    work = scene.task("work", lambda x: x, cache_policy=NO_CACHE)

    @flow
    def inner(x):
        return work(x)

    @task(retries=1)
    def retried():
        attempt = context.task_run_count
        if inner(attempt) == 1:
            raise ValueError("once more")
        return attempt

    @flow
    def outer():
        return retried()

    assert outer() == 2
    assert scene.took() == {"work": 2}


# -- deaths ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 3, 5])
def test_a_run_survives_the_death_of_its_processes(seed):
    # In a process of its own, which forks those that are killed. The other seeds:
    # python -m tests.deaths.drill --seeds 50
    done = subprocess.run(
        [sys.executable, "-m", "tests.deaths.drill", "--first", str(seed), "--seeds=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
