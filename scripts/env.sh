# To be sourced, by bash or zsh: source scripts/env.sh
# attn_sweep, attn_apply, attn_train and attn_micro of build/release on the PATH, completion of their flags, and the Python module.
# shellcheck shell=bash
attn_tree=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)
attn_build=$attn_tree/build/release
if [ ! -x "$attn_build/bin/attn_sweep" ]; then
  echo "env.sh: nothing is built yet: scripts/build.sh programs, or scripts/run_sweep.sh" >&2
fi
case :$PATH: in
  *:"$attn_build/bin":*) ;;
  *) export PATH="$attn_build/bin:$PATH" ;;
esac
if [ -d "$attn_build/python" ]; then
  case :${PYTHONPATH:-}: in
    *:"$attn_build/python":*) ;;
    *) export PYTHONPATH="$attn_build/python${PYTHONPATH:+:$PYTHONPATH}" ;;
  esac
fi
# zsh knows its own kind where compinit has run.
for attn_program in attn_sweep attn_apply attn_train; do
  if [ -n "${BASH_VERSION:-}" ] && [ -f "$attn_build/share/bash-completion/completions/$attn_program" ]; then
    . "$attn_build/share/bash-completion/completions/$attn_program"
  elif [ -n "${ZSH_VERSION:-}" ] && [ -f "$attn_build/share/zsh/site-functions/_$attn_program" ] && command -v compdef >/dev/null; then
    fpath=("$attn_build/share/zsh/site-functions" $fpath)
    autoload -Uz "_$attn_program" && compdef "_$attn_program" "$attn_program"
  fi
done
case :${MANPATH:-}: in
  *:"$attn_build/share/man":*) ;;
  *) export MANPATH="$attn_build/share/man:${MANPATH:-}" ;;
esac
unset attn_tree attn_build attn_program
