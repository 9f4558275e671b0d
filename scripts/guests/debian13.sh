#!/usr/bin/env bash
# A Debian 13 root with NumPy, PyTorch, ONNX Runtime and oneDNN 3, for machines whose own Debian has none or old ones: debian13.sh FOLDER, as root.
# FOLDER/python and FOLDER/onednn_graph then run guests in it:
#   ATTN_PYTHON=FOLDER/python ATTN_ONEDNN_GRAPH=FOLDER/onednn_graph attn_sweep --variants full,full@torch,full@onnxruntime,full@onednn_graph
# Takes 2 GB; makes nothing twice. Until the next start of the machine some folders are mounted in it: debian13.sh --unmount FOLDER.
set -euo pipefail

mounts=(proc dev/shm guests)
if [[ ${1:-} == --unmount ]]; then
  root=$(realpath "${2:?the folder}")/root
  for place in "${mounts[@]}"; do
    if mountpoint -q "$root/$place"; then umount "$root/$place"; fi
  done
  exit 0
fi

folder=$(realpath "${1:?the folder}")
guests=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
sources=$guests/../../harness/guests # not there where attnbench is installed
root=$folder/root
if ! command -v debootstrap >/dev/null; then
  echo "debian13.sh needs debootstrap: apt-get install debootstrap" >&2
  exit 2
fi
if [[ ! -e $folder/made ]]; then
  mkdir -p "$folder"
  [[ -e $root/usr/bin/apt-get ]] || debootstrap --variant=minbase trixie "$root" >&2
  cp -r /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/" # a proxy, if there is one
  cp /etc/resolv.conf "$root/etc/resolv.conf"
fi
mkdir -p "$root/dev/shm" "$root/guests"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
mountpoint -q "$root/dev/shm" || mount --bind /dev/shm "$root/dev/shm"
mountpoint -q "$root/guests" || mount --bind "$guests" "$root/guests"
if [[ ! -e $folder/made ]]; then # without OpenBLAS, PyTorch and NumPy multiply with the reference BLAS
  chroot "$root" apt-get -q update >&2
  chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends \
    python3-numpy python3-torch python3-onnxruntime libopenblas0-openmp g++ libdnnl-dev nlohmann-json3-dev >&2
fi
cat >"$folder/python" <<END
#!/bin/sh
exec chroot "$root" env PYTHONPATH=/guests PYTHONDONTWRITEBYTECODE=1 python3 "/guests/\$(basename "\$1")"
END
chmod +x "$folder/python"
built=$root/usr/local/bin/onednn_graph
if [[ $sources/onednn_graph.cpp -nt $built && -x $root/usr/bin/g++ ]]; then
  cp "$sources/onednn_graph.cpp" "$root/tmp/"
  chroot "$root" g++ -std=c++20 -O2 /tmp/onednn_graph.cpp -o /usr/local/bin/onednn_graph -ldnnl >&2
  printf '#!/bin/sh\nexec chroot "%s" /usr/local/bin/onednn_graph\n' "$root" >"$folder/onednn_graph"
  chmod +x "$folder/onednn_graph"
fi
touch "$folder/made"
echo "$folder/python"
