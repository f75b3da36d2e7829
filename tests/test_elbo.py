"""The negative ELBO against closed forms, and the joint objective against the sum of its parts."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from baldvae_pl.elbo import Likelihood, negative_elbo
from baldvae_pl.errors import SettingError
from baldvae_pl.joint import Joint
from baldvae_pl.networks import JointVAE
from baldvae_pl.objective import CrossEntropy, Step


class Given(nn.Module):
    """q(z|x) and what is decoded are given, whatever the images are."""

    def __init__(self, mean: Tensor, log_var: Tensor, decoded: Tensor) -> None:
        super().__init__()
        self.mean, self.log_var, self.decoded = mean, log_var, decoded

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean, self.log_var

    def decode(self, z: Tensor) -> Tensor:
        self.z = z
        return self.decoded


def given(likelihood: Likelihood) -> tuple[Given, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn(2, 3, 4, generator=generator)
    images, decoded = torch.rand(2, 3, 1, 2, 5, generator=generator)
    autoencoder = Given(mean, log_var, decoded)
    return autoencoder, images, *negative_elbo(autoencoder, images, likelihood)


def test_the_divergence_is_the_closed_form_and_z_is_reparametrised() -> None:
    torch.manual_seed(7)
    autoencoder, _, _, divergence = given("bernoulli")
    q = Normal(autoencoder.mean, (0.5 * autoencoder.log_var).exp())
    closed = kl_divergence(q, Normal(0, 1)).sum(1).mean()
    torch.testing.assert_close(divergence, closed)
    torch.manual_seed(7)
    torch.testing.assert_close(autoencoder.z, q.loc + torch.randn(3, 4) * q.scale)


def test_a_bernoulli_reconstruction_is_the_likelihood_of_all_pixels_of_an_image() -> None:
    autoencoder, images, reconstruction, _ = given("bernoulli")
    log_prob = Bernoulli(autoencoder.decoded, validate_args=False).log_prob(images)
    torch.testing.assert_close(reconstruction, -log_prob.sum((1, 2, 3)).mean())


def test_a_gaussian_reconstruction_has_the_best_variance_for_the_batch() -> None:
    autoencoder, images, reconstruction, _ = given("gaussian")
    errors = images - autoencoder.decoded

    def nll(variance: Tensor) -> Tensor:
        return -Normal(0, variance.sqrt()).log_prob(errors).sum((1, 2, 3)).mean()

    best = errors.square().mean()
    torch.testing.assert_close(reconstruction, nll(best))
    assert nll(best * 1.1) > reconstruction
    assert nll(best * 0.9) > reconstruction


def test_the_joint_objective_is_the_sum_of_both_losses() -> None:
    torch.manual_seed(0)
    network = JointVAE(image_shape=(1, 8, 8), width=2, latent=3).eval()
    images, unlabelled = torch.rand(4, 1, 8, 8), torch.rand(6, 1, 8, 8)
    step = Step(network, images, torch.tensor([0, 1, 2, 3]), unlabelled)
    torch.manual_seed(1)
    loss = Joint(weight=0.25)(step)
    torch.manual_seed(1)
    by_hand = CrossEntropy()(step) + 0.25 * sum(negative_elbo(network, unlabelled, "bernoulli"))
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert Joint(weight=0)(step).item() == pytest.approx(CrossEntropy()(step).item())


def test_mixed_precision_changes_the_layers_and_not_the_loss() -> None:
    torch.manual_seed(0)
    network, images = JointVAE(image_shape=(1, 8, 8), width=2, latent=3), torch.rand(6, 1, 8, 8)
    torch.manual_seed(1)
    exact = negative_elbo(network, images, "bernoulli")
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = negative_elbo(network, images, "bernoulli")
    assert mixed[0].dtype == torch.float32
    torch.testing.assert_close(mixed[0], exact[0], rtol=0.02, atol=0)


@pytest.mark.parametrize("weight", [-0.1, -math.inf])
def test_a_negative_weight_is_refused(weight: float) -> None:
    with pytest.raises(SettingError, match=r"--model\.objective\.weight: must be at least 0"):
        Joint(weight=weight)
