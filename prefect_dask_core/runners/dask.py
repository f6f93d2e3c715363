"""The Dask runner: which cluster flows run on, and its client."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefect_dask_core.engine.book import Book
from prefect_dask_core.engine.driver import Driver
from prefect_dask_core.engine.growing import GrowingDriver
from prefect_dask_core.engine.views import DriverLook
from prefect_dask_core.errors import UnknownOptionError
from prefect_dask_core.late_imports import import_late
from prefect_dask_core.runners import locks as _locks  # noqa: F401  those of clusters
from prefect_dask_core.runners._private import client_here, outside_the_pool
from prefect_dask_core.runners.base import FlowRun, NamedRunner
from prefect_dask_core.runners.dask_options import (
    OPTIONS,
    check_options,
    imported,
    is_client,
)
from prefect_dask_core.runners.driven import DrivenSession, of_the_session
from prefect_dask_core.states import State

if TYPE_CHECKING:
    import distributed
    from distributed import Client

    from prefect_dask_core.runners import dask_run, dask_session
else:
    distributed = import_late("distributed")
    dask_run = import_late("prefect_dask_core.runners.dask_run")
    dask_session = import_late("prefect_dask_core.runners.dask_session")


class DaskTaskRunner(NamedRunner):
    """Runs flows on a Dask cluster.

    Parameters
    ----------
    cluster : cluster object or Client, optional
        A running cluster (anything with a `scheduler_address`), or a client of one.
        It is used and left running.
    address : str, optional
        Address of a running scheduler, as ``"tcp://10.0.0.1:8786"``.
    cluster_class : class, callable or str, optional
        Makes a temporary cluster; a str is a dotted name, as
        ``"dask_jobqueue.SLURMCluster"``. `LocalCluster` unless given.
    cluster_kwargs : dict, optional
        Arguments of `cluster_class`.
    adapt_kwargs : dict, optional
        Makes the cluster adaptive: arguments of ``cluster.adapt``.
    client_kwargs : dict, optional
        Arguments of `distributed.Client`.
    performance_report_path : str, optional
        Where Dask's performance report of the run is written.

    Raises
    ------
    ValueError
        If two places to run are named, the name of a class has no module, or a client
        is asked to be asynchronous.
    OptionTypeError
        If a str or a class is given as the cluster; also a `TypeError`.
    UnknownOptionError
        If an argument of the cluster is given to the runner; also a `TypeError`.

    Notes
    -----
    Without arguments: the current `distributed.Client` if there is one, else a
    temporary `LocalCluster`. Only what the runner opened is closed. Used as a context
    manager, one cluster serves many runs; each of them is told so,
    ``flow.run(task_runner=runner)``, as the block by itself changes no flow.

    Values of the last tasks come home when a run ends, except on a client that the
    user opened: there the large ones stay on the cluster until somebody asks.

    Examples
    --------
    >>> from prefect_dask_core import DaskTaskRunner
    >>> DaskTaskRunner(address="tcp://10.0.0.1:8786")
    DaskTaskRunner(address='tcp://10.0.0.1:8786')
    >>> DaskTaskRunner(address="tcp://10.0.0.1:8786", cluster_kwargs={"n_workers": 2})
    Traceback (most recent call last):
    ...
    ValueError: DaskTaskRunner was given address= and cluster_kwargs=: a scheduler \
that runs already is not made; give one of them.
    """

    def __init__(
        self,
        cluster: Any = None,
        address: str | None = None,
        cluster_class: Callable[..., Any] | str | None = None,
        cluster_kwargs: Mapping[str, Any] | None = None,
        adapt_kwargs: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        performance_report_path: str | None = None,
        **misplaced: Any,
    ) -> None:
        if misplaced:
            raise UnknownOptionError(
                f"DaskTaskRunner has no option {next(iter(misplaced))!r}; what the "
                f"cluster is made with goes into cluster_kwargs={misplaced!r}, what "
                "the client is made with into client_kwargs."
            )
        self.cluster = cluster
        self.address = address
        self.cluster_class = cluster_class
        self.cluster_kwargs = dict(cluster_kwargs or {})
        self.adapt_kwargs = dict(adapt_kwargs or {})
        self.client_kwargs = dict(client_kwargs or {})
        self.performance_report_path = performance_report_path
        check_options({name: getattr(self, name) for name in OPTIONS})
        self._open: contextlib.ExitStack | None = None
        self._client: Client | None = None
        self._own_client = False
        self._lending = threading.Lock()
        self._borrowers = 0
        self._lent: DaskTaskRunner | None = None

    def _settings(self) -> dict[str, Any]:
        return {name: value for name in OPTIONS if (value := getattr(self, name))}

    def __repr__(self) -> str:
        told = ", ".join(f"{key}={value!r}" for key, value in self._settings().items())
        return f"DaskTaskRunner({told})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, DaskTaskRunner) and self._settings() == other._settings()
        )

    __hash__ = None  # type: ignore[assignment]

    # -- the cluster -------------------------------------------------------------------

    def __enter__(self) -> DaskTaskRunner:
        if self._open is not None:
            raise RuntimeError("this DaskTaskRunner is open already.")
        with contextlib.ExitStack() as stack:
            self._client, self._own_client = self._connect(stack)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        stack, self._open, self._client = self._open, None, None
        if stack is not None:
            stack.close()

    @property
    def client(self) -> Client:
        """The client of the open runner.

        Raises
        ------
        RuntimeError
            If the runner is not open.
        """
        if self._client is None:
            raise RuntimeError(
                "this DaskTaskRunner is not open; use `with runner:` or run a flow."
            )
        return self._client

    def _connect(self, stack: contextlib.ExitStack) -> tuple[Client, bool]:
        """A client, and whether it ends with the runner."""
        place = self._place(stack)
        own = not is_client(place)
        if own:
            options = {"set_as_default": False, **self.client_kwargs}
            client = stack.enter_context(distributed.Client(place, **options))
        else:
            client = place
        if client.asynchronous:
            raise ValueError(
                "DaskTaskRunner was given an asynchronous Client; flow.run() waits "
                "for the run, so give one made with asynchronous=False."
            )
        if self.performance_report_path is not None:
            stack.enter_context(client.as_current())
            stack.enter_context(
                distributed.performance_report(self.performance_report_path)
            )
        return client, own

    def _place(self, stack: contextlib.ExitStack) -> Any:
        """Client, cluster or address to use."""
        if self.address is not None:
            return self.address
        if self.cluster is not None:
            if self.adapt_kwargs:
                self.cluster.adapt(**self.adapt_kwargs)
            return self.cluster
        if not (self.cluster_class or self.cluster_kwargs or self.adapt_kwargs):
            with contextlib.suppress(ValueError):
                return client_here()
        cluster = stack.enter_context(self._make_cluster())
        if self.adapt_kwargs:
            cluster.adapt(**self.adapt_kwargs)
        return cluster

    def _make_cluster(self) -> Any:
        make = self.cluster_class or distributed.LocalCluster
        if isinstance(make, str):
            make = imported(make)
        return make(**self.cluster_kwargs)

    # -- a run -------------------------------------------------------------------------

    def run(self, flow_run: FlowRun) -> Sequence[State]:
        """Run a plan to its end; one state per node."""
        if self._open is None:
            with copy.copy(self) as opened:  # several threads may share a runner
                return opened.run(flow_run)
        driver = Driver(Book(flow_run.plan, flow_run.wanted, flow_run.earlier))
        if flow_run.view is not None:
            flow_run.view.add_look(DriverLook(driver))
        with outside_the_pool():  # a flow that runs inside a task
            run = dask_run.DaskRun(
                self.client,
                driver,
                flow_run.variables,
                flow_run.run_id,
                self._own_client,
            )
            return run.run()

    def session(
        self, name: str, variables: Mapping[str, Any], run_id: str
    ) -> DrivenSession:
        """Begin a function flow, or what a task submits.

        Unless the runner is open, a cluster that it makes lives as long as its
        sessions, which share it.
        """
        with contextlib.ExitStack() as stack:
            client, own_client = stack.enter_context(self.borrowed())
            driver = GrowingDriver(name)
            kept = of_the_session(variables)
            held = contextlib.ExitStack()
            engine = dask_session.DaskSession(
                client, driver, kept, run_id, own_client, held
            )
            held.push(stack.pop_all())  # from here on the session gives it back
            return DrivenSession(run_id, driver, engine)

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[tuple[Client, bool]]:
        """The client of the open runner, or one that is shared by all who borrow it."""
        if self._open is not None:
            yield self.client, self._own_client
            return
        with self._lending:
            if not self._borrowers:
                self._lent = copy.copy(self).__enter__()
            self._borrowers += 1
            lent = self._lent
        assert lent is not None
        try:
            yield lent.client, lent._own_client
        finally:
            with self._lending:
                self._borrowers -= 1
                last = not self._borrowers
                if last:
                    self._lent = None
            if last:
                lent.__exit__(None, None, None)

    def __getstate__(self) -> dict[str, Any]:
        # What is open stays here; a cluster that is one's own does not travel.
        closed = {"_open": None, "_client": None, "_lent": None, "_borrowers": 0}
        own = {k: v for k, v in self.__dict__.items() if k != "_lending"}
        return {**own, **closed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lending=threading.Lock())
