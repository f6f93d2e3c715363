"""Options of flows and of their runs, in today's and in older spellings."""

import pickle
from pathlib import Path

import cloudpickle
import pytest

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    Parameter,
    SequentialTaskRunner,
    Task,
    ThreadPoolTaskRunner,
    context,
    resource_manager,
    task,
)
from prefect_dask_core.errors import (
    FlowParameterError,
    GraphError,
    OptionTypeError,
    OptionValueError,
    UnknownOptionError,
)
from prefect_dask_core.results import JSONSerializer, LocalResult, PrefectResult


@task
def inc(x):
    return x + 1


@task
def total(numbers):
    return sum(numbers)


@task
def color():
    return context.get("color", "none")


@task
def names_of_variables():
    return sorted(context)


def written(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def in_order(flow, **options):
    return flow.run(task_runner=SequentialTaskRunner(), **options)


# -- result --------------------------------------------------------------------------


def test_tasks_without_a_result_keep_theirs_where_the_flow_says(run, tmp_path):
    place = LocalResult(tmp_path, location="{task_slug}.json")
    place.serializer = JSONSerializer()
    with Flow("kept", result=place) as flow:
        one = inc(Parameter("x", default=1))
        own = inc.with_options(result=LocalResult(tmp_path, location="own.pkl"))(one)
        kept_not = inc.with_options(persist_result=False, name="not_kept")(own)
        result = total([kept_not, one])
    state = run(flow)
    assert state[result].result() == 6
    # Neither the parameter nor the list that was made for the call is worth a file.
    assert written(tmp_path) == ["inc-1.json", "own.pkl", "total-1.json"]
    assert (tmp_path / "inc-1.json").read_text() == "2"
    assert state.result()[result] == 6  # by the task of the flow, not by its variant


def test_children_keep_their_values_where_the_flow_says(run, tmp_path):
    place = LocalResult(tmp_path, location="{task_name}-{map_index}.pkl")
    with Flow("kept", result=place) as flow:
        made = inc.map([1, 2])
    assert run(flow)[made].result() == [2, 3]
    assert written(tmp_path) == ["inc-0.pkl", "inc-1.pkl"]


def test_a_target_is_looked_for_where_the_flow_keeps_its_values(runner, tmp_path):
    flow = Flow("kept")
    with flow:
        made = inc.with_options(target="{x}.pkl")(1)
    flow.result = LocalResult(tmp_path, location="ignored.pkl")  # may be set later
    names = [type(flow.run(task_runner=runner)[made]).__name__ for _ in range(2)]
    assert names == ["Completed", "Cached"]
    assert written(tmp_path) == ["1.pkl"]


def test_a_result_that_cannot_have_a_target_is_told_before_anything_runs():
    with Flow("kept", result=PrefectResult()) as flow:
        inc.with_options(target="{x}.pkl")(1)
    with pytest.raises(OptionValueError, match=r"'inc': target='\{x\}.pkl' with"):
        in_order(flow)


def test_the_result_of_a_flow_leaves_the_tasks_as_they_are(tmp_path):
    with Flow("kept", result=LocalResult(tmp_path, location="a.pkl")) as flow:
        made = inc(1)
    state = in_order(flow)
    assert made.result is None
    assert next(iter(state.states)) is made
    again = in_order(flow, resume=state)
    assert again[made].result() == 2


@pytest.mark.parametrize("inside", [SequentialTaskRunner, ThreadPoolTaskRunner])
def test_handlers_are_given_the_task_of_the_flow_though_that_has_a_result(
    inside, tmp_path
):
    seen = []

    def note(task, old, new):
        seen.append((flow.slugs[task], task.result))

    def on_completion(task, task_run, state):
        seen.append((flow.slugs[task], task.result))

    with Flow("kept", result=LocalResult(tmp_path, location="{task_slug}")) as flow:
        Task(
            lambda x: x,
            name="t",
            state_handlers=[note],
            on_completion=[on_completion],
        )(1)
    assert flow.run(task_runner=inside()).is_successful()
    assert seen == [("t-1", None)] * 3
    assert written(tmp_path) == ["t-1"]


def test_a_handler_on_a_worker_tells_its_task_by_the_slug(client, tmp_path):
    def note(task, old, new):
        return new.replace(message=f"{task.name} {context.task_slug}")

    with Flow("kept", result=LocalResult(tmp_path, location="{task_slug}")) as flow:
        made = Task(lambda x: x, name="t", state_handlers=[note])(1)
    state = flow.run(task_runner=DaskTaskRunner(cluster=client))
    assert state[made].message == "t t-1"


def test_the_result_of_a_flow_is_not_seen_by_bodies(run, tmp_path):
    with Flow("kept", result=LocalResult(tmp_path, location="{task_slug}")) as flow:
        names = names_of_variables()
        slow = names_of_variables.with_options(timeout_seconds=60)()
    state = run(flow)
    for made in (names, slow):
        assert not [name for name in state[made].result() if "result" in name]


class Manager:
    def __init__(self):
        pass

    def setup(self):
        return 1

    def cleanup(self, resource):
        pass


def test_a_resource_is_not_kept(tmp_path):
    place = LocalResult(tmp_path, location="{task_slug}")
    with Flow("kept", result=place) as flow, resource_manager(Manager)() as resource:
        inc(resource)
    assert in_order(flow).is_successful()
    assert written(tmp_path) == ["inc-1"]


class Handler:
    """A result handler of the older kind."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def write(self, value):
        (self.folder / f"{value}.txt").write_text(str(value))
        return f"{value}.txt"

    def read(self, location):
        return int((self.folder / location).read_text())


def test_a_result_has_an_older_spelling(tmp_path):
    with Flow("kept", result_handler=Handler(tmp_path)) as flow:
        inc(1)
    in_order(flow)
    assert written(tmp_path) == ["2.txt"]
    place = LocalResult(tmp_path)
    assert Flow("kept", result_handler=place).result is place
    with pytest.raises(OptionTypeError, match="two spellings of one option"):
        Flow("kept", result=place, result_handler=Handler(tmp_path))


@pytest.mark.parametrize("option", ["result", "result_handler"])
def test_what_is_no_result_is_refused(option):
    with pytest.raises(TypeError, match=r"flow 'f': result='x'|'x' is no result hand"):
        Flow("f", **{option: "x"})


# -- options that need a server ------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("schedule", r"let cron, .* call flow.run\(\)"),
        ("storage", r"flow.save\(path\)"),
        ("run_config", r"task_runner=DaskTaskRunner\(...\) says where"),
        ("environment", r"task_runner=DaskTaskRunner\(...\) says where"),
    ],
)
def test_what_needs_a_server_is_refused_with_what_to_do(option, told):
    with pytest.raises(OptionValueError, match=rf"'f' was given {option}=3: .*{told}"):
        Flow("f", **{option: 3})
    assert Flow("f", **{option: None}).name == "f"


def test_an_unknown_option_is_told_with_the_nearest():
    with pytest.raises(UnknownOptionError, match="did you mean 'state_handlers'"):
        Flow("f", state_handler=[])


@pytest.mark.parametrize("executor", [DaskTaskRunner, "dask", 3])
def test_an_executor_is_a_task_runner_today(executor):
    with pytest.raises(OptionTypeError, match="expected a task runner such as Dask"):
        Flow("f", executor=executor)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("run_on_schedule", "cron"),
        ("runner_cls", "task_runner="),
        ("task_runner_cls", "task_runner="),
        ("task_runner_state_handlers", "give the handlers to the tasks"),
        ("state", "resume="),
        ("flow_run_id", "flow_run_name="),
    ],
)
def test_an_older_option_of_a_run_is_refused_with_what_to_do(option, told):
    flow = Flow("f", tasks=[Task("t")])
    with pytest.raises(OptionValueError, match=f"run with {option}=3: .*{told}"):
        in_order(flow, **{option: 3})
    assert in_order(flow, **{option: None}).is_successful()


def test_a_run_need_not_follow_a_schedule():
    assert in_order(Flow("f", tasks=[Task("t")]), run_on_schedule=False).is_successful()


def test_a_parameter_may_be_called_as_an_older_option_was():
    with Flow("f") as flow:
        made = inc(Parameter("state"))
    assert in_order(flow, state=1)[made].result() == 2


# -- return_tasks --------------------------------------------------------------------


def test_one_task_may_be_returned_without_a_list(runner):
    with Flow("f") as flow:
        first = inc.with_options(nout=2)(1)  # which could be iterated over
        inc(first)
    state = flow.run(task_runner=runner, return_tasks=first)
    assert state[first].result() == 2


@pytest.mark.parametrize("wrong", [["inc"], "inc", [inc]])
def test_only_tasks_of_the_flow_are_returned(wrong):
    with Flow("f") as flow:
        inc(1)
    with pytest.raises(GraphError, match="return_tasks names"):
        in_order(flow, return_tasks=wrong)


# -- task_contexts -------------------------------------------------------------------


def test_a_task_may_have_context_variables_of_its_own(runner):
    with Flow("f") as flow:
        one, two = color(), color()
        many = color.map(upstream_tasks=[[1, 2]])
    contexts = {one: {"color": "red"}, many: {"color": "blue"}}
    state = flow.run(
        task_runner=runner, context={"color": "grey"}, task_contexts=contexts
    )
    assert state[one].result() == "red"
    assert state[two].result() == "grey"
    assert state[many].result() == ["blue", "blue"]


def test_own_context_variables_of_one_task_are_not_seen_by_another(runner):
    with Flow("f") as flow:
        one, two = color(), names_of_variables()
    contexts = {one: {"color": "red", "secret": 1}}
    state = flow.run(task_runner=runner, task_contexts=contexts)
    assert not {"color", "secret", "task_contexts"} & set(state[two].result())


def test_a_context_variable_may_be_called_as_the_option_of_the_run(runner):
    with Flow("f") as flow:
        made = Task(lambda: context.task_contexts, name="t")()
    state = flow.run(task_runner=runner, context={"task_contexts": "my own"})
    assert state[made].result() == "my own"


def needs_a_color(states):
    return context.color == "red"


def test_own_context_variables_are_seen_by_trigger_and_name(runner):
    with Flow("f") as flow:
        made = Task(
            lambda: context.task_run_name,
            name="t",
            trigger=needs_a_color,
            task_run_name="run {color}",
        )()
    state = flow.run(task_runner=runner, task_contexts={made: {"color": "red"}})
    assert state[made].result() == "run red"


def test_own_context_variables_are_of_tasks_of_the_flow():
    with Flow("f") as flow:
        made = color()
    with pytest.raises(GraphError, match="task_contexts names <Task: color>"):
        in_order(flow, task_contexts={color: {"color": "red"}})
    with pytest.raises(OptionTypeError, match="expected a mapping of the names"):
        in_order(flow, task_contexts={made: "red"})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("get", "cannot be called 'get', which is a method of the context"),
        ("__iter__", "cannot be called '__iter__'"),
        (3, "is a string, not 3"),
    ],
)
def test_context_variables_are_named_before_the_run(name, told):
    calls = []
    with Flow("f") as flow:
        made = Task(lambda: calls.append(1), name="t")()
    with pytest.raises(OptionValueError, match=f"task_contexts for <Task: t>.*{told}"):
        in_order(flow, task_contexts={made: {name: 1}})
    with pytest.raises(OptionValueError, match=f"context of flow 'f': .*{told}"):
        in_order(flow, context={name: 1})
    with pytest.raises(OptionValueError, match=f"context of flow 'f': .*{told}"):
        flow.compile(context={name: 1})
    assert calls == []


def test_an_unknown_keyword_is_an_unknown_parameter():
    with pytest.raises(FlowParameterError, match="no parameter 'colour'"):
        in_order(Flow("f"), colour="red")


# -- options set after the flow was made -----------------------------------------------


def test_the_executor_of_a_flow_is_its_task_runner():
    flow = Flow("etl")
    assert flow.executor is None
    flow.executor = runner = SequentialTaskRunner()
    assert flow.task_runner is flow.executor is runner
    flow.task_runner = None
    assert flow.executor is None


def test_a_flow_runs_where_its_executor_says():
    class Noting(SequentialTaskRunner):
        used = 0

        def session(self, *args, **options):
            self.used += 1
            return super().session(*args, **options)

        def run(self, *args, **options):
            self.used += 1
            return super().run(*args, **options)

    with Flow("etl") as flow:
        inc(1)
    flow.executor = runner = Noting()
    assert flow.run().is_successful()
    assert runner.used
    assert flow.copy().executor is runner


@pytest.mark.parametrize("name", ["executor", "task_runner"])
@pytest.mark.parametrize("value", [SequentialTaskRunner, "threads"])
def test_an_executor_that_is_set_is_checked(name, value):
    flow = Flow("etl", executor=SequentialTaskRunner())
    kept = flow.task_runner
    with pytest.raises(OptionTypeError, match=r"flow .etl.: .*expected a task runner"):
        setattr(flow, name, value)
    assert flow.task_runner is kept


@pytest.mark.parametrize("name", ["schedule", "storage", "run_config", "environment"])
def test_what_only_a_server_could_do_is_refused_when_it_is_set(name):
    flow = Flow("etl")
    with pytest.raises(OptionValueError) as set_later:
        setattr(flow, name, "daily")
    with pytest.raises(OptionValueError) as given:
        Flow("etl", **{name: "daily"})
    assert str(set_later.value) == str(given.value)
    setattr(flow, name, None)
    assert getattr(flow, name) is None


def test_a_result_handler_that_is_set_is_the_result_of_the_flow(tmp_path):
    flow = Flow("etl")
    place = LocalResult(tmp_path)
    flow.result_handler = place
    assert flow.result is flow.result_handler is place
    with pytest.raises(OptionTypeError, match=r"result=.s3.*expected a Result"):
        flow.result = "s3"


def test_a_flow_whose_runner_was_set_can_be_pickled():
    with Flow("etl") as flow:
        inc(1)
    flow.executor = SequentialTaskRunner()
    flow.schedule = None
    twin = pickle.loads(cloudpickle.dumps(flow))
    assert isinstance(twin.executor, SequentialTaskRunner)
