"""How long `activity classify` takes on one short clip by each runtime, and Keras to import, each in a fresh process.

python tests/benchmarks/bench_startup.py MODEL.keras VIDEO [--rounds 7]
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time


def seconds(*command):
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("video")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    commands = {
        "activity --help": ("-m", "activity", "--help"),
        "import keras": ("-c", "import keras"),
    }
    for runtime in ("keras", "openvino", "onnx"):
        if importlib.util.find_spec({"onnx": "onnxruntime"}.get(runtime, runtime)):
            options = ("--runtime", runtime)
            commands[f"classify, {runtime}"] = (
                "-m",
                "activity",
                "classify",
                arguments.model,
                arguments.video,
                *options,
            )
    times = {name: [] for name in commands}
    for round_ in range(arguments.rounds + 1):
        for name, command in commands.items():
            taken = seconds(*command)
            if round_:  # the first warms the disk cache, and exports the model if need be
                times[name].append(taken)
    for name, taken in times.items():
        print(f"{name:18} median {statistics.median(taken):6.2f} s   ({min(taken):.2f} to {max(taken):.2f})")
    pairs = zip(times["classify, keras"], times["import keras"], strict=True)
    print(f"classify by keras beyond its import: median {statistics.median(a - b for a, b in pairs):.2f} s")


if __name__ == "__main__":
    main()
