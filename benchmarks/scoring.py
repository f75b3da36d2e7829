"""Time of scoring by BALD against the alternatives, and its bottleneck."""

from collections import deque
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from baal.bayesian.caching_utils import patch_module as cache_layers
from baal.bayesian.dropout import patch_module as baal_dropout
from baal.modelwrapper import ModelWrapper, TrainingArgs
from batchbald_redux.consistent_mc_dropout import BayesianModule, ConsistentMCDropout
from timing import seconds
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from baldvae_pl.acquisition import bald
from baldvae_pl.data.batches import to_floats
from baldvae_pl.networks import MNISTNet
from baldvae_pl.posterior import DropoutDraws
from baldvae_pl.products import masked_products, with_masked_weights

Way = tuple[Callable[[Tensor], Any], int]  # how, and how many images it is timed on


def redux_head(head: nn.Sequential) -> BayesianModule:
    """The head with batchbald_redux's consistent dropout, to be run on features."""
    layers = [ConsistentMCDropout(x.p) if isinstance(x, nn.Dropout) else x for x in head]

    class Head(BayesianModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def mc_forward_impl(self, features_BK: Tensor) -> Tensor:
            return self.layers(features_BK).log_softmax(-1)

    return Head()


def scoring(images: Tensor, make: Callable[[], nn.Module], few: int, repeats: int) -> pd.DataFrame:
    """Time of scoring by BALD, as a multiple of one deterministic pass at its best batch size."""
    net = make().to(memory_format=torch.channels_last).eval()
    dataset = TensorDataset(to_floats(images[:few]), torch.zeros(few))
    baal_net = baal_dropout(make().to(memory_format=torch.channels_last), inplace=True)
    cached_net = cache_layers(baal_dropout(make(), inplace=True), inplace=True)
    args = TrainingArgs(batch_size=32, use_cuda=False, workers=0)
    redux = redux_head(net.head)

    @torch.no_grad()
    def one_pass(size: int, images: Tensor) -> None:
        for part in images.split(size):
            net(to_floats(part)).softmax(-1)

    def ours(draws: int, nested: int, images: Tensor) -> None:
        posterior = DropoutDraws(net, draws, torch.Generator().manual_seed(0), nested)
        for part in images.split(4096):
            bald(posterior(to_floats(part)))

    @torch.no_grad()
    def plain(draws: int, images: Tensor) -> None:
        for part in images.split(64):
            x = to_floats(part)
            net.head.train()
            bald(torch.stack([net(x).float().log_softmax(-1) for _ in range(draws)], 1))
            net.head.eval()

    @torch.no_grad()
    def by_redux(draws: int, images: Tensor) -> None:
        for part in images.split(64):
            bald(redux(net.trunk(to_floats(part)), draws).float())

    def by_baal(model: nn.Module, draws: int, replicate: bool, _: Tensor) -> None:
        args.replicate_in_memory = replicate
        ModelWrapper(model, args).predict_on_dataset(dataset, draws, verbose=False)

    sizes = (32, 64, 128, 256, 512)
    all_of_them = len(images)
    ways: dict[str, Way] = {
        **{f"one pass, batch {s}": (lambda x, s=s: one_pass(s, x), all_of_them) for s in sizes},
        "ours, T = 20 independent": (lambda x: ours(20, 1, x), all_of_them),
        "ours, T = 100 as 10 x 10 (default)": (lambda x: ours(100, 10, x), all_of_them),
        "ours, T = 100 as 20 x 5": (lambda x: ours(100, 5, x), all_of_them),
        "ours, T = 100 independent": (lambda x: ours(100, 1, x), all_of_them),
        "batchbald_redux, trunk once, T = 20": (lambda x: by_redux(20, x), few),
        "plain passes, T = 20": (lambda x: plain(20, x), few),
        "Baal 2.1, T = 20": (lambda x: by_baal(baal_net, 20, True, x), few),
        "Baal 2.1 with its cache, T = 20": (lambda x: by_baal(cached_net, 20, False, x), few),
    }
    rows = []
    for precision in ("float32", "bfloat16"):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            runs = {name: (lambda w=way, n=n: w(images[:n])) for name, (way, n) in ways.items()}
            if precision == "bfloat16":  # the peers are timed as they come
                runs = {k: v for k, v in runs.items() if "Baal" not in k and "redux" not in k}
            times = seconds(runs, repeats)
        per_image = {name: times[name] / ways[name][1] for name in times}
        floor = min(value for name, value in per_image.items() if name.startswith("one pass"))
        for name, value in per_image.items():
            mark = "~" if ways[name][1] < all_of_them else ""
            rows.append([precision, name, f"{mark}{value * 1e6:.0f}", round(value / floor, 2)])
    return pd.DataFrame(rows, columns=["precision", "way", "µs an image", "times one pass"])


def masks(images: Tensor) -> pd.DataFrame:
    """Time of scoring by products with the inputs that masks drop, and with masks on weights."""
    rows = []
    net = MNISTNet().to(memory_format=torch.channels_last)
    for draws, nested, what in (
        (20, 1, "T = 20"),
        (100, 10, "T = 100 as 10 x 10"),
        (100, 1, "T = 100"),
    ):
        score = DropoutDraws(net, draws, torch.Generator().manual_seed(0), nested)

        def on_weights(score: DropoutDraws = score) -> None:
            with patch("baldvae_pl.posterior.masked_products", with_masked_weights):
                bald(score(to_floats(images)))

        times = seconds({
            "ours, with the inputs that are dropped": lambda: bald(score(to_floats(images))),  # noqa: B023
            "masks on the weights": on_weights,
        }, 5)  # fmt: skip
        ours = next(iter(times.values()))
        for way, took in times.items():
            rows.append([what, way, round(1e6 * took / len(images)), round(took / ours, 2)])
    return pd.DataFrame(rows, columns=["what", "way", "µs an image", "times ours"])


def limit(images: Tensor) -> pd.DataFrame:
    """Where the time of T = 20 goes, and its products' rate beside a square one's, in GFLOP/s."""
    rows = []
    net = MNISTNet().to(memory_format=torch.channels_last)
    for dtype in (torch.float32, torch.bfloat16):
        posterior = DropoutDraws(net, 20, torch.Generator().manual_seed(0), nested=1)
        square = torch.rand(4096, 4096).to(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            posterior(to_floats(images))  # draws the masks
            with torch.no_grad():
                features = torch.cat([net.trunk(x) for x in to_floats(images).split(128)])
            weight = net.head[1].weight.detach().to(dtype)
            keep = posterior.masks[net.head[0], 0] > 0
            units = [mask.nonzero().flatten() for mask in posterior.masks[net.head[3], 0]]

            def products() -> None:
                deque(masked_products(features, weight, keep, units), maxlen=0)  # noqa: B023

            with FlopCounterMode(display=False) as counter:
                products()
            times = seconds({
                "all": lambda: bald(posterior(to_floats(images))),  # noqa: B023
                "trunk": lambda: posterior.features(to_floats(images)),  # noqa: B023
                "products": products,
                "square": lambda: square @ square,  # noqa: B023
            }, 5)  # fmt: skip
        rates = counter.get_total_flops() / times["products"], 2 * 4096**3 / times["square"]
        shares = [times[part] / times["all"] for part in ("trunk", "products")]
        parts = [f"{100 * share:.0f} %" for share in (*shares, 1 - sum(shares))]
        rows.append([str(dtype), *parts, *(round(rate / 1e9) for rate in rates)])
    columns = ["precision", "trunk", "products", "elsewhere", "products' rate", "square's rate"]
    return pd.DataFrame(rows, columns=columns)
