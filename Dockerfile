# activity in a container, with or without an NVIDIA GPU.
#
#   docker build -t activity .                            with the CUDA libraries, which come as wheels
#   docker build -t activity:cpu --build-arg EXTRA=openvino .     without: gigabytes smaller
#
#   docker run --rm --gpus all activity doctor --expect-gpu
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" -v activity-weights:/weights \
#       activity preprocess videos --out dataset

FROM python:3.12-slim

LABEL org.opencontainers.image.title="activity" \
      org.opencontainers.image.description="Learn to recognise the activities in labelled videos, then label new ones" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=2

# What it needs, in a layer that only a change of pyproject.toml makes anew: an empty package stands in for ours.
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
