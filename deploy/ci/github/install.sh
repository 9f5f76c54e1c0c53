#!/bin/sh
# Puts podnet into PATH for the steps that follow: the program PODNET_BINARY, or what
# PODNET_URL gives and PODNET_SHA256 vouches for, or one that is in PATH already.
set -eu

fail() {
  echo "::error title=podnet is not installed::$1"
  echo "podnet is not installed: $1" >> "$GITHUB_STEP_SUMMARY"
  exit 1
}

case "$(uname -s)" in Linux | Darwin) ;; *) fail "it runs on Linux and macOS runners, not on $(uname -s)" ;; esac
dir=$RUNNER_TEMP/podnet
mkdir -p "$dir"
if [ -n "$PODNET_BINARY" ]; then
  [ -x "$PODNET_BINARY" ] || fail "$PODNET_BINARY is no program"
  cp "$PODNET_BINARY" "$dir/podnet"
elif [ -n "$PODNET_URL" ]; then
  [ -n "$PODNET_SHA256" ] || fail "the input url needs sha256"
  curl -fsSL --retry 3 -o "$dir/download" "$PODNET_URL" || fail "cannot download $PODNET_URL"
  got=$({ sha256sum "$dir/download" 2> /dev/null || shasum -a 256 "$dir/download"; } | cut -d' ' -f1)
  [ "$got" = "$PODNET_SHA256" ] || fail "$PODNET_URL has the sha256 $got, not $PODNET_SHA256"
  case "$PODNET_URL" in
    *.tar.gz | *.tgz) tar -xzf "$dir/download" -C "$dir" podnet || fail "no podnet in $PODNET_URL" ;;
    *) cp "$dir/download" "$dir/podnet" ;;
  esac
  chmod 755 "$dir/podnet"
else
  found=$(command -v podnet) || fail "it is not on this runner: give the input binary, or url and sha256 (podnet has no releases yet)"
  dir=$(dirname "$found")
fi
version=$("$dir/podnet" version | sed -n 's/^podnet //p')
[ -n "$version" ] || fail "$dir/podnet does not run on this machine, $(uname -sm)"
[ -z "$PODNET_WANT_VERSION" ] || [ "$version" = "$PODNET_WANT_VERSION" ] || fail "it is version $version, not $PODNET_WANT_VERSION"
echo "$dir" >> "$GITHUB_PATH"
echo "podnet $version"
