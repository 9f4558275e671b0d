#!/usr/bin/env bash
# The tables of results/reference that say how near the kernels come to this machine's peaks: measure_kernels.sh [TABLE...],
# without one all but guests. Each becomes FOLDER/TABLE.csv with its context ($ATTN_TABLES, default: results/kernels). Finished cells are kept:
# call it again to go on. Leave the machine alone meanwhile.
#   softmax-engine    full attention and the fixed patterns, one and two threads, AVX2 forced once           2 minutes
#   softmax-engine-isa  the same variants against length, causal or not, each instruction set forced        10 minutes
#   clustered         clustering, hashing, routing and sorting variants against length, and their skill      5 minutes
#   training-step     forward against forward and backward of full attention                                 1 minute
#   modern            gated states, selected blocks and other scores at N = 16384, beside linear or full       half an hour
#   decode            every variant that decodes against context, and full attention near the bandwidth     half an hour
#   decode-frameworks full attention's steps beside those of PyTorch and ONNX Runtime (ATTN_PYTHON)          5 minutes
#   dtypes            what bf16, f16 and int8 gain and cost, whole sequences and steps                      10 minutes
#   guests            full attention, steps and nine variants beside frameworks; needs these (scripts/guests/README.md)  11 minutes
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
sweep=${ATTN_SWEEP:-$root/build/release/bin/attn_sweep}
folder=${ATTN_TABLES:-$root/results/kernels}
[[ -x $sweep ]] || "$root/scripts/build.sh" attn_sweep_app
mkdir -p "$folder"

# A table is of several sweeps, each of which goes on with its own part after an interruption.
declare -A parts
rows() { # table, further arguments
  parts[$1]=$((${parts[$1]:-0} + 1))
  "$sweep" --out "$folder/$1-${parts[$1]}.csv" --resume -q --samples 9 --rounds 3 --sample-time 0.02 "${@:2}"
}

together() { # table: its parts become one file, with the context of the first
  mv "$folder/$1-1.context.json" "$folder/$1.context.json"
  {
    cat "$folder/$1-1.csv"
    for ((i = 2; i <= parts[$1]; ++i)); do tail -n +2 "$folder/$1-$i.csv"; done
  } >"$folder/$1.csv"
  for ((i = 1; i <= parts[$1]; ++i)); do rm -f "$folder/$1-$i".{csv,context.json}; done
}

softmax-engine() {
  local table=softmax-engine
  rows $table --variants full --n 512,2048,8192 --threads 1,2
  rows $table --variants full --n 2048 --head-dim 40,80,128 --threads 1
  rows $table --variants full --n 2048 --causal yes --threads 1
  rows $table --variants full --n 2048 --isa avx2 --threads 1
  rows $table --variants local:left=128,right=128,dilated:window=64,step=4,blockwise:block=128,longformer:window=128,tokens=16,bigbird:block=64,random=3 --n 8192 --threads 1
  rows $table --variants strided:stride=128,fixed:block=128,summary=32 --n 8192 --causal yes --threads 1
}

softmax-engine-isa() {
  local patterns=full,full@unfused,local,blockwise,dilated,strided,fixed,global,longformer,bigbird
  local isa
  for isa in avx512 avx2; do
    rows "softmax-engine-$isa" --isa $isa --variants $patterns --n '512..8192*2' --causal both --threads 1 --fidelity none --timeout 100
  done
  rows softmax-engine-scalar --isa scalar --variants $patterns --n 512,1024 --causal both --threads 1 --fidelity none --timeout 100
}

clustered() {
  local table=clustered
  local variants=reformer,clustered:clusters=128,clustered_improved,routing,sinkhorn,sinkhorn:block=128,sinkhorn:block=256
  rows $table --threads 1 --input cluster --n '1024..16384*2' --variants "$variants,sinkhorn:pick=top1,sinkhorn:sees=sorted,cut=4,full"
  rows $table --threads 1 --input cluster --input iid --n 2048 --variants reformer,reformer:keys=own,reformer:keys=own,rounds=8
  rows $table --threads 1 --input iid --n 2048 --variants clustered:clusters=128,clustered_improved,routing,sinkhorn,sinkhorn:pick=top1
}

# One sample of each a round: a machine that changes its pace within seconds must not meet the one pass only.
training-step() {
  rows training-step --samples 63 --rounds 63 --variants full --n 1024 --heads 4 --batch 4 --threads 1,2 --pass forward,forward_backward --fidelity none
}

# What runs in models since 2023, each in turn with causal linear attention or with full attention. One round: a gate reads 16384 tokens one
# after the other, which takes longer than the samples.
modern() {
  local at=(modern --n 16384 --causal yes --threads 1 --fidelity none --rounds 1 --timeout 600)
  rows "${at[@]}" --against linear --variants linear,retention,mamba2,gla,kda,gated_delta,rwkv7,taylor,hedgehog
  rows "${at[@]}" --against full --samples 3 --variants full,block_topk,moba,nsa,vertical_slash,fox,fox:prune=40,softcap,alibi,qk_norm,softmax1:sink=learned,long_conv,mla
  rows modern --n 1024,4096 --causal yes --threads 1 --fidelity none --against full --variants gated_delta,block_topk,fox,softcap,alibi,softmax1:sink=learned
}

# One token against a long cache: all variants beside each other, as a model with grouped heads would ask them; then what the bytes bind.
decode() {
  local steps=(decode --pass decode --fidelity none)
  local grouped=(--heads 32 --kv-heads 8 --head-dim 128)
  rows "${steps[@]}" --variants all --n '1024..16384*4' "${grouped[@]}" --threads 1 --rounds 1
  rows "${steps[@]}" --variants full,local,linear,quest,mla --n 65536 "${grouped[@]}" --threads 1 --rounds 1 --timeout 300
  rows "${steps[@]}" --variants full --n 16384 --heads 8 --head-dim 64 --threads 1,2
  rows "${steps[@]}" --variants full --n 4096,32768 "${grouped[@]}" --threads 1,2 --cache hot,cold
  rows "${steps[@]}" --variants full --n 32768 "${grouped[@]}" --threads 1 --cache hot,cold --kv-dtype bf16,f16,q8
  rows "${steps[@]}" --variants full --n 32768 --heads 64 --kv-heads 8 --head-dim 128 --threads 1
  rows "${steps[@]}" --variants full --n 32768 --heads 32 --kv-heads 1 --head-dim 128 --threads 1
  rows "${steps[@]}" --variants local:left=1024 --n '8192..131072*4' "${grouped[@]}" --threads 1 --cache hot,cold
  rows "${steps[@]}" --variants linear,performer,cosformer,rfa --n '1024..65536*8' --heads 8 --head-dim 64 --threads 1 --cache hot,cold
  rows "${steps[@]}" --variants full --n 30000 --batch 16 --heads 16 --kv-heads 4 --head-dim 128 --lengths uniform:100..30000 \
    --kv-layout contiguous,paged:16 --threads 1,2 --rounds 1
}

# What others do in a step is in the time of a row of theirs as far as it is attention: they get the keys as one array.
decode-frameworks() {
  local steps=(decode-frameworks --pass decode --fidelity none --variants "full,full@torch,full@onnxruntime" --timeout 100)
  rows "${steps[@]}" --n 16384 --heads 8 --head-dim 64 --threads 1,2
  rows "${steps[@]}" --n 4096,32768 --heads 32 --kv-heads 8 --head-dim 128 --threads 1,2
  rows "${steps[@]}" --n 32768 --heads 64 --kv-heads 8 --head-dim 128 --threads 1
  rows "${steps[@]}" --n 32768 --heads 32 --kv-heads 1 --head-dim 128 --threads 1
}

# Storage and compute of whole sequences; caches; keys with outlier channels, of which storage_error tells.
dtypes() {
  local stored=(dtypes --fidelity none --threads 1)
  rows "${stored[@]}" --variants full --n 2048 --head-dim 64,128 --causal both --dtype f32,bf16,f16
  rows "${stored[@]}" --variants local:left=128,right=128,bigbird:block=64,random=3,blockwise:block=128 --n 8192 --dtype f32,bf16,f16
  rows "${stored[@]}" --variants linear,performer,linformer --n 16384 --dtype f32,bf16,f16
  rows "${stored[@]}" --variants full,local:left=128,right=128,bigbird:block=64,random=3 --n 4096 --isa avx2 --dtype f32,bf16,f16
  rows "${stored[@]}" --pass decode --variants full --n 32768 --heads 32 --kv-heads 8 --head-dim 128 --kv-dtype f32,bf16,f16,q8 --cache cold
  rows "${stored[@]}" --variants full --n 1024 --input iid --input outlier:2,20 --kv-dtype f32,bf16,f16,q8
}

# One round: a framework's cell in bf16 takes up to a minute.
guests() {
  local beside=(guests --fidelity none --rounds 1 --timeout 120 --dtype 'f32,bf16' --threads '1,2')
  rows "${beside[@]}" --variants full,full@torch,full@flex,full@onnxruntime,full@onednn_graph --n 512,2048 --causal both
  rows "${beside[@]}" --variants full,full@torch,full@onnxruntime,full@onednn_graph --pass decode --n 4096,32768 --heads 32 --kv-heads 8 --head-dim 128
  rows "${beside[@]}" --variants local,bigbird,reformer,linformer,nystrom,linear,performer,fnet,synth_random --n 2048
  rows "${beside[@]}" --variants '*@torch,local@flex' --n 2048
}

all="softmax-engine softmax-engine-isa clustered training-step modern decode dtypes decode-frameworks guests"
read -ra wanted <<<"${*:-${all% decode-frameworks guests}}"
for table in "${wanted[@]}"; do
  [[ " $all " == *" $table "* ]] || {
    echo "measure_kernels.sh: unknown table '$table'; accepted: ${all// /, }" >&2
    exit 2
  }
done
for table in "${wanted[@]}"; do "$table"; done
for table in "${!parts[@]}"; do together "$table"; done
