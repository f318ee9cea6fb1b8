"""Our folded `TimeDistributed` against the stock one: first call and steady state, side by side in one run.

python tests/benchmarks/bench_time_distributed.py [--backbone NAME] [--size 64] [--num-frames 32] [--rounds 5]
"""

import argparse
import statistics
import time

import keras
import numpy as np

from activity.backbones import build_backbone
from activity.layers import TimeDistributed, uses_jit

LAYERS = {"stock": keras.layers.TimeDistributed, "folded": TimeDistributed}


def build(layer, arguments):
    backbone = build_backbone(arguments.backbone, height=arguments.size, width=arguments.size, weights="none")
    frames = keras.Input((arguments.num_frames, arguments.size, arguments.size, 3), dtype="uint8")
    model = keras.Model(frames, LAYERS[layer](backbone)(frames))
    model.jit_compile = uses_jit()
    return model


def seconds(model, clips):
    start = time.perf_counter()
    model.predict_on_batch(clips)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenet_v2_035")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--num-frames", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="each builds both models anew")
    arguments = parser.parse_args()
    shape = (2, arguments.num_frames, arguments.size, arguments.size, 3)
    clips = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    first, steady = {name: [] for name in LAYERS}, {name: [] for name in LAYERS}
    for _ in range(arguments.rounds):
        models = {name: build(name, arguments) for name in LAYERS}
        for name, model in models.items():
            first[name].append(seconds(model, clips))
        for _ in range(10):  # interleaved: the machine's speed drifts
            for name, model in models.items():
                steady[name].append(seconds(model, clips))
        keras.backend.clear_session()
    print(
        f"{arguments.backbone}, {arguments.size} px, T={arguments.num_frames}, batch 2, Keras {keras.__version__} on "
        f"{keras.backend.backend()}; medians of {arguments.rounds} rounds"
    )
    for what, times in (("first call", first), ("each further call", steady)):
        stock, folded = (statistics.median(times[name]) for name in LAYERS)
        print(f"{what:18}  stock {stock:7.3f} s   folded {folded:7.3f} s   stock/folded {stock / folded:5.1f}")


if __name__ == "__main__":
    main()
