"""The command that draws a flow: ``dask flow visualize``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click

from prefect_dask_core.commands.loading import load_flow, parameters_from
from prefect_dask_core.drawing import PICTURE_FORMATS, save_picture
from prefect_dask_core.errors import ParameterBindError, VisualizationUnsupportedError
from prefect_dask_core.flows import Flow


@click.command(name="visualize")
@click.argument("flow", metavar="FILE.py:FLOW")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="Argument of a function flow, which runs without its tasks. May be repeated.",
)
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    help="Picture to write, in the format of its suffix (.svg, .png, .pdf). "
    "Unless given, the drawing is printed as Mermaid text.",
)
def command(flow: str, params: tuple[str, ...], output: str | None) -> None:
    """Draw a flow of a file, as a picture or as text for Mermaid.

    A picture needs the library and the program Graphviz; the text needs nothing.
    """
    check_format(output)
    found = load_flow(flow)
    arguments = parameters_from(params)
    if isinstance(found, Flow):
        if arguments:
            raise click.UsageError(
                f"flow {found.name!r} is a graph: it is drawn without parameters."
            )
        graph_of, text_of = found.visualize, found.to_mermaid
    else:
        graph_of, text_of = found.visualize, found.generate_mermaid_graph
    with warnings.catch_warnings():
        # That the function runs is what this command is for.
        warnings.filterwarnings("ignore", "while flow .* is drawn", UserWarning)
        try:
            if output is None:
                click.echo(text_of(**arguments))
                return
            graph: Any = graph_of(**arguments)
        except ParameterBindError as error:
            raise click.UsageError(str(error)) from error
        except VisualizationUnsupportedError as error:
            raise click.ClickException(str(error)) from error
    try:
        click.echo(str(save_picture(graph, output)))
    except (OSError, RuntimeError) as error:  # no program Graphviz, no such folder
        raise click.ClickException(str(error)) from error


def check_format(output: str | None) -> None:
    """Refuse a file whose suffix is no format of Graphviz.

    Raises
    ------
    click.UsageError
        If there is a suffix that Graphviz does not know.
    """
    suffix = "" if output is None else Path(output).suffix[1:].lower()
    if suffix and suffix not in PICTURE_FORMATS:
        raise click.UsageError(
            f"there is no format {suffix!r}; a picture ends in "
            f"{', '.join('.' + one for one in sorted(PICTURE_FORMATS))}."
        )
