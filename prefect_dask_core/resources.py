"""Resources: what a block of tasks needs set up before and cleaned up after."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, overload

from prefect_dask_core.blocks import TaskBlock, first_of, last_of
from prefect_dask_core.context import context
from prefect_dask_core.edges import Edge
from prefect_dask_core.errors import GraphError, OptionTypeError
from prefect_dask_core.flow_graph import FlowGraph
from prefect_dask_core.signals import SKIP
from prefect_dask_core.states import State
from prefect_dask_core.tasks import Task


class ResourceInit(Task):
    """Makes the object that looks after a resource."""

    is_resource = True
    resource_role = "init"


class ResourceSetup(Task):
    """Makes the resource, which is its value."""

    is_resource = True
    resource_role = "setup"


class ResourceCleanup(Task):
    """Cleans the resource up."""

    is_resource = True
    resource_role = "cleanup"


def set_up(manager: Any) -> Any:
    """Make the resource."""
    return manager.setup()


def clean_up(manager: Any, resource: Any = None) -> Any:
    """Clean the resource up."""
    return manager.cleanup(resource)


def once_finished(upstream: Mapping[Any, State]) -> bool:
    """Trigger of a clean-up: all above finished, and there is something to clean up.

    Parameters
    ----------
    upstream : mapping of Edge, or of (Edge, index), to State
        States above.

    Raises
    ------
    SKIP
        If the resource was not made.
    """
    for key, state in upstream.items():
        edge: Edge = key[0] if isinstance(key, tuple) else key
        role = edge.upstream_task.resource_role
        if edge.key is None or role not in ("init", "setup") or not state.is_final():
            continue
        if state.is_skipped() or not state.is_successful():
            raise SKIP(f"{edge.upstream_task.name} gave no resource to clean up.")
    return all(state.is_final() for state in upstream.values())


class ResourceBlock(TaskBlock):
    """The ``with`` block of a resource manager; gives the task that makes the resource.

    Parameters
    ----------
    manager : ResourceManager
        The manager.
    args, kwargs : tuple, dict
        Arguments of its class: tasks or values.
    flow : FlowGraph
        Where the tasks are added.
    """

    def __init__(
        self,
        manager: ResourceManager,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        flow: FlowGraph,
    ) -> None:
        super().__init__()
        self.manager = manager
        self._arguments = args, kwargs
        self._in = flow
        self._made: tuple[Task, Task | None] | None = None

    def __enter__(self) -> Task | None:
        args, kwargs = self._arguments
        made, setup = self.manager.first_tasks()
        made.bind(*args, flow=self._in, **kwargs)
        if setup is not None:
            setup.bind(manager=made, flow=self._in)
        self._made = made, setup
        self._open()
        return setup

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        tasks = self._close()
        if kind is not None or self._made is None:
            return
        made, setup = self._made
        cleanup = self.manager.last_task()
        given: dict[str, Any] = {} if setup is None else {"resource": setup}
        cleanup.bind(manager=made, flow=self._in, **given)
        for task in first_of(tasks, self._in):
            task.set_upstream(setup or made, flow=self._in)
        for task in last_of(tasks, self._in):
            cleanup.set_upstream(task, flow=self._in)

    def __repr__(self) -> str:
        return f"the block of {self.manager.name}"


class ResourceManager:
    """A class whose instances look after a resource, made by `resource_manager`.

    Parameters
    ----------
    resource_class : type
        The class.
    name : str, optional
        Name of the tasks; that of the class unless given.
    init_task_kwargs, setup_task_kwargs, cleanup_task_kwargs : mapping, optional
        Options of the three tasks.
    """

    def __init__(
        self,
        resource_class: type,
        name: str | None = None,
        init_task_kwargs: Mapping[str, Any] | None = None,
        setup_task_kwargs: Mapping[str, Any] | None = None,
        cleanup_task_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(resource_class, type):
            raise OptionTypeError(
                f"resource_manager decorates a class, not {resource_class!r}."
            )
        if not callable(getattr(resource_class, "cleanup", None)):
            raise OptionTypeError(
                f"the class {resource_class.__name__} has no method cleanup(self, "
                "resource), which a resource manager needs."
            )
        self.resource_class = resource_class
        self.name = name or resource_class.__name__
        self.init_task_kwargs = dict(init_task_kwargs or {})
        self.setup_task_kwargs = dict(setup_task_kwargs or {})
        self.cleanup_task_kwargs = dict(cleanup_task_kwargs or {})
        functools.update_wrapper(self, resource_class, updated=())
        # The name of the class leads to this object now; so pickling, which looks for
        # the class of an instance by name, has to take one more step.
        resource_class.__qualname__ = f"{resource_class.__qualname__}.resource_class"

    def __call__(
        self, *args: Any, flow: FlowGraph | None = None, **kwargs: Any
    ) -> ResourceBlock:
        """Open a block with a resource.

        Parameters
        ----------
        *args, **kwargs
            Arguments of the class: tasks or values.
        flow : Flow, optional
            The flow; the active one unless given.

        Raises
        ------
        GraphError
            Without a flow.
        """
        found = flow or context.get("flow")
        if found is None:
            raise GraphError(
                f"the resource manager {self.name} adds tasks to a flow, and there is "
                "none; use it inside `with Flow(...)`, or give flow=."
            )
        return ResourceBlock(self, args, kwargs, found)

    def first_tasks(self) -> tuple[Task, Task | None]:
        """Tasks that make the instance and, if it has ``setup``, the resource."""
        made = ResourceInit(
            self.resource_class, **{"name": self.name, **self.init_task_kwargs}
        )
        if not hasattr(self.resource_class, "setup"):
            return made, None
        options = {"name": f"{self.name}.setup", "persist_result": False}
        return made, ResourceSetup(set_up, **{**options, **self.setup_task_kwargs})

    def last_task(self) -> Task:
        """Task that cleans up."""
        options = {
            "name": f"{self.name}.cleanup",
            "persist_result": False,
            "trigger": once_finished,
            "skip_on_upstream_skip": False,
        }
        return ResourceCleanup(clean_up, **{**options, **self.cleanup_task_kwargs})

    def __repr__(self) -> str:
        return f"<resource manager {self.name}>"


@overload
def resource_manager(resource_class: type, **options: Any) -> ResourceManager: ...
@overload
def resource_manager(
    resource_class: None = None, **options: Any
) -> Callable[[type], ResourceManager]: ...
def resource_manager(resource_class: type | None = None, **options: Any) -> Any:
    """Make a resource manager of a class: ``@resource_manager``.

    Parameters
    ----------
    resource_class : type, optional
        A class with a method ``cleanup(self, resource)`` and, unless there is nothing
        to set up, ``setup(self)``, which returns the resource.
    **options
        ``name``, the name of the tasks, and ``init_task_kwargs``,
        ``setup_task_kwargs``, ``cleanup_task_kwargs``, options of the three tasks.

    Returns
    -------
    ResourceManager
        Called like the class inside a flow it opens a block, which gives the task
        that makes the resource (`None` without ``setup``).

    Notes
    -----
    Tasks of the block wait for the resource; it is cleaned up once all of them
    finished, however that was, unless it was never made. Cleaning up does not decide
    the state of the flow. The instance and the resource travel between tasks, perhaps
    between workers, so they have to be picklable there. Source of the rules:
    ``resource_manager`` of Prefect 1.x.

    Examples
    --------
    >>> from prefect_dask_core import Flow, SequentialTaskRunner, task
    >>> @resource_manager
    ... class Folder:
    ...     def __init__(self, name):
    ...         self.name = name
    ...     def setup(self):
    ...         return f"/tmp/{self.name}"
    ...     def cleanup(self, folder):
    ...         print("removing", folder)
    >>> @task
    ... def write(folder):
    ...     raise OSError("disk full")
    >>> with Flow("tidy") as flow:
    ...     with Folder("work") as folder:
    ...         written = write(folder)
    >>> flow.run(task_runner=SequentialTaskRunner()).is_failed()
    removing /tmp/work
    True
    """
    if resource_class is None:
        return functools.partial(ResourceManager, **options)
    return ResourceManager(resource_class, **options)
