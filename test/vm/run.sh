#!/bin/bash
# Runs the tests that need the kernel in a guest whose kernel, cgroup layout and
# capabilities differ from this machine's:
#
#     test/vm/run.sh [-g v2|v1] [-o DIR] [PACKAGE…]     (all listed below)
#
# All packages share one boot. TESTFLAGS holds flags for the test binaries, such as
# "-test.run Freeze"; -o receives their whole output. Needs root to fetch QEMU and a kernel once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
groups=v2 out=()
while getopts g:o: o; do case $o in g) groups=$OPTARG;; o) out=(-o "$OPTARG");; *) exit 2;; esac; done
shift $((OPTIND-1))
packages=("$@")
((${#packages[@]})) || packages=(./kernel ./kernel/{cgroup,seccomp,netlink,nft,dm,block,quota} ./build ./build/contexts ./engine/builds ./oci ./oci/shim ./network ./network/dns
  ./archive ./union ./union/thin ./volume ./volume/hold ./engine ./test/isolation ./test/crash ./test/storage)

# Outside of the tree: a kernel is large, and the tree may be thrown away.
export VM_CACHE=${VM_CACHE:-/var/cache/berth-vm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CGO_ENABLED=0
files=()
for p in "${packages[@]}"; do
  p=${p#./}
  name=${p//\//-}.test
  go test -c -o "$work/$name" "./$p"
  [ -e "$work/$name" ] || continue # no tests
  files+=(-f "$work/$name")
  echo "$name $p" >>"$work/list"
  mkdir -p "$work/src/$p"
  [ ! -d "$p/testdata" ] || cp -a "$p/testdata" "$work/src/$p/"
done
mkdir -p "$work/src" && cp -a doc "$work/src/" # a test compares a page with what is written
for p in ./cmd/{berth,berthd,berth-oci,berth-dns} ./test/isolation/breakout; do
  go build -tags grpcnotrace -trimpath -ldflags '-s -w' -o "$work/${p##*/}" "$p"
  files+=(-f "$work/${p##*/}")
done

# What a distribution's boot loads, or the kernel would load on demand from a world that may not ask for it.
modules="overlay bridge br_netfilter veth loop nf_tables nf_conntrack nft_chain_nat nft_nat nft_masq nft_ct nft_reject_inet ip_tables iptable_filter sctp ipvlan macvlan 8021q dm_thin_pool xfs fuse quota_v2"
if [ "$(cat "$VM_CACHE/zfs/ready" 2>/dev/null)" = "$(cat "$VM_CACHE/kernel/ready" 2>/dev/null)" ] && [ -e "$VM_CACHE/zfs/ready" ]; then # see zfs.sh
  modules+=" zfs"
  cp -a "$VM_CACHE/zfs/root" "$work/zfs" && files+=(-f "$work/zfs")
fi
"$here/vm.sh" run -t "${VM_TIME:-3000}" -m "${VM_MEMORY:-3072}" -d 8G -l "$modules" -g "$groups" "${out[@]}" \
  -f "$here/tests" -f "$work/list" -f "$work/src" "${files[@]}" -- env "TESTFLAGS=${TESTFLAGS:-}" "VM_TIME=${VM_TIME:-3000}" sh /vm/in/tests
