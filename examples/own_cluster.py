"""A mapped flow on a scheduler and workers that you started yourself.

In three terminals, or on three machines with the same Python and packages::

    dask scheduler --port 8786
    dask worker tcp://127.0.0.1:8786 --nthreads 1
    python examples/own_cluster.py --address tcp://127.0.0.1:8786

Start as many workers as you like; the flow takes those which are there, and leaves them
running. It counts the words of the docstrings of some modules, and prints the most
frequent ones.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import sys
from collections import Counter

from prefect_dask_core import DaskTaskRunner, Flow, task

MODULES = ["argparse", "asyncio", "collections", "functools", "heapq", "random"]


@task
def find(module):
    return importlib.util.find_spec(module).origin


@task(retries=2, retry_delay_seconds=1)
def docstrings(path):
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
    return [text for node in nodes if (text := ast.get_docstring(node))]


@task
def count_words(texts):
    return Counter(
        word for text in texts for word in re.findall("[a-z]+", text.lower())
    )


@task
def add_up(counts):
    return sum(counts, Counter())


with Flow("words of docstrings") as flow:
    # A chain: each module goes its own way, no level waits for the level before it.
    words = add_up(count_words.map(docstrings.map(find.map(MODULES))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", required=True, help="such as tcp://127.0.0.1:8786")
    options = parser.parse_args()

    state = flow.run(task_runner=DaskTaskRunner(address=options.address))
    print(state.name)
    if not state.is_successful():
        return 1
    for word, count in state[words].result().most_common(5):
        print(f"{count:6,} {word}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
