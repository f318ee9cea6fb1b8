"""Label a video with what `activity export --format openvino` wrote.

    python classify_openvino.py MODEL.xml VIDEO

For a model of the stream rgb whose frames are spread evenly and stretched; those of the video at most twice as large.
"""

import json
import sys

import cv2
import numpy as np
import openvino

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
probabilities = openvino.Core().compile_model(model, "CPU")({"frames": frames, "mask": mask})[0][0]
print(about["labels"][probabilities.argmax()], probabilities.max())
