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
    ("_version", "config", "dates", "errors", "moments", "run_ids", "serialization"),
    ("states",),
    ("displays",),
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
