"""A task runner whose nodes begin no sooner than somebody waits for one of them.

It agrees with the sequential runner, and fails whoever expects a run to have ended
when it was added.
"""

from prefect_dask_core import SequentialTaskRunner
from prefect_dask_core.runners.sequential_session import SequentialSession
from prefect_dask_core.states import Pending


class LazyRunner(SequentialTaskRunner):
    def session(self, name, variables, run_id):
        return LazySession({**variables, "_task_runner": self}, run_id)


class LazySession(SequentialSession):
    def __init__(self, variables, run_id):
        super().__init__(variables, run_id)
        self._waiting = []
        self._begun = 0
        self._calls = {}
        self._dropped = set()

    def add(self, request):
        self._waiting.append(request)
        return len(self._waiting) - 1

    def _run_until(self, node):
        while self._begun <= node:
            number, self._begun = self._begun, self._begun + 1
            assert super().add(self._waiting[number]) == number
            for call in self._calls.pop(number, ()):
                call()

    def _is_there(self, node):
        return node in self._outcomes

    def state(self, node):
        return super().state(node) if self._is_there(node) else Pending()

    def wait(self, nodes, timeout=None):
        if timeout is not None and timeout <= 0:
            return all(map(self._is_there, nodes))
        for node in nodes:
            self._run_until(node)
        return True

    def on_final(self, node, call):
        if self._is_there(node):
            call()
        else:
            self._calls.setdefault(node, []).append(call)
            self._run_until(node)

    def wait_child(self, node, index, timeout=None):
        return self.wait([node], timeout)

    def on_child_final(self, node, index, call):
        self.on_final(node, call)

    def child_count(self, node):
        if not self._is_there(node):
            self._run_until(node)  # a length is waited for
        return super().child_count(node)

    def child_state(self, node, index):
        return super().child_state(node, index) if self._is_there(node) else Pending()

    def drop(self, node):
        # A later node may still read it.
        self._dropped.add(node)

    def close(self):
        self._run_until(len(self._waiting) - 1)
        for node in self._dropped:
            super().drop(node)
        return super().close()
