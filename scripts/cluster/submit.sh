#!/usr/bin/env bash
# Runs a plan of attn_sweep --plan on a cluster: submit.sh plan.tsv [OPTIONS] [-- SBATCH OPTIONS]
#   --run FOLDER     shared by all nodes (default: the plan's name with .run)
#   --pack MINUTES   blocks of at least so many estimated minutes in one task of the array (default 20)
#   --nodes N        at most so many tasks at a time (default 32)
#   --ssh HOSTS      without Slurm: GNU parallel over ssh on the hosts of this file, one a line (: is this machine)
#   --wait           until all tasks have ended; then status says what is done, by its exit code, too
# What goes behind -- chooses nodes of one kind: -- --partition=p --constraint=icelake. status says how far it is.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

usage() { echo "submit.sh: $1" >&2; exit 2; }

plan='' run='' pack=20 nodes=32 hosts='' waiting=no
while (($# > 0)); do
  case $1 in
    --run | --pack | --nodes | --ssh)
      (($# > 1)) || usage "$1 needs a value"
      case $1 in --run) run=$2 ;; --pack) pack=$2 ;; --nodes) nodes=$2 ;; --ssh) hosts=$2 ;; esac
      shift ;;
    --wait) waiting=yes ;;
    --) shift; break ;;
    -*) usage "unknown option $1" ;;
    *) [[ -z $plan ]] || usage "one plan is accepted, '$1' is a second"; plan=$1 ;;
  esac
  shift
done
[[ -n $plan ]] || usage "name a plan of attn_sweep --plan"
[[ -r $plan && $(head -n 1 "$plan") == '# attnbench plan 1' ]] || usage "'$plan' is no plan of attn_sweep --plan"
[[ $pack =~ ^[0-9]+$ && $nodes =~ ^[1-9][0-9]*$ ]] || usage "--pack and --nodes are whole numbers"
plan=$(realpath "$plan")
run=$(realpath -m "${run:-${plan%.*}.run}")
mkdir -p "$run/log"

# One line a task: first and last block, and the estimated seconds of the longest block.
tasks=$(awk -F'\t' -v least=$((pack * 60)) '
  /^[0-9]/ { if (first == "") first = $1; last = $1; sum += $2; if ($2 > top) top = $2
             if (sum >= least) { print first "-" last, sum; first = ""; sum = 0 } }
  END { if (first != "") print first "-" last, sum }' "$plan")
[[ -n $tasks ]] || usage "'$plan' has no blocks"
count=$(wc -l <<<"$tasks")

if [[ -n $hosts ]]; then
  [[ -r $hosts ]] || usage "'$hosts' cannot be read"
  command -v parallel >/dev/null || usage "GNU parallel is missing: scripts/setup.sh --cluster installs it"
  # One task a host; a host that does not answer is left out, and a task that fails goes to another one.
  echo "$count tasks over ssh; $run/parallel.log has one line each" >&2
  cut -d' ' -f1 <<<"$tasks" | parallel --will-cite --sshloginfile "$hosts" --jobs 1 --joblog "$run/parallel.log" --retries 3 --filter-hosts \
    --workdir "$PWD" --env ATTN_SWEEP --env ATTN_ANCHOR "$here/attn_shard" --plan "$plan" --run "$run" --index '{}'
  exit
fi

command -v sbatch >/dev/null || usage "there is no sbatch here: run on a login node of Slurm, or give --ssh HOSTS"
largest=$(scontrol show config | awk '$1 == "MaxArraySize" { print $3 }')
longest=$(awk '{ if ($2 > top) top = $2 } END { printf "%d", top }' <<<"$tasks")
minutes=$((longest * 3 / 60 + 5))
options=(--nodes=1 --ntasks=1 --exclusive --mem=0 --requeue --open-mode=append --time="$minutes" --job-name=attnbench --output="$run/log/%A_%a.txt")
[[ $waiting == no ]] || options+=(--wait)
for ((offset = 0; offset < count; offset += ${largest:-1001})); do
  left=$((count - offset)) size=${largest:-1001}
  ((left > size)) || size=$left
  mapfile -t part < <(cut -d' ' -f1 <<<"$tasks" | tail -n +$((offset + 1)) | head -n "$size")
  # In the batch step itself: srun would need the number of cores again.
  # What is done is told by shards: a job that a signal killed counts as 0 to sbatch.
  sbatch "${options[@]}" --array="0-$((size - 1))%$nodes" "$@" <<END || [[ $waiting == yes ]]
#!/bin/bash
tasks=(${part[*]})
exec $(printf %q "$here/attn_shard") --plan $(printf %q "$plan") --run $(printf %q "$run") --index "\${tasks[\$SLURM_ARRAY_TASK_ID]}"
END
done
[[ $waiting == no ]] || exec "$here/status" "$plan" --run "$run"
