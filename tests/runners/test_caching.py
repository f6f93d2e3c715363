"""What is kept of runs and taken again, and what a run is called, logs and shows."""

import asyncio
import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dask
import pytest

from prefect_dask_core import (
    Flow,
    Parameter,
    SequentialTaskRunner,
    Task,
    cached_values,
    context,
    task,
)
from prefect_dask_core.cache_validators import (
    all_inputs,
    all_parameters,
    duration_only,
    never_use,
    partial_inputs_only,
    partial_parameters_only,
)
from prefect_dask_core.errors import TemplateError
from prefect_dask_core.results.result import LocalResult
from prefect_dask_core.results.serializers import JSONSerializer
from prefect_dask_core.signals import SUCCESS
from prefect_dask_core.states import Cached

#: What ran; the workers of the shared cluster are in this process.
LOG = []
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    LOG.clear()
    monkeypatch.setattr(cached_values, "_KNOWN", {})


@task
def inc(x):
    LOG.append(f"inc {x}")
    return x + 1


@task
def add(x, y=0):
    LOG.append(f"add {x} {y}")
    return x + y


@task
def give_none():
    LOG.append("none")


@task
def boom():
    LOG.append("boom")
    raise ValueError("boom")


class Shelf:
    """A result handler of the older kind, with files in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, value):
        path = self.folder / "shelf.txt"
        path.write_text(str(value), encoding="utf-8")
        return str(path)

    def read(self, location):
        return int(Path(location).read_text(encoding="utf-8"))


class Clumsy(LocalResult):
    """A result whose first two writes fail."""

    def write(self, value, **kwargs):
        LOG.append("write")
        if LOG.count("write") < 3:
            raise OSError("disk is full")
        return super().write(value, **kwargs)


def kind(state):
    return type(state).__name__


def ran():
    """What ran since the last question, in the order of its text."""
    found = sorted(LOG)
    LOG.clear()
    return found


def cached_flow(made, *args, **kwargs):
    with Flow("cached") as flow:
        result = made(*args, **kwargs)
    return flow, result


def run_twice(runner, made, **parameters):
    """States of a task that reads the parameter x, in two runs."""
    with Flow("cached") as flow:
        given = {name: Parameter(name) for name in parameters}
        result = made(**{n: given[n] for n in given if n in made.inputs()})
        for name in given:
            flow.add_task(given[name])
    states = []
    for number in (0, 1):
        values = {name: parameters[name][number] for name in parameters}
        states.append(flow.run(values, task_runner=runner)[result])
    return states


# -- cache_for ---------------------------------------------------------------------


def test_a_value_stands_for_later_runs(runner):
    flow, result = cached_flow(inc.with_options(cache_for=HOUR), 1)
    first, second = (flow.run(task_runner=runner)[result] for _ in range(2))
    assert ran() == ["inc 1"]
    assert kind(first) == kind(second) == "Cached"
    assert first.result() == second.result() == 2
    assert second.message == "taken from an earlier run."
    assert flow.run(task_runner=runner).is_successful()


@pytest.mark.parametrize("how", ["run", "compile"])
def test_a_mapped_task_whose_cache_ignores_its_inputs_is_warned_about(how):
    with Flow("cached") as flow:
        inc.with_options(cache_for=HOUR).map([1, 2])
    with pytest.warns(UserWarning, match=r"'inc-1' is mapped with cache.*all_inputs"):
        getattr(flow, how)()


@pytest.mark.parametrize("validator", [all_inputs, duration_only])
def test_a_validator_that_was_chosen_is_not_warned_about(validator):
    with Flow("cached") as flow:
        inc.with_options(cache_for=HOUR, cache_validator=validator).map([1, 2])
        inc.with_options(cache_for=HOUR)(1)
    assert flow.run(task_runner=SequentialTaskRunner()).is_successful()


def test_a_target_that_is_the_same_for_all_children_is_warned_about(tmp_path):
    place = LocalResult(str(tmp_path))
    with Flow("targets") as flow:
        many = inc.with_options(target="one.pickle", result=place).map([1, 2])
    with pytest.warns(UserWarning, match=r"'inc-1' .* target='one.pickle', the same"):
        state = flow.run(task_runner=SequentialTaskRunner())
    assert state[many].result() == [2, 2]


@pytest.mark.parametrize("target", ["{map_index}", "{x}", lambda **given: given["x"]])
def test_a_target_that_may_differ_is_not_warned_about(target, tmp_path):
    place = LocalResult(str(tmp_path))
    with Flow("targets") as flow:
        many = inc.with_options(target=target, result=place).map(["1", "2"])
    assert len(flow.run(task_runner=SequentialTaskRunner())[many]) == 2


def test_nothing_is_cached_without_cache_for(runner):
    flow, result = cached_flow(inc, 1)
    for _ in range(2):
        assert kind(flow.run(task_runner=runner)[result]) == "Completed"
    assert ran() == ["inc 1"] * 2


def test_a_value_that_has_expired_is_made_anew(runner):
    brief = timedelta(microseconds=1)
    flow, result = cached_flow(inc.with_options(cache_for=brief), 1)
    for _ in range(2):
        assert flow.run(task_runner=runner)[result].result() == 2
    assert ran() == ["inc 1"] * 2
    assert cached_values._KNOWN == {}


def test_a_failure_is_not_cached(runner):
    flow, result = cached_flow(boom.with_options(cache_for=HOUR))
    for _ in range(2):
        assert kind(flow.run(task_runner=runner)[result]) == "Failed"
    assert ran() == ["boom"] * 2


def test_what_reads_a_cached_value_runs(runner):
    with Flow("cached") as flow:
        first = inc.with_options(cache_for=HOUR)(1)
        second = inc(first)
    for _ in range(2):
        assert flow.run(task_runner=runner)[second].result() == 3
    assert ran() == ["inc 1", "inc 2", "inc 2"]


@pytest.mark.parametrize(
    ("validator", "parameters", "times"),
    [
        (None, {"x": (1, 2)}, 1),
        (duration_only, {"x": (1, 2)}, 1),
        (never_use, {"x": (1, 1)}, 2),
        (all_inputs, {"x": (1, 1), "other": (1, 2)}, 1),
        (all_inputs, {"x": (1, 2)}, 2),
        (all_parameters, {"x": (1, 1), "other": (1, 1)}, 1),
        (all_parameters, {"x": (1, 1), "other": (1, 2)}, 2),
        (partial_inputs_only(["x"]), {"x": (1, 1), "y": (1, 2)}, 1),
        (partial_inputs_only(["y"]), {"x": (1, 1), "y": (1, 2)}, 2),
        (partial_inputs_only(), {"x": (1, 2), "y": (1, 2)}, 1),
        (partial_parameters_only(["other"]), {"x": (1, 2), "other": (1, 1)}, 1),
        (partial_parameters_only(["x"]), {"x": (1, 2), "other": (1, 1)}, 2),
        (partial_parameters_only(), {"x": (1, 2)}, 1),
        (lambda state, inputs, parameters: inputs["x"] == 1, {"x": (1, 1)}, 1),
        (lambda state, inputs, parameters: parameters["x"] == 1, {"x": (1, 2)}, 2),
        (lambda state, inputs, parameters: state.result() == 1, {"x": (1, 2)}, 1),
    ],
)
def test_a_validator_decides(runner, validator, parameters, times):
    made = add.with_options(cache_for=HOUR, cache_validator=validator)
    first, second = run_twice(runner, made, **parameters)
    assert len(ran()) == times
    assert kind(first) == kind(second) == "Cached"
    taken = second.message == "taken from an earlier run."
    assert taken == (times == 1)


def test_all_values_that_have_not_expired_are_tried(runner):
    made = inc.with_options(cache_for=HOUR, cache_validator=all_inputs)
    flow, result = cached_flow(made, Parameter("x"))
    for x in (1, 2, 1, 2, 3):
        assert flow.run(x=x, task_runner=runner)[result].result() == x + 1
    assert ran() == ["inc 1", "inc 2", "inc 3"]


def test_a_validator_that_raises_fails_the_run(runner):
    def raising(state, inputs, parameters):
        raise KeyError("nothing")

    made = inc.with_options(cache_for=HOUR, cache_validator=raising)
    flow, result = cached_flow(made, 1)
    # There is no cached value yet that it could be asked about.
    assert flow.run(task_runner=runner)[result].result() == 2
    state = flow.run(task_runner=runner)[result]
    assert kind(state) == "Failed"
    assert state.message == "KeyError: 'nothing'"
    assert ran() == ["inc 1"]


def test_values_are_shared_by_key(runner):
    with Flow("shared") as first:
        one = inc.with_options(cache_for=HOUR, cache_key="k")(1)
    with Flow("other") as second:
        two = inc.with_options(cache_for=HOUR, cache_key="k", name="two")(2)
        three = inc.with_options(cache_for=HOUR)(3)
    assert first.run(task_runner=runner)[one].result() == 2
    state = second.run(task_runner=runner)
    assert (state[two].result(), state[three].result()) == (2, 4)
    assert ran() == ["inc 1", "inc 3"]


def test_values_are_shared_by_name_without_a_key(runner):
    first, one = cached_flow(inc.with_options(cache_for=HOUR), 1)
    second, two = cached_flow(inc.with_options(cache_for=HOUR), 2)
    third, three = cached_flow(inc.with_options(cache_for=HOUR, name="other"), 3)
    found = [
        flow.run(task_runner=runner)[result].result()
        for flow, result in ((first, one), (second, two), (third, three))
    ]
    assert found == [2, 2, 4]


def test_children_are_cached_one_by_one(runner):
    made = inc.with_options(cache_for=HOUR, cache_validator=all_inputs)
    with Flow("cached") as flow:
        result = made.map(Parameter("xs"))
    state = flow.run(xs=[1, 2], task_runner=runner)
    assert [kind(child) for child in state[result]] == ["Cached", "Cached"]
    state = flow.run(xs=[2, 3, 1], task_runner=runner)
    assert state[result].result() == [3, 4, 2]
    assert [
        child.message == "taken from an earlier run." for child in state[result]
    ] == [
        True,
        False,
        True,
    ]
    assert ran() == ["inc 1", "inc 2", "inc 3"]


def test_the_own_value_of_success_is_cached(runner):
    made = Task(lambda: _raise_success(), name="made", cache_for=HOUR)
    flow, result = cached_flow(made)
    for _ in range(2):
        assert flow.run(task_runner=runner)[result].result() == 5
    assert ran() == ["success"]


def _raise_success():
    LOG.append("success")
    raise SUCCESS("early", result=5)


# -- target, result, persist_result --------------------------------------------------


def test_a_target_that_is_there_is_taken(runner, tmp_path):
    made = inc.with_options(target="{x}.pkl", result=LocalResult(tmp_path))
    flow, result = cached_flow(made, Parameter("x"))
    first = flow.run(x=1, task_runner=runner)[result]
    second = flow.run(x=1, task_runner=runner)[result]
    third = flow.run(x=2, task_runner=runner)[result]
    assert [kind(s) for s in (first, second, third)] == [
        "Completed",
        "Cached",
        "Completed",
    ]
    assert (second.message, second.result()) == ("taken from its target.", 2)
    assert second.cached_result_expiration is None
    assert ran() == ["inc 1", "inc 2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.pkl", "2.pkl"]


def test_a_target_reads_parameters_context_and_inputs(runner, tmp_path):
    target = "{flow_name}/{today}-{size}-{task_name}-{map_index}-{x}.json"
    result = LocalResult(tmp_path, serializer=JSONSerializer())
    with Flow("named") as flow:
        Parameter("size", default=7)()
        many = inc.with_options(target=target, result=result).map([1, 2])
    state = flow.run(task_runner=runner, context={"date": "2024-03-01"})
    assert state[many].result() == [2, 3]
    assert {path.name: path.read_text() for path in tmp_path.glob("named/*")} == {
        "2024-03-01-7-inc-0-1.json": "2",
        "2024-03-01-7-inc-1-2.json": "3",
    }
    state = flow.run(task_runner=runner, context={"date": "2024-03-01"})
    assert [kind(child) for child in state[many]] == ["Cached"] * 2
    assert ran() == ["inc 1", "inc 2"]


def test_a_target_may_be_a_callable(runner, tmp_path):
    made = add.with_options(
        target=lambda x, y, map_index: f"{x}-{y}-{map_index}.pkl",
        result=LocalResult(tmp_path),
    )
    flow, _ = cached_flow(made, 1)
    flow.run(task_runner=runner)
    # The default of an input is one too.
    assert [path.name for path in tmp_path.iterdir()] == ["1-0-None.pkl"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("{nothing}.pkl", "location '{nothing}.pkl' names 'nothing', which is unknown"),
        (lambda: 1 // 0, "ZeroDivisionError"),
        (lambda: 3, "location callable <lambda> returned 3; it must return a string"),
        ("../{x}.pkl", "leads out of the folder"),
    ],
)
def test_a_wrong_target_fails_the_run_without_its_body(
    runner, tmp_path, target, message
):
    made = inc.with_options(target=target, result=LocalResult(tmp_path), retries=2)
    flow, result = cached_flow(made, 1)
    state = flow.run(task_runner=runner)[result]
    assert kind(state) == "Failed"
    assert message in state.message
    assert ran() == []


def test_a_damaged_file_is_made_anew(runner, tmp_path):
    made = inc.with_options(target="one.pkl", result=LocalResult(tmp_path))
    flow, result = cached_flow(made, 1)
    (tmp_path / "one.pkl").write_bytes(b"not a pickle")
    assert kind(flow.run(task_runner=runner)[result]) == "Completed"
    state = flow.run(task_runner=runner)[result]
    assert (kind(state), state.result()) == ("Cached", 2)
    assert ran() == ["inc 1"]


def test_none_and_failures_are_not_written(runner, tmp_path):
    options = {"result": LocalResult(tmp_path), "target": "{task_name}.pkl"}
    with Flow("kept") as flow:
        give_none.with_options(**options)()
        boom.with_options(**options)()
    for _ in range(2):
        flow.run(task_runner=runner)
    assert list(tmp_path.iterdir()) == []
    assert ran() == ["boom"] * 2 + ["none"] * 2


def test_a_target_is_taken_though_nothing_is_written(runner, tmp_path):
    LocalResult(tmp_path, location="one.pkl").write(41)
    options = {"result": LocalResult(tmp_path), "persist_result": False}
    with Flow("kept") as flow:
        one = inc.with_options(target="one.pkl", **options)(1)
        two = inc.with_options(target="two.pkl", **options)(2)
    state = flow.run(task_runner=runner)
    assert (state[one].result(), state[two].result()) == (41, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["one.pkl"]


def test_a_result_is_written_and_never_taken(runner, tmp_path):
    made = inc.with_options(
        persist_result=True, result=LocalResult(tmp_path, location="{x}.pkl")
    )
    flow, result = cached_flow(made, 1)
    for _ in range(2):
        assert kind(flow.run(task_runner=runner)[result]) == "Completed"
    assert ran() == ["inc 1"] * 2
    assert LocalResult(tmp_path).read("1.pkl").value == 2


def test_a_value_without_a_place_is_written_under_its_run(runner, tmp_path):
    with Flow("kept") as flow:
        inc.with_options(checkpoint=True).map([1, 2])
    with dask.config.set({"prefect-dask-core.result-storage": str(tmp_path)}):
        for _ in range(2):
            flow.run(task_runner=runner)
    assert sorted(path.name for path in tmp_path.glob("runs/*/inc-1/*")) == [
        *["0"] * 2,
        *["1"] * 2,
    ]
    assert ran() == ["inc 1"] * 2 + ["inc 2"] * 2  # an older checkpoint takes none


@pytest.mark.parametrize("name", ["kept", "a/b c", ".."])
def test_a_target_without_a_result_is_one_of_its_flow(
    runner, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(
        "prefect_dask_core.results.keeping.results_dir", lambda: str(tmp_path / "all")
    )
    made = inc.with_options(target="one.pkl")
    kinds = []
    for flow_name in (name, name, "other"):
        with Flow(flow_name) as flow:
            result = made(1)
        kinds.append(kind(flow.run(task_runner=runner)[result]))
    assert kinds == ["Completed", "Cached", "Completed"]
    assert len(list((tmp_path / "all").glob("*/one.pkl"))) == 2


@pytest.mark.parametrize("letter", ["a", " ", "ä", "\N{SNOWMAN}", "\U0001f40d"])
def test_flows_with_long_names_keep_their_targets_apart(tmp_path, monkeypatch, letter):
    monkeypatch.setattr(
        "prefect_dask_core.results.keeping.results_dir", lambda: str(tmp_path / "all")
    )
    kinds = []
    for end in ("one", "one", "two"):
        with Flow(200 * letter + end) as flow:
            result = inc.with_options(target="one.pkl")(1)
        state = flow.run(task_runner=SequentialTaskRunner())
        kinds.append(kind(state[result]))
    assert kinds == ["Completed", "Cached", "Completed"]
    names = [path.name for path in (tmp_path / "all").iterdir()]
    assert len(names) == 2
    assert max(map(len, names)) <= 120


def test_an_older_handler_writes_the_value(runner, tmp_path):
    made = inc.with_options(result_handler=Shelf(tmp_path), checkpoint=True)
    flow, result = cached_flow(made, 1)
    assert flow.run(task_runner=runner)[result].result() == 2
    assert (tmp_path / "shelf.txt").read_text() == "2"


def test_a_value_that_cannot_be_written_fails_the_attempt(runner, tmp_path):
    made = inc.with_options(result=Clumsy(tmp_path, location="a.pkl"))
    flow, result = cached_flow(made, 1)
    state = flow.run(task_runner=runner)[result]
    assert kind(state) == "Failed"
    assert state.message == "the value could not be stored: OSError: disk is full"
    with pytest.raises(OSError, match="disk is full"):
        state.result()


def test_a_value_that_cannot_be_written_is_made_again(runner, tmp_path):
    made = inc.with_options(result=Clumsy(tmp_path, location="a.pkl"), retries=2)
    flow, result = cached_flow(made, 1)
    assert flow.run(task_runner=runner)[result].result() == 2
    assert ran() == ["inc 1"] * 3 + ["write"] * 3


# -- names of runs -------------------------------------------------------------------


@task
def own_name(x, y=5):
    return context.task_run_name


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("{x}-{y}-{map_index}", ["a-5-0", "b-5-1"]),
        ("{task_name} of {flow_name}, {size}", ["own_name of named, 7"] * 2),
        (lambda x, parameters: f"{x} {parameters['size']}", ["a 7", "b 7"]),
        (lambda **known: known["task_full_name"], ["own_name[0]", "own_name[1]"]),
    ],
)
def test_a_run_has_a_name(runner, option, expected):
    with Flow("named") as flow:
        Parameter("size", default=7)()
        names = own_name.with_options(task_run_name=option).map(["a", "b"])
    assert flow.run(task_runner=runner)[names].result() == expected


def test_a_target_may_use_the_name_of_its_run(runner, tmp_path):
    made = inc.with_options(
        task_run_name="number-{x}",
        target="{task_run_name}.pkl",
        result=LocalResult(tmp_path),
    )
    flow, _ = cached_flow(made, 1)
    flow.run(task_runner=runner)
    assert [path.name for path in tmp_path.iterdir()] == ["number-1.pkl"]


def test_a_name_that_cannot_be_made_fails_the_run(runner):
    flow, result = cached_flow(own_name.with_options(task_run_name="{nothing}"), 1)
    state = flow.run(task_runner=runner)[result]
    assert kind(state) == "Failed"
    assert "task_run_name '{nothing}' names 'nothing', which is unknown" in (
        state.message
    )
    with pytest.raises(TemplateError):
        state.result()


# -- logs ----------------------------------------------------------------------------


@task
def talk(x):
    print("first", x, end=" ")
    print("line\nsecond line")
    print("rest", end="")


@task
async def talk_later(x):
    for number in range(3):
        print(f"{x}:{number}", end="")
        await asyncio.sleep(0)
        print()


@task
def log(x):
    context.logger.info("about %s", x)
    context.logger.warning("careful")


def lines(caplog, name):
    """What the run of that name logged."""
    found = [r for r in caplog.records if getattr(r, "task_full_name", None) == name]
    return [record.getMessage().partition(": ")[2] for record in found]


def test_prints_go_to_the_log_as_whole_lines(runner, caplog, capsys):
    caplog.set_level(logging.INFO, logger="prefect_dask_core.task_runs")
    with Flow("prints") as flow:
        talk.with_options(log_prints=True).map(range(4))
        talk_later.with_options(log_stdout=True).map(range(4))
    assert flow.run(task_runner=runner).is_successful()
    for i in range(4):
        assert lines(caplog, f"talk[{i}]") == [f"first {i} line", "second line", "rest"]
        assert lines(caplog, f"talk_later[{i}]") == [f"{i}:{n}" for n in range(3)]
    assert capsys.readouterr().out == ""


def run_unheard(flow, runner):
    """Run where nobody configured logging; pytest itself listens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.root, "handlers", [])
        return flow.run(task_runner=runner)


def test_what_nobody_handles_goes_to_stderr(runner, capsys):
    with Flow("unheard") as flow:
        log.with_options(log_prints=True)(7)
        talk.with_options(log_prints=True).map([1])
    assert run_unheard(flow, runner).is_successful()
    found = capsys.readouterr()
    assert found.out == ""
    assert sorted(found.err.splitlines()) == [
        "INFO Task 'log': about 7",
        "INFO Task 'talk[0]': first 1 line",
        "INFO Task 'talk[0]': rest",
        "INFO Task 'talk[0]': second line",
        "WARNING Task 'log': careful",
    ]


def test_a_level_counts_where_nobody_listens(capsys, caplog):
    caplog.set_level(logging.ERROR, logger="prefect_dask_core")
    with Flow("unheard") as flow:
        log(7)
    run_unheard(flow, SequentialTaskRunner())
    assert capsys.readouterr().err == ""


def test_a_handler_that_does_nothing_silences_runs(capsys, monkeypatch):
    package = logging.getLogger("prefect_dask_core")
    monkeypatch.setattr(package, "handlers", [logging.NullHandler()])
    with Flow("silent") as flow:
        log(7)
    run_unheard(flow, SequentialTaskRunner())
    assert capsys.readouterr().err == ""
    assert not logging.getLogger("prefect_dask_core.task_runs").handlers


def test_a_handler_made_in_a_body_does_not_log_its_own_lines(caplog, capsys):
    caplog.set_level(logging.INFO, logger="prefect_dask_core.task_runs")
    logger = logging.getLogger("prefect_dask_core.task_runs")

    @task(log_prints=True)
    def configure():
        handler = logging.StreamHandler()  # of the stderr that is captured
        logger.addHandler(handler)
        print("one line")
        logger.removeHandler(handler)

    with Flow("inside") as flow:
        configure()
    assert flow.run(task_runner=SequentialTaskRunner()).is_successful()
    assert lines(caplog, "configure") == ["one line"]
    assert capsys.readouterr().err == "Task 'configure': one line\n"


def test_prints_stay_prints_unless_asked_for(runner, caplog, capsys):
    caplog.set_level(logging.INFO, logger="prefect_dask_core.task_runs")
    flow, _ = cached_flow(talk, 1)
    flow.run(task_runner=runner)
    assert lines(caplog, "talk") == []
    assert capsys.readouterr().out == "first 1 line\nsecond line\nrest"


def test_a_body_has_a_logger(runner, caplog):
    caplog.set_level(logging.INFO, logger="prefect_dask_core.task_runs")
    with Flow("logs") as flow:
        log(7)
        log.with_options(name="each").map([8])
    flow.run(task_runner=runner)
    assert lines(caplog, "log") == ["about 7", "careful"]
    assert lines(caplog, "each[0]") == ["about 8", "careful"]
    (record,) = (r for r in caplog.records if "about 8" in r.getMessage())
    assert record.getMessage() == "Task 'each[0]': about 8"
    assert (record.levelname, record.map_index, record.task_run_count) == ("INFO", 0, 1)


# -- dates ---------------------------------------------------------------------------

DATES = ("date", "today", "yesterday", "tomorrow", "today_nodash", "tomorrow_nodash")


@task
def dates():
    return {name: context.get(name) for name in DATES}


def test_a_body_reads_the_date(runner):
    flow, result = cached_flow(dates)
    before = datetime.now(timezone.utc)
    found = flow.run(task_runner=runner)[result].result()
    assert before <= found["date"] <= datetime.now(timezone.utc)
    assert found["today"] == found["date"].date().isoformat()


@pytest.mark.parametrize("date", ["2024-03-01", datetime(2024, 3, 1)])
def test_the_date_may_be_given(runner, date):
    flow, result = cached_flow(dates)
    found = flow.run(task_runner=runner, context={"date": date})[result].result()
    assert found == {
        "date": datetime(2024, 3, 1, tzinfo=timezone.utc),
        "today": "2024-03-01",
        "yesterday": "2024-02-29",
        "tomorrow": "2024-03-02",
        "today_nodash": "20240301",
        "tomorrow_nodash": "20240302",
    }


@task
def start():
    return context.scheduled_start_time, context.flow_run_name, context.color


def test_a_body_reads_the_name_and_start_of_its_run(runner):
    flow, result = cached_flow(start)
    state = flow.run(
        task_runner=runner, flow_run_name="monday", context={"color": "blue"}
    )
    began, name, color = state[result].result()
    assert (name, color) == ("monday", "blue")
    assert began.tzinfo is timezone.utc


# -- the order of states ---------------------------------------------------------------


def note_states(task, old, new):
    LOG.append(f"{kind(old)} -> {kind(new)}")


def note_failure(task, state):
    LOG.append(f"{task.name}: {state.message}")


def test_handlers_see_the_states_in_order(runner):
    made = Task(lambda: 1, name="one", cache_for=HOUR, state_handlers=[note_states])
    flow, _ = cached_flow(made)
    flow.run(task_runner=runner)
    assert LOG == [
        "Pending -> Running",
        "Running -> Completed",
        "Completed -> Cached",
    ]
    LOG.clear()
    flow.run(task_runner=runner)
    assert LOG == ["Pending -> Cached"]


def test_handlers_see_retries_and_failures(runner):
    made = Task(
        lambda: 1 // 0,
        name="zero",
        retries=1,
        state_handlers=[note_states],
        on_failure=note_failure,
    )
    flow, _ = cached_flow(made)
    flow.run(task_runner=runner)
    failure = "zero: ZeroDivisionError: integer division or modulo by zero"
    expected = [
        "Pending -> Running",
        "Running -> Failed",
        failure,
        "Failed -> AwaitingRetry",
        "AwaitingRetry -> Retrying",
        "Retrying -> Failed",
        failure,
    ]
    assert expected == LOG


def test_a_refusal_of_the_trigger_is_not_retried(runner):
    with Flow("refused") as flow:
        broken = boom()
        made = Task(lambda x: x, name="t", retries=1, state_handlers=[note_states])
        below = made(broken)
    state = flow.run(task_runner=runner)
    assert kind(state[below]) == "TriggerFailed"
    assert ran() == ["Pending -> TriggerFailed", "boom"]


def test_a_value_that_cannot_be_written_is_seen_as_a_failure(runner, tmp_path):
    made = Task(
        lambda: 1,
        name="one",
        result=Clumsy(tmp_path, location="a.pkl"),
        state_handlers=[note_states],
    )
    flow, _ = cached_flow(made)
    flow.run(task_runner=runner)
    assert LOG == ["Pending -> Running", "write", "Running -> Failed"]


def test_a_cached_value_may_be_refused_by_a_handler(runner):
    def refuse(task, old, new):
        if isinstance(new, Cached) and old.is_pending():
            raise ValueError("not this one")

    made = inc.with_options(cache_for=HOUR, state_handlers=[refuse])
    flow, result = cached_flow(made, 1)
    flow.run(task_runner=runner)
    state = flow.run(task_runner=runner)[result]
    assert kind(state) == "Failed"
    assert state.message == "state handler refuse raised ValueError: not this one"
