#!/usr/bin/env bash
# The closing picture of a lecture on attention, of this machine: what eighteen mixers learn against how fast they are, with memory as the
# bubble. Four tasks, each with its floor and with full attention as its control; one seed and the recipe's rate; speed at N=1024 to 4096.
# Less than forty minutes on two cores, into results/lecture (or $ATTN_LECTURE). Called again it goes on where it was interrupted.
#   --quick   two mixers, a few steps of each task: whether all of it runs, in seconds
# $ATTN_JOBS: trainings at the same time (default: one a core).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
train=${ATTN_TRAIN:-$root/build/release/bin/attn_train}
sweep=${ATTN_SWEEP:-$root/build/release/bin/attn_sweep}
out=${ATTN_LECTURE:-$root/results/lecture}

# Windows, chunks and ranks are those of 128 to 256 tokens, and the same when speed is measured: it is one model.
mixers="full,local:left=16,right=16,longformer:window=16,tokens=1,bigbird:block=16,random=1,reformer:chunk=16,sinkhorn:block=16,routing"
mixers+=",linformer:k=32,weights=small,nystrom:landmarks=32,linear,performer:m=64,cosformer,synth_dense,synth_random:cached=no,gmlp,fnet"
mixers+=",conv1d,gru"
lengths=1024..4096*2 steps=() samples=() test=1024
case "${1:-}" in
  "") ;;
  --quick) mixers=full,linear lengths=256..512*2 test=64
    steps=(--steps 5 --width 16) samples=(--samples 3 --rounds 1 --sample-time 0) out=${ATTN_LECTURE:-$root/results/lecture-quick} ;;
  *)
    echo "lecture.sh: unknown argument '$1'; accepted: --quick, or none" >&2
    exit 2
    ;;
esac
[[ -x $train && -x $sweep ]] || "$root/scripts/build.sh" attn_train_app attn_sweep_app
mkdir -p "$out"

learn() { # task, N, further arguments; a mixer that a task's length does not suit is a row that says so
  "$train" --task "$1" --n "$2" --variants "$mixers" --out "$out/tasks.train.csv" --resume --jobs "${ATTN_JOBS:-0}" --test-samples "$test" "${@:3}" \
    "${steps[@]}" || (($? == 1 || $? == 5))
}
learn listops 128 --width 32 --steps 1500
learn retrieval:asks=words 128 --width 64 --heads 1 --steps 500
learn glyphs 256 --width 32 --steps 700
learn pathfinder 256 --width 32 --steps 500
"$sweep" --variants "$mixers" --n "$lengths" --out "$out/speed.csv" --resume "${samples[@]}" || (($? == 1))
"$root/scripts/report.py" "$out/speed.csv" "$out/tasks.train.csv" -o "$out/lecture.html" --figures "$out/figures" --bubble 'all tasks' --summary
