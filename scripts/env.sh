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
if [ -n "${BASH_VERSION:-}" ] && [ -f "$attn_build/share/attnbench.bash" ]; then
  . "$attn_build/share/attnbench.bash"
elif [ -n "${ZSH_VERSION:-}" ] && [ -f "$attn_build/share/_attnbench" ]; then
  fpath=("$attn_build/share" $fpath)
  autoload -Uz _attnbench && command -v compdef >/dev/null && compdef _attnbench attn_sweep attn_apply attn_train
fi
unset attn_tree attn_build
