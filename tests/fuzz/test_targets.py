"""Each target on its corpus and on a bounded number of changed inputs, the same in every run."""

from types import ModuleType

import pytest

from . import configuration, counter_file, grant_record, key_file, logline, profile_config
from .mutate import inputs

TARGETS = [logline, grant_record, configuration, profile_config, key_file, counter_file]
NUMBER = 20_000


@pytest.mark.parametrize("module", TARGETS, ids=[module.__name__.rpartition(".")[2] for module in TARGETS])
def test_target(module: ModuleType) -> None:
    for data in inputs(module.CORPUS, NUMBER, 20260101):
        try:
            module.target(data)
        except Exception as error:
            pytest.fail(f"{module.__name__}.target({data!r}): {type(error).__name__}: {error}")


def test_inputs_are_the_same_every_time_and_many() -> None:
    runs = [list(inputs(grant_record.CORPUS, 1000, 1)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 800
