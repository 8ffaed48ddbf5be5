#!/bin/bash
# Runs the tests of kernel-facing packages in a guest whose kernel, cgroup layout and
# capabilities differ from this machine's:
#
#     test/vm/run.sh [-g v2|v1] [PACKAGE…]     (./kernel/cgroup ./kernel/seccomp)
#
# All packages share one boot, which takes most of the time. TESTFLAGS holds flags for
# the test binaries, such as "-test.v -test.run Freeze". Needs root to fetch QEMU and a kernel once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
groups=v2
while getopts g: o; do case $o in g) groups=$OPTARG;; *) exit 2;; esac; done
shift $((OPTIND-1))
packages=("$@")
((${#packages[@]})) || packages=(./kernel/cgroup ./kernel/seccomp)

# Outside of the tree: a kernel is large, and the tree may be thrown away.
export VM_CACHE=${VM_CACHE:-/var/cache/berth-vm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
files=()
for p in "${packages[@]}"; do
  name=$(echo "${p#./}" | tr / -).test
  CGO_ENABLED=0 go test -c -o "$work/$name" "$p"
  if [ -e "$work/$name" ]; then files+=(-f "$work/$name"); fi
done
cat >"$work/all" <<'G'
#!/bin/sh
# In the guest. Docker's and the host's cgroup settings have no part here.
failed=0
for t in /vm/in/*.test; do
  echo "== ${t##*/}"
  mkdir -p /tmp/t && cd /tmp/t
  TMPDIR=/tmp "$t" $TESTFLAGS || failed=1
done
exit $failed
G
chmod +x "$work/all"
"$here/vm.sh" run -t "${VM_TIME:-600}" -g "$groups" -f "$work/all" "${files[@]}" -- env "TESTFLAGS=${TESTFLAGS:-}" /vm/in/all
