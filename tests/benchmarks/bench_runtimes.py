"""Images per second of a backbone by each runtime, in turn, and whether a model gives the same labels by all of them.

python tests/benchmarks/bench_runtimes.py [--backbone mobilenet_v2] [--size 224] [--batch 32] [--rounds 15]
python tests/benchmarks/bench_runtimes.py --model MODEL.keras --videos FOLDER_OR_FILE ...

With a model its own backbone is timed. In a folder of a folder per label, accuracy is measured too.
"""

import argparse
import statistics
import tempfile
import time
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

from activity.errors import ActivityError
from activity.models.backbones import build_backbone
from activity.models.classifier import load_classifier
from activity.predictor.predictor import Predictor
from activity.predictor.sources import expand_sources
from activity.runtimes.choice import RUNTIMES, choose
from activity.runtimes.exported import open_extractor


def here(runtime):
    try:
        return choose(runtime) == runtime
    except ActivityError as error:
        print(f"{runtime} is left out: {error}")
        return False


def time_backbone(backbone, runtimes, arguments):
    shape = (arguments.batch, *backbone.input_shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        extractors = {
            name: open_extractor(backbone, name, num_images=arguments.batch, cache_dir=Path(folder))
            for name in runtimes
        }
    expected = extractors["keras"](images)
    seconds = {name: [] for name in extractors}
    for round_ in range(arguments.rounds + 2):
        for name, extract_features in extractors.items():
            start = time.perf_counter()
            features = extract_features(images)
            if round_ > 1:  # the first two trace, compile and warm
                seconds[name].append(time.perf_counter() - start)
            elif not round_:
                difference = np.abs(features - expected).max() / np.abs(expected).max()
                print(f"{name:14} features differ by at most {difference:.1e} of the largest")
    print(f"\n{backbone.name}, {' x '.join(map(str, shape))} uint8, {arguments.rounds} rounds")
    print(f"{'runtime':14} {'images/s':>10} {'to keras':>9}   (median of the ratios within a round)")
    for name, taken in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["keras"], taken, strict=True))
        print(f"{name:14} {arguments.batch / statistics.median(taken):10.0f} {ratio:9.2f}")


def compare_labels(runtimes, arguments):
    sources = expand_sources(arguments.videos)
    print(
        f"\n{len(sources)} videos{'':10} videos/s  same label as keras  accuracy  largest difference of a probability"
    )
    expected = None
    for name in runtimes:
        predictor = Predictor.load(arguments.model, runtime=name)
        list(predictor.predict_many(sources[:1]))
        start = time.perf_counter()
        results = [result for result in predictor.predict_many(sources) if hasattr(result, "label")]
        rate = len(results) / (time.perf_counter() - start)
        expected = expected or results
        same = np.mean([a.label == b.label for a, b in zip(results, expected, strict=True)])
        right = np.mean([result.label == Path(result.source).parent.name for result in results])
        difference = max(
            np.abs(a.probabilities - b.probabilities).max() for a, b in zip(results, expected, strict=True)
        )
        print(f"{name:20} {rate:8.2f} {same:20.3f} {right:9.3f}  {difference:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--videos", nargs="*", default=[])
    arguments = parser.parse_args()
    runtimes = [name for name in RUNTIMES if name != "auto" and here(name)]
    packages = ("keras", keras.backend.backend(), "openvino", "onnxruntime")
    print(", ".join(f"{name} {metadata.version(name)}" for name in packages))
    if arguments.model:
        backbone = load_classifier(arguments.model).backbone
    else:
        backbone = build_backbone(arguments.backbone, height=arguments.size, width=arguments.size)
    time_backbone(backbone, runtimes, arguments)
    if arguments.model and arguments.videos:
        compare_labels(runtimes, arguments)


if __name__ == "__main__":
    main()
