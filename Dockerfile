# Oceano's image. CUDA_VERSION is 11.8 (default), 12, 13 or cpu; it selects the base image and the list of packages.
ARG CUDA_VERSION=11.8

# The Python packages bring CUDA and cuDNN in the versions that their onnxruntime-gpu was built for.
FROM nvidia/cuda:11.8.0-base-ubuntu22.04 AS base-11.8
ENV OCEANO_REQUIREMENTS=requirements.txt
FROM nvidia/cuda:12.6.3-base-ubuntu22.04 AS base-12
ENV OCEANO_REQUIREMENTS=requirements-cu12.txt
FROM nvidia/cuda:13.0.1-base-ubuntu22.04 AS base-13
ENV OCEANO_REQUIREMENTS=requirements-cu13.txt
FROM ubuntu:22.04 AS base-cpu
ENV OCEANO_REQUIREMENTS=requirements-cpu.txt

# --- build stage; only its results are copied into the image
# hadolint ignore=DL3006
FROM base-${CUDA_VERSION} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates python3-pip \
  && rm -rf /var/lib/apt/lists/* \
  && pip install --no-cache-dir uv==0.13.9
ENV UV_PYTHON_INSTALL_DIR=/opt/python UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/oceano
RUN uv python install 3.12 && uv venv --managed-python --python 3.12 /opt/oceano
WORKDIR /build/app
COPY app/requirements*.txt ./
RUN uv pip install --no-deps --no-cache -r "$OCEANO_REQUIREMENTS"
COPY app/pyproject.toml ./
COPY app/app ./app
RUN uv pip install --no-deps --no-cache .
# the free model pack, so that the image works without a download; fetched with this stage's pip, hashes checked
RUN DATA_DIR=/opt/data /opt/oceano/bin/oceano models install opencv && mv /opt/data/models /opt/oceano-packs

# --- runtime stage: no compiler, no pip, no uv
# hadolint ignore=DL3006
FROM base-${CUDA_VERSION} AS runtime
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates tini \
  && rm -rf /var/lib/apt/lists/* \
  && groupadd --gid 10001 oceano \
  && useradd --uid 10001 --gid oceano --no-create-home --home-dir /data --shell /usr/sbin/nologin oceano \
  && install -d -o oceano -g oceano /data /data/logs /data/state /data/thumbs /data/models /data/qdrant_storage
COPY --from=build /opt/python /opt/python
COPY --from=build /opt/oceano /opt/oceano
COPY --from=build /opt/oceano-packs /opt/oceano-packs
COPY --chmod=0755 entrypoint.sh /usr/local/bin/oceano-entrypoint
ENV PATH=/opt/oceano/bin:$PATH \
  PYTHONDONTWRITEBYTECODE=1 \
  PYTHONUNBUFFERED=1 \
  DATA_DIR=/data \
  UVICORN_HOST=0.0.0.0 \
  UVICORN_PORT=9100 \
  NVIDIA_VISIBLE_DEVICES=all \
  NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /data
USER 10001:10001
EXPOSE 9100
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"UVICORN_PORT\"]}/health', timeout=4)"]
ENTRYPOINT ["tini", "--", "oceano-entrypoint"]
CMD ["serve"]
