"""Steps of the training loops: orthogonal for matrices, whatever their layout in memory."""

import pytest
import torch
from torch import nn

from angelo_export.weights import CheckpointError
from angelo_training.checkpoints import load_checkpoint, save_checkpoint
from angelo_training.optimizers import MatrixSteps


def new_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(8, 16, 3, padding=1), nn.Flatten(), nn.Linear(16 * 27, 20, bias=False)
    )


def learn(network, optimizer, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images = torch.randn(4, 8, 3, 3, 3, generator=generator)
        network(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_matrices_move_alike_in_all_directions():
    network = new_network()
    before = network[2].weight.detach().clone()
    network[2].weight.grad = torch.linspace(0.2, 5, 20)[:, None] * torch.eye(20, 16 * 27)
    MatrixSteps(network, rate=0.1, weight_decay=0.0).step()
    steps = torch.linalg.svdvals(network[2].weight.detach() - before)
    assert steps.min() > 0.5 * steps.max()  # the gradient's differ by 25
    # As long as AdamW's: a root mean square of 0.2 of the rate, were all directions there.
    assert float(steps.mean()) == pytest.approx(0.1 * 0.2 * (16 * 27) ** 0.5, rel=0.25)


def test_small_parameters_follow_adamw():
    network = new_network()
    before = network[0].bias.detach().clone()
    learn(network, MatrixSteps(network, rate=0.1, weight_decay=0.0), 1)
    torch.testing.assert_close((network[0].bias - before).abs(), torch.full((16,), 0.1))


def test_convolutions_step_along_the_orthogonal_factor_of_their_gradient():
    conv = nn.Conv3d(8, 16, 3)
    before = conv.weight.detach().clone()
    gradient = torch.randn(before.shape, generator=torch.Generator().manual_seed(2))
    conv.weight.grad, conv.bias.grad = gradient, torch.ones(16)
    MatrixSteps(conv, rate=0.1, weight_decay=0.0).step()
    left, _, right = torch.linalg.svd(gradient.reshape(16, -1), full_matrices=False)
    step = (conv.weight.detach() - before).reshape(16, -1)
    expected = -(left @ right)
    # Five Newton-Schulz iterations in bfloat16 find the factor to a fifth of its length.
    cosine = (step * expected).sum() / step.norm() / expected.norm()
    assert cosine > 0.98


def test_layout_in_memory_does_not_change_the_steps():
    network, other = new_network(), new_network()
    other.to(memory_format=torch.channels_last_3d)
    assert not other[0].weight.is_contiguous()
    for each in (network, other):
        learn(each, MatrixSteps(each, rate=0.01, weight_decay=0.0), 3)
    moved = (network[0].weight - new_network()[0].weight).abs().mean()
    apart = (network[0].weight - other[0].weight).abs().mean()
    assert apart < 0.02 * moved  # the orthogonalisation works in bfloat16


def test_a_gradient_of_zeros_moves_nothing():
    network = new_network()
    optimizer = MatrixSteps(network, rate=0.1, weight_decay=0.0)
    learn(network, optimizer, 2)
    before = network[2].weight.detach().clone()
    network[2].weight.grad = torch.zeros_like(before)
    optimizer.step()
    torch.testing.assert_close(network[2].weight.detach(), before, rtol=0, atol=0)


def test_parameters_that_are_no_plain_arrays_are_refused():
    network = new_network()
    network[2].weight = nn.Parameter(torch.zeros(16 * 27, 20).T)
    network[0].weight = nn.Parameter(torch.zeros(8, 16, 3, 3, 3).transpose(0, 1))
    with pytest.raises(ValueError, match=r"\(16, 8, 3, 3, 3\) is no plain array"):
        MatrixSteps(network, rate=0.1, weight_decay=0.0)


def test_a_resumed_run_takes_the_same_steps(tmp_path):
    network = new_network()
    optimizer = MatrixSteps(network, rate=0.01, weight_decay=0.1)
    learn(network, optimizer, 2)
    save_checkpoint(tmp_path / "checkpoint.pt", network, optimizer, step=2, config={})
    twin = new_network()
    resumed = MatrixSteps(twin, rate=0.01, weight_decay=0.1)
    load_checkpoint(tmp_path / "checkpoint.pt").restore(twin, resumed)
    for each, steps in ((network, optimizer), (twin, resumed)):
        learn(each, steps, 2)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], value, rtol=0, atol=0)


def test_moments_of_another_optimizer_are_refused(tmp_path):
    network = new_network()
    adamw = torch.optim.AdamW(network.parameters())
    save_checkpoint(tmp_path / "checkpoint.pt", network, adamw, step=7, config={})
    with pytest.raises(CheckpointError, match=r"step 7 .*start a new run from the weights"):
        load_checkpoint(tmp_path / "checkpoint.pt").restore(
            network, MatrixSteps(network, rate=0.01, weight_decay=0.0)
        )


def test_moments_of_other_sizes_are_refused():
    network, wider = new_network(), nn.Sequential(nn.Conv3d(8, 32, 3), nn.Linear(32, 40))
    states = []
    for each in (network, wider):
        optimizer = MatrixSteps(each, rate=0.1, weight_decay=0.0)
        for parameter in each.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        states.append(optimizer.state_dict())
    narrow = nn.Sequential(nn.Conv3d(8, 16, 3), nn.Linear(32, 40))
    with pytest.raises(ValueError, match="of other sizes"):
        MatrixSteps(narrow, rate=0.1, weight_decay=0.0).load_state_dict(states[1])
