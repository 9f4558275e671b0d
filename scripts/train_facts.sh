#!/usr/bin/env bash
# The facts about task accuracy that attnbench asserts, each trained with its seeds and rates into results/facts/*.train.csv, and
# checked by train_facts.py. Arguments: the facts wanted (default: all). Finished runs are kept: call it again to go on.
#   toys      packed recall of 8 pairs at N=64: full, linear, a window, a Synthesizer          1 core minute
#   capacity  packed recall of 32 pairs at N=128, width 32 and 64: full, linear, Synthesizer    1 core hour
#   lowrank   packed recall of 8 pairs at N=64: Linformer with k=16 and k=4, windows            20 core minutes
#   marker    the last token asks for the first, N=128: full, a window, a window with a global token    5 core minutes
#   listops   short ListOps: which rung of the ladder each learner stands on                    2 core hours
#   length    packed recall of N/4 pairs against N for nineteen variants                        several core hours
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
train=${ATTN_TRAIN:-$root/build/release/bin/attn_train}
results=${ATTN_FACTS:-$root/results/facts}
[[ -x $train ]] || "$root/scripts/build.sh" attn_train_app
mkdir -p "$results"

run() { # fact, arguments
  local fact=$1
  shift
  "$train" --out "$results/$fact.train.csv" --resume "$@"
}

toys() { run toys --task mqar:kv=8 --n 64 --steps 1000 --variants 'full,linear,local:left=16,right=16,synth_random:cached=no'; }
capacity() {
  for width in 32 64; do
    run capacity --task mqar:kv=32 --n 128 --width "$width" --steps 3000 --seed 1..3 --rate 2e-3,5e-3,1e-2 \
      --variants 'full,linear,synth_random:cached=no'
  done
}
lowrank() {
  local variants='full,linformer:k=16,sharing=none,linformer:k=4,sharing=none'
  for window in 8 16 32; do variants+=",local:left=$window,right=$window"; done
  run lowrank --task mqar:kv=8 --n 64 --steps 2000 --seed 1..3 --rate 1e-3,3e-3,1e-2 --variants "$variants"
}
marker() {
  run marker --task marker --n 128 --width 32 --seed 1..3 --rate 5e-3 \
    --variants 'full,local:left=16,right=16,longformer:window=16,tokens=1'
}
listops() {
  run listops --task listops --n 128 --steps 3000 --seed 1..3 \
    --variants 'full,linear,local:left=16,right=16,synth_random:cached=no,fnet'
}
length() {
  local variants='full,local:left=16,right=16,longformer:window=16,tokens=1,bigbird:block=8,random=1,reformer:chunk=16,routing'
  variants+=',sinkhorn:block=16,linformer:k=32,sharing=none,nystrom:landmarks=32,linear,performer:m=64,cosformer,synth_dense'
  variants+=',synth_random:cached=no,gmlp,mlp_mixer:hidden=64,fnet,conv1d,gru'
  run length --task mqar:curriculum=yes --n 64..256*2 --width 32 --steps 3000 --seed 1..3 --rate 2e-3,5e-3,1e-2 \
    --variants "$variants"
}

[[ $# -gt 0 ]] || set -- toys capacity lowrank marker listops length
for fact in "$@"; do
  case $fact in
    toys | capacity | lowrank | marker | listops | length) "$fact" ;;
    *)
      echo "train_facts.sh: unknown fact '$fact'; accepted: toys, capacity, lowrank, marker, listops, length" >&2
      exit 2
      ;;
  esac
done
"$root/scripts/train_facts.py" "$results"
