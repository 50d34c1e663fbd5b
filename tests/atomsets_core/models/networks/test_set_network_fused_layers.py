"""The fused steps give the numbers and gradients of the plain ones."""

import pytest
import torch

from atomsets_core.models.networks import set_network
from atomsets_core.models.networks.set_network import extreme, share_of_sites, standardized_layer, sum_sites


def grads(result, *inputs):
    weight = torch.linspace(-1.0, 1.0, result.numel(), dtype=result.dtype).view(result.shape)
    return torch.autograd.grad((result * weight).sum(), inputs)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    members, n, inputs, outputs = 3, 11, 5, 4
    return (
        torch.randn(n, inputs, dtype=torch.float64) * 3 + 40,
        torch.randn(members, 1, inputs, dtype=torch.float64) + 40,
        torch.rand(members, 1, inputs, dtype=torch.float64) + 0.5,
        torch.randn(members, inputs, outputs, dtype=torch.float64, requires_grad=True),
        torch.randn(members, 1, outputs, dtype=torch.float64, requires_grad=True),
    )


def test_a_shared_layer_is_every_members_own(layer):
    sites, mean, scale, weight, bias = layer
    plain = torch.baddbmm(bias, (sites - mean) / scale, weight)
    fused_layers = standardized_layer(*layer)
    torch.testing.assert_close(fused_layers, plain)
    for found, expected in zip(grads(fused_layers, weight, bias), grads(plain, weight, bias), strict=True):
        torch.testing.assert_close(found, expected)


def test_in_half_precision_a_shared_layer_keeps_what_is_far_from_zero(layer):
    layer = [tensor.detach().float().requires_grad_(tensor.requires_grad) for tensor in layer]
    plain = standardized_layer(*layer)
    with torch.autocast("cpu", torch.bfloat16):
        half = standardized_layer(*layer)
    assert half.dtype == torch.bfloat16
    # bfloat16 has 8 bits: of the standardised numbers, not of the features, which lie around 40.
    torch.testing.assert_close(half.float(), plain, atol=0.15, rtol=0.03)
    for found, expected in zip(grads(half, *layer[3:]), grads(plain, *layer[3:]), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=0.3, rtol=0.05)


def test_sums_over_sites_are_those_of_a_loop():
    torch.manual_seed(0)
    owner = torch.tensor([0, 0, 0, 1, 2, 2])
    weights = torch.tensor([1.0, 2.0, 1.0, 4.0, 3.0, 1.0], dtype=torch.float64)
    values = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    share = share_of_sites(weights, owner, 3)
    plain = torch.stack([(values * share[None, :, None])[:, owner == k].sum(dim=1) for k in range(3)], dim=1)
    fused_layers = sum_sites(values, share, owner, 3)
    torch.testing.assert_close(fused_layers, plain)
    torch.testing.assert_close(grads(fused_layers, values)[0], grads(plain, values)[0])
    wide = values.transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(sum_sites(wide, share, owner, 3), plain)
    torch.testing.assert_close(share, torch.tensor([0.25, 0.5, 0.25, 1.0, 0.75, 0.25], dtype=torch.float64))


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_compiled_extremes_are_those_of_torch(largest, transposed, monkeypatch):
    torch.manual_seed(0)
    owner = torch.tensor([0, 0, 0, 1, 3, 3, 3, 3])  # structure 2 has no sites
    values = torch.randn(8, 3, 21).transpose(0, 1) if transposed else torch.randn(3, 8, 21)
    weight = torch.randn(3, 4, 21)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        inputs = values.clone().requires_grad_()
        found = extreme(inputs, owner, 4, largest)
        (torch.where(found.isfinite(), found, 0.0) * weight).sum().backward()
        return found.detach(), inputs.grad

    assert set_network.compiled_module("models.networks.extreme_kernel") is not None
    compiled = both()
    monkeypatch.setattr(set_network, "compiled_module", lambda _: None)
    plain = both()
    torch.testing.assert_close(compiled[0], plain[0], rtol=0, atol=0)
    torch.testing.assert_close(compiled[1], plain[1], rtol=0, atol=0)
    assert compiled[0][:, 2].abs().isinf().all()


def test_of_equal_entries_the_first_has_the_gradient_and_nan_is_not_lost():
    values = torch.tensor([[[1.0, 2.0], [1.0, 3.0], [0.0, float("nan")]]], requires_grad=True)
    found = extreme(values, torch.zeros(3, dtype=torch.int64), 1, largest=True)
    assert found[0, 0, 0] == 1
    assert found[0, 0, 1].isnan()
    found[0, 0, 0].backward()
    assert values.grad[0, :, 0].tolist() == [1, 0, 0]
