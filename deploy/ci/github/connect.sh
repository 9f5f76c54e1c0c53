#!/bin/bash
# Connects in the mode that was asked for, and tells the following steps how.
set -euo pipefail

flags=(--wait="$IN_WAIT")
[ -z "$IN_CONTEXT" ] || flags+=(--context "$IN_CONTEXT")
[ -z "$IN_NAMESPACE" ] || flags+=(--namespace "$IN_NAMESPACE")
if [ -f "$IN_KUBECONFIG" ]; then
  flags+=(--kubeconfig "$IN_KUBECONFIG")
elif [ -n "$IN_KUBECONFIG" ]; then
  export PODNET_KUBECONFIG_DATA="$IN_KUBECONFIG"
fi
unset IN_KUBECONFIG
set -f
# shellcheck disable=SC2206 # args are words
flags+=($IN_ARGS)
set +f

out=$(mktemp) err=$(mktemp)
trap 'rm -f "$out" "$err"' EXIT

# run runs podnet, and has its failure shown where people look.
run() {
  local code=0
  "$@" > "$out" 2> "$err" || code=$?
  cat "$err"
  [ "$code" != 0 ] || return 0
  local why
  why=$(sed -n 's/^error: //p' "$err" | head -n 1)
  echo "::error title=podnet, exit status $code::${why:-no word of it}"
  echo "podnet did not connect (exit status $code): ${why:-no word of it}" >> "$GITHUB_STEP_SUMMARY"
  exit "$code"
}

# field is the first value of a name in the JSON that podnet printed, one a line.
field() { sed -n 's/^ *"'"$1"'": "\(.*\)",\{0,1\}$/\1/p' "$out" | head -n 1; }

case "$IN_MODE" in
  proxy)
    run podnet proxy --detach --listen 127.0.0.1:0 "${flags[@]}"
    sed 's/^export //' "$out" | tr ' ' '\n' >> "$GITHUB_ENV"
    url=$(sed -n 's/.* ALL_PROXY=\([^ ]*\).*/\1/p' "$out")
    echo "proxy-url=$url" >> "$GITHUB_OUTPUT"
    echo "podnet: the cluster by $url" >> "$GITHUB_STEP_SUMMARY"
    ;;
  tun)
    sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo -n -E env "PATH=$PATH")
    run ${sudo[@]+"${sudo[@]}"} podnet connect -o json "${flags[@]}"
    {
      echo "interface=$(field interface)"
      echo "client-ip=$(field address | cut -d/ -f1)"
      echo "dns-server=$(sed -n '/"listen": \[/{n;s/[ ",]//gp;}' "$out" | head -n 1)"
    } >> "$GITHUB_OUTPUT"
    echo "podnet: the cluster by $(field interface)" >> "$GITHUB_STEP_SUMMARY"
    ;;
  exec)
    echo "podnet: nothing is connected; steps say podnet exec or podnet proxy" >> "$GITHUB_STEP_SUMMARY"
    ;;
  *)
    echo "::error title=podnet::mode $IN_MODE: want proxy, tun or exec"
    exit 2
    ;;
esac
