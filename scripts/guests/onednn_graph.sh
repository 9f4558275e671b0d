#!/bin/sh
# The guest of harness/guests/onednn_graph.cpp: ATTN_ONEDNN_GRAPH, or that beside attn_sweep, or in PATH. Where there is none every plan is refused.
beside=$(dirname "$(readlink "/proc/$PPID/exe" 2>/dev/null)" 2>/dev/null)/onednn_graph
for program in "$ATTN_ONEDNN_GRAPH" "$beside" onednn_graph; do
  if command -v "$program" >/dev/null; then exec "$program"; fi
done
while read -r question; do
  case $question in
  *'"hello"'*) sed '/"command"/d' "$ATTN_GUEST_FOLDER/onednn_graph.json" | tr -d '\n' && echo ;;
  *) echo '{"refused": "needs oneDNN 3: apt install libdnnl-dev (Debian 13) and build again, or name a built onednn_graph in ATTN_ONEDNN_GRAPH"}' ;;
  esac
done
