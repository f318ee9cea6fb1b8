import pytest
from errands import nothing

from activity.errors import SettingError
from activity.executors.choice import open_executor
from activity.executors.local import LocalExecutor


def test_the_local_one_has_a_process_for_each_cpu():
    import joblib

    executor = open_executor("local", prepare=nothing)
    assert isinstance(executor, LocalExecutor) and executor.num_workers == joblib.cpu_count()


@pytest.mark.parametrize(
    ("name", "address", "message"),
    [
        ("slurm", None, "executor must be one of local, ray, received: slurm"),
        ("local", "auto", "address must be of a Ray cluster, and so goes with the executor ray, received: auto"),
    ],
)
def test_what_does_not_exist_is_refused(name, address, message):
    with pytest.raises(SettingError, match=message):
        open_executor(name, prepare=nothing, address=address)
