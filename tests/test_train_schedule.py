"""Budgets, rates and averages: known values, and a resumed average that is the unbroken one."""

import pytest
import torch

from angelo_training.schedule import WARM_UP, Budget, MovingAverage, learning_rate


def test_budgets_end_at_whichever_comes_first():
    budget = Budget(steps=10, minutes=2)
    assert budget.share(5, 0) == 0.5
    assert budget.share(5, 90) == 0.75
    assert not budget.is_spent(9, 119)
    assert budget.is_spent(10, 0)
    assert budget.is_spent(0, 120)
    assert Budget(steps=3).share(300, 0) == 1
    assert Budget(minutes=1).share(10**9, 30) == 0.5
    with pytest.raises(ValueError, match="steps or minutes"):
        Budget()


def test_rates_rise_then_fall_to_a_hundredth():
    assert learning_rate(2.0, 0, 0) == pytest.approx(2 / WARM_UP)
    assert learning_rate(2.0, WARM_UP - 1, 0) == 2
    assert learning_rate(2.0, 10**4, 0.5) == pytest.approx(2 * 0.505)
    assert learning_rate(2.0, 10**4, 1) == pytest.approx(0.02)


def one_weight(value):
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(value)
    return network


def test_averages_follow_fast_at_first_then_slowly():
    network = one_weight(0.0)
    average = MovingAverage(network, decay=0.5)
    with torch.no_grad():
        network.weight.fill_(1.0)
    average.update(network)
    assert average.state["weight"].item() == pytest.approx(1 - 1 / 11)
    for _ in range(9):
        average.update(network)
    before = average.state["weight"].item()
    with torch.no_grad():
        network.weight.fill_(3.0)
    average.update(network)
    assert average.state["weight"].item() == pytest.approx((before + 3) / 2)


def test_a_saved_average_goes_on_as_if_unbroken():
    network = one_weight(0.0)
    unbroken, resumed = MovingAverage(network), MovingAverage(network)
    with torch.no_grad():
        network.weight.fill_(1.0)
    for _ in range(3):
        unbroken.update(network)
    resumed.load(unbroken.state, 3)
    for average in (unbroken, resumed):
        average.update(network)
    assert resumed.state["weight"].item() == unbroken.state["weight"].item()


def test_averages_are_lent_and_given_back():
    network = one_weight(0.0)
    average = MovingAverage(network)
    with torch.no_grad():
        network.weight.fill_(1.0)
    with pytest.raises(KeyError), average.swapped_in(network):
        assert network.weight.item() == 0
        raise KeyError
    assert network.weight.item() == 1
