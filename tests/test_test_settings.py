"""The checks that all other tests rely on are really on."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from threadpoolctl import threadpool_info

from angelo.types import Density


@pytest.mark.parametrize(
    "values_zyx",
    [np.zeros((2, 2), np.float32), np.zeros((2, 2, 2), np.float64)],
    ids=["wrong rank", "wrong type"],
)
def test_array_annotations_are_checked(values_zyx):
    three = np.ones(3, np.float32)
    with pytest.raises(TypeCheckError):
        Density(values_zyx, voxel_size=three, origin=three)


def test_libraries_use_one_thread():
    pools = threadpool_info()
    assert pools
    assert {pool["num_threads"] for pool in pools} == {1}
