"""The conda recipe, rendered as conda-build would render it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jinja2
import pytest
import yaml

from prefect_dask_core._version import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "conda-recipe"


def load_file_data(name, from_recipe_dir):
    assert from_recipe_dir
    return tomllib.loads((RECIPE / name).read_text(encoding="utf-8"))


def load_file_regex(load_file, regex_pattern, from_recipe_dir):
    assert from_recipe_dir
    return re.search(regex_pattern, (RECIPE / load_file).read_text(encoding="utf-8"))


@pytest.fixture
def recipe():
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    template = environment.from_string((RECIPE / "meta.yaml").read_text("utf-8"))
    rendered = template.render(
        load_file_data=load_file_data, load_file_regex=load_file_regex, PYTHON="python"
    )
    return yaml.safe_load(rendered)


def test_the_recipe_takes_name_version_and_dependencies_from_the_project(recipe):
    project = load_file_data("../pyproject.toml", from_recipe_dir=True)["project"]

    assert recipe["package"]["name"] == project["name"]
    assert recipe["package"]["version"] == __version__
    assert recipe["requirements"]["run"] == [
        f"python {project['requires-python']}",
        *project["dependencies"],
    ]


def test_the_recipe_tests_an_example_with_all_its_files(recipe):
    assert recipe["test"]["imports"] == ["prefect_dask_core"]
    for name in recipe["test"]["source_files"]:
        assert (ROOT / name).is_file()
