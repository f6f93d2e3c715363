"""What a run may leave on its scheduler, for tests that it leaves nothing."""

import gc
import time


def tasks_on(client):
    return client.run_on_scheduler(
        lambda dask_scheduler: [str(key) for key in dask_scheduler.tasks]
    )


def topics_on(client):
    return client.run_on_scheduler(
        lambda dask_scheduler: [
            topic
            for topic in dask_scheduler._broker._topics
            if topic.startswith("prefect")
        ]
    )


def wait_until(done, seconds=10):
    """Whether something comes true; releases take a moment to arrive."""
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            return False
        gc.collect()
        time.sleep(0.02)
    return True
