import pytest
import torch
from torch import nn

from decr_scene.models.training.optimisers import Muon, build_optimisers, orthogonal


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (40, 40)])
def test_orthogonal_keeps_the_directions_and_evens_their_lengths(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    lengths = torch.diag(u.T @ orthogonal(matrix) @ v.T)
    across = u.T @ orthogonal(matrix) @ v.T - torch.diag(lengths)
    assert lengths.min() > 0.3  # the least directions of a square matrix take longest
    assert lengths.max() < 1.3
    assert across.abs().max() < 1e-4


def test_no_gradient_moves_nothing():
    assert not orthogonal(torch.zeros(24, 30)).any()


def test_a_matrix_is_moved_as_torch_moves_it():
    start = torch.randn(32, 48, generator=torch.Generator().manual_seed(1))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    muons = [
        Muon([ours], lr=1e-2, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for seed in range(5):
        gradient = torch.randn(32, 48, generator=torch.Generator().manual_seed(seed + 2))
        for weight, muon in zip((ours, theirs), muons, strict=True):
            weight.grad = gradient.clone()
            muon.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.01 * moved  # torch iterates in bf16


def test_a_convolution_in_channels_last_is_the_matrix_it_is_otherwise():
    start = torch.randn(24, 24, 3, 3, generator=torch.Generator().manual_seed(1))
    gradient = torch.randn(24, 24, 3, 3, generator=torch.Generator().manual_seed(2))
    moved = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(start.clone(memory_format=layout))
        weight.grad = gradient.clone(memory_format=layout)
        Muon([weight], lr=1e-2).step()
        moved.append(weight.detach())
    torch.testing.assert_close(moved[0], moved[1])
    assert not torch.equal(moved[0], start)


def test_muon_takes_what_mixes_features_and_adamw_the_rest():
    feature, door, bias = (nn.Parameter(torch.zeros(s)) for s in ((24, 24, 3, 3), (4, 24, 3, 3), (24,)))
    adamw, muon = build_optimisers("muon", [feature, door, bias], 1e-3, 0.0)
    assert [id(p) for p in adamw.param_groups[0]["params"]] == [id(door), id(bias)]
    assert [id(p) for p in muon.param_groups[0]["params"]] == [id(feature)]
    (alone,) = build_optimisers("adamw", [feature, door, bias], 1e-3, 0.0)
    assert len(alone.param_groups[0]["params"]) == 3


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_many_matrices_come_out_as_each_alone(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    together = orthogonal(matrices)
    for matrix, found in zip(matrices, together, strict=True):
        torch.testing.assert_close(found, orthogonal(matrix), atol=1e-5, rtol=1e-5)
