#!/usr/bin/env bash
# Starts Oceano in a container. Checks folders, GPU, driver and CUDA first. Arguments are passed to `oceano`.
set -euo pipefail

say() { printf 'entrypoint: %s\n' "$*" >&2; }

die() { # die CODE MESSAGE
  say "$2"
  exit "$1"
}

one_worker() { # a second worker would load the model again and gain nothing
  if [[ ${UVICORN_WORKERS:-1} != 1 ]]; then
    say "UVICORN_WORKERS=$UVICORN_WORKERS is ignored: one process holds the model; start more containers instead"
    export UVICORN_WORKERS=1
  fi
}

free_pack() { # uses the free pack of the image, unless the data folder has one
  if [[ ${MODEL_NAME:-} == opencv ]] && ! compgen -G "$DATA_DIR/models/opencv/*.onnx" >/dev/null; then
    export MODEL_NAME=${OCEANO_PACKS:-/opt/oceano-packs}/opencv
  fi
}

require_folders() {
  local name folder closed=()
  for name in logs state thumbs models qdrant_storage; do
    [[ $name == qdrant_storage && -n ${QDRANT_URL:-} ]] && continue # the index is on a server
    folder=$DATA_DIR/$name
    mkdir -p -- "$folder" 2>/dev/null || true
    [[ $name == models && -r $folder ]] && continue # the packs may be on a read-only mount
    [[ -w $folder ]] || closed+=("$name")
  done
  ((${#closed[@]} == 0)) && return
  say "User $(id -u) cannot write to ${closed[*]} in $DATA_DIR. On the host, in Oceano's folder, either run"
  say "  sudo chown -R $(id -u):$(id -g) ${closed[*]}"
  die 3 "or set OCEANO_UID and OCEANO_GID in .env to their owner (see id -u and id -g). Then start again."
}

require_device() { # runs a test on the device; DEVICE=auto continues without a GPU and says why
  local said code=0
  said=$(oceano device 2>&1) || code=$?
  say "$said"
  ((code == 0)) && return
  ((code == 3)) || exit "$code" # another error, such as a wrong setting
  say "Does the container have a GPU (--gpus all, or the reservation in docker-compose.yml)?"
  say "Does the host have the NVIDIA Container Toolkit, and does nvidia-smi work there?"
  die 3 "If so, build the image for another CUDA (CUDA_VERSION=11.8, 12, 13 or cpu), or set DEVICE=auto or DEVICE=cpu."
}

: "${DATA_DIR:=/data}"
export DATA_DIR
(($#)) || set -- serve
one_worker
free_pack
case $1 in
  serve | ingest | worker)
    require_folders
    require_device
    ;;
esac
exec oceano "$@"
