import anyio
import pytest

from portable_sched import TaskScheduler, TaskStatus, task

pytestmark = pytest.mark.anyio


@pytest.mark.virtual_time
async def test_sleeping_tasks_take_virtual_time() -> None:
    @task
    async def a() -> None:
        await anyio.sleep(1000)

    @task(depends_on=[a])
    async def b() -> int:
        await anyio.sleep(1000)
        return 1

    results = await TaskScheduler().run()
    assert results["b"].status is TaskStatus.COMPLETED
    assert results.wall_time == pytest.approx(2000)


async def test_plain() -> None:
    @task
    def a() -> int:
        return 1

    results = await TaskScheduler().run()
    assert results["a"].result == 1
