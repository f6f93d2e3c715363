"""What may import what, and what importing the package does: nothing else."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import prefect_dask_core

ROOT = Path(prefect_dask_core.__file__).parent
PACKAGE = "prefect_dask_core"

#: From the bottom to the top. A module imports from layers below its own, and never
#: sideways, but for the modules of one folder. A new module gets its place here.
LAYERS = (
    (
        "_version",
        "config",
        "dates",
        "errors",
        "late_imports",
        "moments",
        "run_ids",
        "serialization",
    ),
    ("states",),
    ("displays", "traces"),
    ("cache_validators", "context", "lazy", "naming", "retries", "signals", "triggers"),
    ("assets", "hooks", "records", "ledger"),
    ("results",),
    ("calls",),
    ("run_contexts",),
    ("runtime",),
    ("option_checks", "utilities"),
    ("options",),
    ("signatures", "unused"),
    ("spellings",),
    ("attributes", "bodies", "edges"),
    ("annotations", "operators"),
    ("tasks",),
    ("arguments", "parameters", "task_graph"),
    ("flow_graph",),
    ("blocks", "diagnostics", "mapping"),
    ("control_flow", "resources"),
    ("engine",),
    ("causes",),
    (
        "cached_values",
        "materializing",
        "planning",
        "runners",
        "testing",
        "validation",
    ),
    ("flow_handlers", "futures", "standing"),
    ("future_lists",),
    ("lineage", "monitor", "requests", "staging", "waiting"),
    ("drawing", "endings", "made_of", "recording", "remembering"),
    ("outdating", "resolving", "resumptions"),
    ("resume_warnings",),
    ("resuming",),
    ("execution", "flow_options", "function_options", "scopes"),
    ("calling", "flow_drawing", "function_runs", "returns"),
    ("flow_attempts", "flow_closing", "flow_preparing"),
    ("flow_runs",),
    ("function_flows",),
    ("flows",),
    ("",),  # the package itself: `__init__`
    ("commands",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
    for path in ROOT.rglob("*.py")
)
#: Functions that are sent to a worker by value, and so bring their imports along.
SENT_BY_VALUE = {
    ("runners.preflight", "_tell"),
    ("runners.preflight", "_sees"),
    ("runners.telling", "_register"),
}
#: Libraries that the rules of the engine have no use for: it does no I/O, has no
#: threads and no clock of its own.
OF_THE_SHELL = {"asyncio", "distributed", "logging", "random", "socket", "threading"}
#: Optional or slow to load, so loaded where they are used.
HEAVY = ("bokeh", "graphviz", "rich", "sqlalchemy")


def tree_of(module):
    return ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8"))


def imported_by(nodes, module):
    """Dotted names of what some statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            found = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` imports the module, not only the package.
            known = {f"{PACKAGE}.{name}" for name in MODULES}
            yield from (
                name
                if name in known or f"{name}.__init__" in known
                else str(node.module)
                for name in sorted(found)
            )


def own_imports(module):
    """Modules of the package that a module imports, without the package's name."""
    for name in set(imported_by(ast.walk(tree_of(module)), module)):
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            yield name[len(PACKAGE) + 1 :]


def layer_of(module):
    return "" if module == "__init__" else module.split(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_layers_below(module):
    layer = layer_of(module)
    assert layer in RANK, f"{module} is new: give it a place in LAYERS"
    for other in own_imports(module):
        below = layer_of(other)
        assert below in RANK, f"{other} is new: give it a place in LAYERS"
        sideways = below == layer and "." in module
        assert sideways or RANK[below] < RANK[layer], (
            f"{module} imports {other}, which is not below it"
        )


def test_no_imports_form_a_cycle():
    above = {module: set(own_imports(module)) & set(MODULES) for module in MODULES}
    while above:
        free = [module for module, needed in above.items() if not needed & set(above)]
        assert free, f"these modules import each other in a circle: {sorted(above)}"
        for module in free:
            del above[module]


@pytest.mark.parametrize("module", MODULES)
def test_imports_of_the_package_stand_at_the_top(module):
    tree = tree_of(module)
    inside = [
        node
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        and (module, outer.name) not in SENT_BY_VALUE
        for node in ast.walk(outer)
    ]
    hidden = [name for name in imported_by(inside, module) if name.startswith(PACKAGE)]
    assert not hidden, f"{module} imports {hidden} inside a function"


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("engine.")])
def test_the_engine_does_no_io_and_has_no_clock(module):
    found = {
        name.split(".")[0] for name in imported_by(ast.walk(tree_of(module)), module)
    }
    assert not found & (OF_THE_SHELL | {"time"})
    if module == "engine.pipeline":
        assert "dask" not in found


@pytest.mark.parametrize("module", MODULES)
def test_only_the_layers_that_run_talk_to_distributed(module):
    found = {
        name.split(".")[0] for name in imported_by(ast.walk(tree_of(module)), module)
    }
    if layer_of(module) not in ("runners", "execution", "monitor", "commands"):
        assert "distributed" not in found


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_are_loaded_where_they_are_used(module):
    found = {name.split(".")[0] for name in imported_by(tree_of(module).body, module)}
    if layer_of(module) != "monitor":
        assert not found & set(HEAVY)


def late_modules(tree):
    """Names that a module gives to what it loads late, and what they stand for."""
    return {
        node.targets[0].id: node.value.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and getattr(node.value.func, "id", "") == "import_late"
    }


def is_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def run_while_loaded(nodes):
    """What of a module runs while it is loaded: no bodies, no annotations."""
    for node in nodes:
        yield node
        if is_for_types(node):
            inner = node.orelse
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            inner = [*node.decorator_list, *filter(None, defaults)]
        elif isinstance(node, ast.AnnAssign):
            inner = [node.value] if node.value is not None else []
        else:
            is_body = isinstance(node, ast.Lambda)
            inner = [] if is_body else ast.iter_child_nodes(node)
        yield from run_while_loaded(inner)


@pytest.mark.parametrize("module", MODULES)
def test_what_is_loaded_late_has_its_types_and_is_used_in_functions_only(module):
    tree = tree_of(module)
    late = late_modules(tree)
    typed = {
        alias.asname or alias.name: prefix + alias.name
        for block in tree.body
        if is_for_types(block)
        for node in block.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for prefix in [f"{node.module}." if isinstance(node, ast.ImportFrom) else ""]
        for alias in node.names
    }
    for name, stands_for in late.items():
        assert typed.get(name) == stands_for
    read = {
        n.id
        for n in run_while_loaded(tree.body)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
    }
    assert not read & set(late), f"{module} uses {read & set(late)} while it is loaded"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported_and_says_what_it_is_for(module):
    if module.endswith("__main__"):
        pytest.skip("importing it is running it")
    name = PACKAGE if module == "__init__" else f"{PACKAGE}.{module}"
    found = importlib.import_module(name.removesuffix(".__init__"))
    if module != "_version":
        assert found.__doc__


def test_the_public_names_are_listed():
    names = prefect_dask_core.__all__
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(prefect_dask_core, name) is not None


WATCH = """
import sys
import distributed  # what it does itself is its own affair

happened = []
WATCHED = ("socket.", "_thread.start_new_thread", "subprocess.Popen", "os.system")

def watch(event, args):
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if event.startswith(WATCHED) or writes or event in ("os.mkdir", "os.remove"):
        happened.append((event, args))

sys.addaudithook(watch)
before = set(sys.modules)
import prefect_dask_core, prefect_dask_core.testing
loaded = set(sys.modules) - before
heavy = [name for name in {heavy!r} if name in sys.modules]
print(happened, heavy)
"""


def test_importing_the_package_starts_opens_and_writes_nothing():
    code = WATCH.replace("{heavy!r}", repr(HEAVY))
    found = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
    )
    assert found.stdout.strip() == "[] []", found.stderr


#: What flows are declared, drawn and run on threads without.
LEFT_OUT = (
    "distributed",
    "tornado",
    "numpy",
    "pandas",
    "sqlalchemy",
    "sqlite3",
    "bokeh",
    "rich",
    "graphviz",
    "fsspec",
)


def loaded_by(code):
    """Which of `LEFT_OUT` a fresh interpreter has loaded after some code."""
    tell = f"import sys; print([name for name in {LEFT_OUT} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tell}"],
        capture_output=True,
        text=True,
        cwd=ROOT.parent,
    )
    assert found.returncode == 0, found.stderr
    return ast.literal_eval(found.stdout.splitlines()[-1])


def test_importing_the_package_loads_nothing_that_only_some_flows_need():
    assert loaded_by("import prefect_dask_core, prefect_dask_core.testing") == []


DECLARED = """
from prefect_dask_core import DaskTaskRunner, Flow, flow, task

DaskTaskRunner(cluster_kwargs={"n_workers": 2}).duplicate()

@task(persist_result=False)
def double(x):
    return 2 * x

with Flow("doubled") as graph:
    doubled = double.map([1, 2])

@flow
def doubles():
    return double.map([1, 2]).result()

@flow
def quadruple(x):
    return double(double(x))

graph.to_mermaid()
quadruple.generate_mermaid_graph(1)
"""
#: Runs both; "{runner}" is where.
RUN = """
from prefect_dask_core import SequentialTaskRunner, ThreadPoolTaskRunner

state = graph.run(task_runner={runner})
assert state[doubled].result() == [2, 4], state
assert doubles.with_options(task_runner={runner})() == [2, 4]
str(state.states.view)
"""


def test_a_flow_is_declared_and_drawn_without_what_it_does_not_need():
    assert loaded_by(DECLARED) == []


@pytest.mark.parametrize(
    "runner", ["SequentialTaskRunner()", "ThreadPoolTaskRunner()", "None"]
)
def test_a_flow_runs_without_a_cluster_as_if_there_were_no_distributed(runner):
    found = loaded_by(DECLARED + RUN.format(runner=runner))
    assert not {"distributed", "tornado", "numpy", "sqlalchemy", "bokeh"} & set(found)
