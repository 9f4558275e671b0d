#!/usr/bin/env bash
# The facts about task accuracy that attnbench asserts, trained with their seeds and rates into one CSV (default
# results/facts.train.csv, or $ATTN_FACTS) and checked by train_facts.py. Finished runs are kept: call it again to go on.
# Arguments: the facts wanted (default: all). $ATTN_JOBS: runs at the same time (default: one a core).
#   toys        packed recall of 8 pairs at N=64: full, linear, a window, a Synthesizer               1 core minute
#   marker      the last token asks for the first, N=128: full, a window, with a global token         1 core minute
#   lowrank     packed recall of 8 pairs at N=64: Linformer with k=16 and k=4, windows               12 core minutes
#   capacity    packed recall of 32 pairs at N=128, width 32 and 64: full, linear, a Synthesizer     15 core minutes
#   induction   induction head and associative recall at the H3 paper's sizes                        about 2 core hours
#   reverse     sequences answered backwards, N=5 to 30: attention, and a recurrent model without       15 core minutes
#   listops     short ListOps: which rung of the ladder each learner stands on                       10 core minutes
#   length      packed recall of N/4 pairs, at most 64, N=64, 128, 256, for twenty variants          30 core minutes
#   sweep       the same with three seeds and two more rates                                         several core hours
#   speed       4096 tokens in a forward pass, all cores: what a kernel gains over full               1 minute
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
train=${ATTN_TRAIN:-$root/build/release/bin/attn_train}
out=${ATTN_FACTS:-$root/results/facts.train.csv}
speed=${out%.train.csv}.speed.csv
[[ -x $train ]] || "$root/scripts/build.sh" attn_train_app attn_sweep_app
mkdir -p "$(dirname "$out")"

run() {
  "$train" --out "$out" --resume --jobs "${ATTN_JOBS:-0}" "$@"
}

window=local:left=16,right=16
blind=synth_random:cached=no

toys() { run --task mqar:kv=8 --n 64 --steps 1000 --variants "full,linear,$window,$blind"; }
marker() { run --task marker --n 128 --width 32 --rate 5e-3 --seed 1..3 --variants "full,$window,longformer:window=16,tokens=1"; }
# Whether Linformer leaves the plateau depends on the seed and the rate: of three seeds one did, with a curriculum all at one of the rates.
lowrank() {
  local linformers=full,linformer:k=16,weights=small,linformer:k=4,weights=small
  run --task mqar:kv=8 --n 64 --steps 1000 --seed 1..3 --variants "$linformers,local:left=8,right=8,$window,local:left=32,right=32"
  run --task mqar:kv=8,curriculum=yes --n 64 --steps 2000 --seed 1..3 --rate 2e-3,3e-3,5e-3 --variants "$linformers"
}
# At width 64 full attention needs the lower rate, linear the higher.
capacity() {
  run --task mqar:kv=32 --n 128 --width 32 --steps 3000 --seed 1..3 --rate 5e-3,1e-2 --variants "full,linear,$blind"
  run --task mqar:kv=32 --n 128 --width 64 --steps 1500 --seed 1..3 --rate 2e-3,5e-3 --variants full,linear
}
induction() {
  run --task induction --n 30 --seed 1..3 --variants "full,$blind,fnet,local:left=4,right=4"
  run --task associative_recall --n 40 --seed 1..3 --variants "full,$blind,fnet,local:left=4,right=4"
}
# gru joins encoder and decoder by a state alone.
reverse() { run --task reverse --n 5,10,20,30 --seed 1..3 --variants full,additive,luong_general,gru; }
listops() { run --task listops --n 128 --width 32 --rate 3e-3 --seed 1..3 --variants "full,linear,$window,$blind,fnet"; }

# Full attention leaves the plateau of 64 pairs at the high rate only, and with a curriculum. 16 sequences of 64 questions are as
# many answers a step as 32 of 32.
mixers="full,$window,longformer:window=16,tokens=1,bigbird:block=8,random=1,reformer:chunk=16,routing,sinkhorn:block=16"
mixers+=",linformer:k=32,weights=small,nystrom:landmarks=32,linear,performer:m=64,performer:m=64,kernel=relu,cosformer"
mixers+=",synth_dense,$blind,gmlp,mlp_mixer:hidden=64,fnet,conv1d,gru"
by_length() { # further arguments
  for n in 256 128 64; do
    run --task mqar:curriculum=yes --n "$n" --width 32 --steps 1500 --batch $((n == 256 ? 16 : 32)) --variants "$mixers" "$@"
  done
}
length() { by_length --rate 1e-2; }
sweep() { by_length --rate 3e-3,1e-2,3e-2 --seed 1..3; }

speed() {
  "$(dirname "$train")/attn_sweep" --variants full,linear,performer,linformer,local,reformer --n 4096 --out "$speed" --resume
}

all="toys marker lowrank capacity induction reverse listops length sweep speed"
read -ra wanted <<<"${*:-$all}"
for fact in "${wanted[@]}"; do
  [[ " $all " == *" $fact "* ]] || {
    echo "train_facts.sh: unknown fact '$fact'; accepted: ${all// /, }" >&2
    exit 2
  }
done
for fact in "${wanted[@]}"; do "$fact"; done
sweeps=()
[[ ! -e $speed ]] || sweeps=("$speed")
"$root/scripts/train_facts.py" "$out" "${sweeps[@]}"
