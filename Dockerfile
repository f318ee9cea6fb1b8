# activity in a container, with or without an NVIDIA GPU.
#
# On Linux with an NVIDIA driver, `pip install '.[gpu]'` brings the CUDA libraries as wheels; there is
# no CUDA toolkit to install. On Windows use WSL2. `activity doctor --expect-gpu` says whether it works, and what to do if not.
#
# The image needs Docker and, for the GPU, the
# [NVIDIA Container Toolkit](https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html).
#
#     docker build -t activity .                             # with the CUDA libraries
#     docker build -t activity:cpu --build-arg EXTRA=openvino .   # without: gigabytes smaller, and OpenVINO to be quick
#
# Is the GPU really used? The first line asks the driver; the second places a convolution on the GPU and fails if it runs
# anywhere else; while training runs, the third, on the host, shows the process and its load.
#
#     docker run --rm --gpus all --entrypoint nvidia-smi activity
#     docker run --rm --gpus all activity doctor --expect-gpu
#     nvidia-smi --loop 1
#
# Commands start in `/data`. Downloaded ImageNet weights go to `/weights`; the named volume keeps them for the next run.
# `--user` makes the results yours. A shell function keeps the lines short:
#
#     in_docker() { docker run --rm --init --gpus all --user "$(id -u):$(id -g)" \
#         -v activity-weights:/weights -v "$PWD:/data" -v "$PWD/models:/models" "$@"; }
#     mkdir -p models
#
#     in_docker activity preprocess videos --out dataset
#     in_docker activity train dataset --out /models/model.keras --mixed-precision
#     in_docker activity classify /models/model.keras new-videos --csv labels.csv
#     in_docker activity evaluate /models/model.keras dataset --out report
#
# Videos that live elsewhere are mounted too, read-only if you like:
#
#     in_docker -v /mnt/ucf101:/videos:ro activity preprocess /videos --out dataset
#
# The web page in a container is reached through a published port:
#
#     docker build -t activity:web --build-arg EXTRA=gpu,web .
#     docker run --rm --gpus all -p 127.0.0.1:7860:7860 -v "$PWD:/data" activity:web serve model.keras --host 0.0.0.0
#
# Without a GPU: the image `activity:cpu`, and no `--gpus all`. To bring weights along to a machine without internet, mount
# the folder that has them: `-v ~/.keras:/weights`, in place of the named volume.
#
# Podman takes the same lines with `--device nvidia.com/gpu=all` for `--gpus all` (after
# `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`) and with `--userns keep-id` added. On a
# host with SELinux add `:z` to the mounts.

FROM python:3.12-slim

LABEL org.opencontainers.image.title="activity" \
      org.opencontainers.image.description="Learn to recognise the activities in labelled videos, then label new ones" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=2

# What it needs, in a layer that only a change of pyproject.toml makes again: an empty package takes the place of ours.
# (hadolint asks for versions: pyproject.toml has them.)
ARG EXTRA=gpu
WORKDIR /src
COPY pyproject.toml ./
# hadolint ignore=DL3013
RUN mkdir activity \
    && echo '__version__ = "0"' > activity/_version.py \
    && touch activity/__init__.py \
    && touch README.md LICENSE \
    && pip install ".${EXTRA:+[$EXTRA]}" \
    && rm -rf build ./*.egg-info

# TensorFlow 2.21 does not look into the wheel of libcusolver, and then skips every GPU; the system's loader finds it.
RUN find /usr/local/lib -path '*-packages/nvidia/*/lib' -type d > /etc/ld.so.conf.d/cuda-wheels.conf && ldconfig

COPY README.md LICENSE ./
COPY activity activity
RUN pip install --no-deps --force-reinstall . \
    && rm -rf build ./*.egg-info

# Open to every user: `docker run --user "$(id -u):$(id -g)"` makes the results belong to the caller.
RUN useradd --uid 1000 --create-home activity \
    && mkdir /data /models /weights \
    && chmod 1777 /home/activity /data /models /weights

ENV HOME=/home/activity \
    MPLCONFIGDIR=/tmp/matplotlib \
    KERAS_HOME=/weights \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /data

# Imports, decodes, writes and computes once: an image in which that fails is never made. Leaves nothing behind.
RUN HOME=/tmp/check KERAS_HOME=/tmp/check MPLCONFIGDIR=/tmp/check activity doctor && rm -rf /tmp/check

VOLUME ["/data", "/models", "/weights"]
ENTRYPOINT ["activity"]
CMD ["--help"]
