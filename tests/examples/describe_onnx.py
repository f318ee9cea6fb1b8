"""Write a sentence of a video with what `activity export --format onnx` wrote of a captioner, word by word.

    python describe_onnx.py CAPTIONER.onnx VIDEO

For a model of the stream rgb whose frames are spread evenly and stretched; those of the video at most twice as large.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime

model, video = sys.argv[1:]
about = json.load(open(f"{model}.json"))
if (spec := about["spec"])["streams"] != ["rgb"] or spec["frames_per_second"] or spec["resize"] != "stretch":
    sys.exit(f"{model} takes other frames than these; activity.video.sampling.read_stack makes them: {spec}")
_, length, _, height, width, _ = about["inputs"]["frames"]["shape"]
capture, images = cv2.VideoCapture(video), []
while (read := capture.read())[0]:
    images.append(cv2.cvtColor(cv2.resize(read[1], (width, height)), cv2.COLOR_BGR2RGB))
mask = np.arange(length)[None] < len(images)  # (1, T)
frames = np.zeros((1, length, 1, height, width, 3), np.uint8)
frames[mask, 0] = np.asarray(images)[(2 * np.arange(mask.sum()) + 1) * len(images) // (2 * mask.sum())]
encoder = onnxruntime.InferenceSession(model)
step = onnxruntime.InferenceSession(f"{model.removesuffix('.onnx')}.step.onnx")
names = sorted(about["outputs"])
known = dict(zip(names, encoder.run(names, {"frames": frames, "mask": mask}), strict=True))
state, words = {name: known.pop(name)[:, None] for name in ("hidden", "cell")}, [about["special_words"]["end"]]
while len(words) == 1 or words[-1] != words[0]:
    inputs = {**known, **state, "mask": mask, "words": np.array([words[-1:]], np.int32)}
    logits, state["hidden"], state["cell"] = step.run(["logits", "next_hidden", "next_cell"], inputs)
    first = about["first_word"] if len(words) == 1 else words[0]  # a sentence has one word at least
    words.append(words[0] if len(words) > about["max_words"] else first + int(logits[0, 0, first:].argmax()))
print(*(about["words"][word - about["first_word"]] for word in words[1:-1]))
