#!/usr/bin/env bash
# Installs what attnbench needs and the machine lacks. Does nothing, and needs no network, when all is there.
# --all adds what the tests labelled slow need. ATTN_SKIP_SETUP=1 skips everything: for machines where the libraries come from
# elsewhere.
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
python3-dev         the Python module; without these two everything else is built
pybind11-dev        the same
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
if [[ ${1:-} == --all ]]; then
  needs+=$'\n'$slow_needs
fi

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
if ((${#missing[@]} + ${#wished[@]} == 0)); then
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
  apt install --no-install-recommends "${wished[@]}" || echo "setup.sh: no ${wished[*]}: the Python module is not built" >&2
fi
