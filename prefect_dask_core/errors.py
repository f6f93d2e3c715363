"""Mistakes in a declaration, and what asking for a result can raise.

Three kinds are kept apart. A `DeclarationError` is a mistake in the code that
declares tasks and flows, raised before anything runs. A `RunError` says why a run has
no value to give. An `InternalError` is a defect of this package, never of the user's
code or of the cluster.
"""


class PrefectDaskCoreError(Exception):
    """Base of every error this package defines."""


class DeclarationError(PrefectDaskCoreError):
    """A task or flow was declared in a way that cannot work."""


class ParameterBindError(DeclarationError, TypeError):
    """The arguments of a call do not fit the signature of the function."""


class ReservedArgumentError(DeclarationError, TypeError):
    """A function has a parameter whose name the package needs for itself."""


class UnknownOptionError(DeclarationError, TypeError):
    """An option is unknown, or two spellings of one option disagree."""


class OptionTypeError(DeclarationError, TypeError):
    """An option was given a value of the wrong type."""


class OptionValueError(DeclarationError, ValueError):
    """An option was given a value of the right type that makes no sense."""


class TemplateError(DeclarationError, ValueError):
    """A template for the name of a run or the place of a result cannot be used."""


class ResultKindError(DeclarationError, NotImplementedError):
    """A result was asked for what its kind cannot do, such as storing a value."""


class SignatureError(DeclarationError, ValueError):
    """The signature of a function cannot be read."""


class GraphError(DeclarationError, ValueError):
    """A task or an edge does not fit into the flow, or there is no flow."""


class CycleError(DeclarationError, ValueError):
    """The edges of a flow form a cycle."""


class DuplicateSlugError(DeclarationError, ValueError):
    """Two tasks of one flow have the same slug."""


class FlowParameterError(DeclarationError, ValueError):
    """A flow run was given unknown parameters, or misses required ones."""


class UnpicklableTaskError(DeclarationError, TypeError):
    """A task, or an argument bound to it, cannot travel to a worker."""


class MappingLengthMismatch(DeclarationError, ValueError):
    """The mapped inputs of a task have different lengths."""


class MappingMissingIterable(DeclarationError, ValueError):
    """A task is mapped, but none of its inputs can be mapped over."""


class MissingContextError(PrefectDaskCoreError, RuntimeError):
    """Something that exists only inside a run was asked for outside of one."""


class RunError(PrefectDaskCoreError):
    """Base of the reasons why a run has no value to give."""


class UnfinishedRun(RunError):
    """The run has not finished yet."""


class PausedRun(UnfinishedRun):
    """The run waits for somebody to resume it."""


class MissingResult(RunError):
    """The run completed, but its value was not kept or is out of reach."""


class FailedRun(RunError):
    """The run failed without an exception of its own."""


class CrashedRun(RunError):
    """The infrastructure under the run died."""


class CancelledRun(RunError):
    """The run was cancelled."""


class UpstreamTaskError(RunError):
    """A run could not start because a task above it did not succeed."""


class InputError(RunError):
    """An argument could not be put together from the values it was to hold."""


class FutureOfAnotherRun(DeclarationError, ValueError):
    """A future was given to a run that it does not belong to."""


class ParameterTypeError(DeclarationError, TypeError):
    """A parameter of a flow run has a value that its annotation does not allow."""


class InvalidNameError(DeclarationError, ValueError):
    """A name has characters that names of flows cannot have."""


class ReportError(PrefectDaskCoreError, ValueError):
    """There is no flow run that a report could be about."""


class VisualizationUnsupportedError(PrefectDaskCoreError, RuntimeError):
    """A flow cannot be drawn, because it does what only a run can do."""


class TaskTimeoutError(RunError, TimeoutError):
    """A task's body ran longer than its `timeout_seconds`."""


class FlowTimeoutError(RunError, TimeoutError):
    """A flow's function ran longer than its `timeout_seconds`."""


class StoreError(PrefectDaskCoreError, ValueError):
    """A result cannot be kept where, or under the key that, was asked for."""


class TransactionError(PrefectDaskCoreError, ValueError):
    """A transaction was asked for what it does not have or cannot do any more."""


class SelfLockError(RunError):
    """A run would wait for a lock that a run above holds, which waits for it."""


class RemoteTaskError(RunError):
    """Stands for an exception that could not be pickled on its way home.

    The message holds the type, the text and the traceback of the original.
    """


class ClusterMismatchError(PrefectDaskCoreError, RuntimeError):
    """A worker lacks the package, or has another version of it or of Python."""


class LedgerError(PrefectDaskCoreError, RuntimeError):
    """The ledger cannot be opened, read or written."""


class UnknownRunError(LedgerError, LookupError):
    """The ledger knows no run, or several runs, of the id that was asked for."""


class ResumeError(PrefectDaskCoreError, ValueError):
    """A run cannot be resumed: it is of another flow, or still runs."""


class InternalError(PrefectDaskCoreError):
    """A defect of this package. Please report it with the traceback."""
