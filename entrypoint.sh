#!/usr/bin/env bash
# Starts Oceano in a container, after a look at what it needs: folders, GPU, driver, CUDA. Words go to `oceano`.
set -euo pipefail

say() { printf 'entrypoint: %s\n' "$*" >&2; }

die() { # die CODE MESSAGE
  say "$2"
  exit "$1"
}

one_worker() { # a second one would load the model again and gain nothing
  if [[ ${UVICORN_WORKERS:-1} != 1 ]]; then
    say "UVICORN_WORKERS=$UVICORN_WORKERS is taken as 1: one process holds the model; for more, start more containers"
    export UVICORN_WORKERS=1
  fi
}

free_pack() { # the image brings the free pack along; one in the data folder goes first
  if [[ ${MODEL_NAME:-} == opencv ]] && ! compgen -G "$DATA_DIR/models/opencv/*.onnx" >/dev/null; then
    export MODEL_NAME=${OCEANO_PACKS:-/opt/oceano-packs}/opencv
  fi
}

require_folders() {
  local name folder closed=()
  for name in logs state thumbs models qdrant_storage; do
    [[ $name == qdrant_storage && -n ${QDRANT_URL:-} ]] && continue # the index is elsewhere
    folder=$DATA_DIR/$name
    mkdir -p -- "$folder" 2>/dev/null || true
    [[ $name == models && -r $folder ]] && continue # the packs may be shared, read-only
    [[ -w $folder ]] || closed+=("$name")
  done
  ((${#closed[@]} == 0)) && return
  say "${closed[*]} in $DATA_DIR cannot be written by user $(id -u). On the host, in Oceano's folder, either"
  say "  sudo chown -R $(id -u):$(id -g) ${closed[*]}"
  die 3 "or run as their owner: OCEANO_UID and OCEANO_GID in .env (what id -u and id -g print), and start again."
}

require_device() { # by running something there; DEVICE=auto goes on without a GPU, and says why it has none
  local said code=0
  said=$(oceano device 2>&1) || code=$?
  say "$said"
  ((code == 0)) && return
  ((code == 3)) || exit "$code" # a setting, say
  say "Is the container started with a GPU (--gpus all, or the reservation in docker-compose.yml)?"
  say "Does the host have the NVIDIA Container Toolkit, and does nvidia-smi work there?"
  die 3 "Else build for another CUDA (CUDA_VERSION=11.8, 12, 13 or cpu), or set DEVICE=auto or DEVICE=cpu."
}

: "${DATA_DIR:=/data}"
export DATA_DIR
(($#)) || set -- serve
one_worker
free_pack
case $1 in
  serve | ingest)
    require_folders
    require_device
    ;;
esac
exec oceano "$@"
