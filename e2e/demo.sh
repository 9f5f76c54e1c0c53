#!/usr/bin/env bash
# The demo: boots the lab, installs podnet, connects the laptop as alice and
# shows real commands at work. Leaves everything running.
set -euo pipefail
cd "$(dirname "$0")/.."

image=$(<bin/podnet-gateway.image)
began=$SECONDS
step() { printf '\n==> %s  [%ds]\n' "$*" $((SECONDS - began)); }

laptop() { bin/lab exec laptop --user "$user" -- "$@"; }

# show prints a command as if typed on the laptop, runs it there, and counts a
# failure instead of hiding it.
failures=0
show() {
	printf '\n\033[1mlaptop$\033[0m %s\n' "$*"
	laptop bash -c "$*" || { printf '(exit %d)\n' $?; failures=$((failures + 1)); }
}

step "Booting a Kubernetes cluster, two laptops and a router"
bin/lab up
bin/lab load bin/podnet-gateway.tar

user=admin
step "Installing the gateway, as the cluster's admin"
laptop podnet install --image "$image" --image-pull-policy Never --node-port 31820
bin/lab grant

user=alice
step "Connecting the laptop, as alice"
laptop podnet disconnect --all
laptop podnet connect --wait -n shop

step "The laptop is on the pod network"
pod=$(laptop kubectl get pods -n shop -l app=web -o 'jsonpath={.items[0].status.podIPs[?(@.ip)].ip}')
pod4=${pod%% *} pod6=${pod##* }
show 'for i in 1 2 3 4 5 6; do curl -sS http://web.shop; done | sort | uniq -c'
show "curl -sS http://$pod4:8080"
show 'dig +noall +answer web.shop.svc.cluster.local'
show 'echo ahoy | socat -T 2 - UDP:web.shop:5353'
show "ping -c 3 $pod4"
if [[ $pod6 == *:* ]]; then
	show "curl -sS -g 'http://[$pod6]:8080'"
	show "ping -c 2 $pod6"
fi
show 'podnet status'

step "Done"
cat <<'TXT'
The lab stays up.
  make lab-shell   a shell on the laptop side, connected as above
  make lab-down    take everything down
TXT
exit $((failures > 0))
