#!/bin/bash
# Builds OpenZFS for the guest's kernel from the distribution's packages (section contrib), once, into VM_CACHE. run.sh
# takes what is there along, and the tests that need a pool then run. It takes some minutes of two processors.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export VM_CACHE=${VM_CACHE:-/var/cache/berth-vm}
[ -e "$VM_CACHE/kernel/ready" ] || "$here/vm.sh" fetch
rel=$(cat "$VM_CACHE/kernel/ready")
dir=$VM_CACHE/zfs
[ "$(cat "$dir/ready" 2>/dev/null)" != "$rel" ] || exit 0
rm -rf "$dir"
mkdir -p "$dir"/{sources,lists/partial,cache/archives/partial,debs,build,root}

# Lists of our own, so that the machine's stay as they are.
for f in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
  case $f in
  *.sources) sed 's/^Components:.*/Components: main contrib/' "$f" ;;
  *) continue ;;
  esac >"$dir/sources/$(basename "$f")"
done 2>/dev/null
apt=(-o "Dir::Etc::sourcelist=-" -o "Dir::Etc::sourceparts=$dir/sources" -o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache")
apt-get "${apt[@]}" update
arch=${rel##*-} base=${rel%-*}
(cd "$dir/debs" && apt-get "${apt[@]}" download "linux-headers-$rel" "linux-headers-$base-common" "linux-kbuild-${rel%.*}" \
  "linux-compiler-gcc-12-x86" zfs-dkms zfsutils-linux libnvpair3linux libuutil3linux libzfs4linux libzpool5linux)
for d in "$dir"/debs/*.deb; do
  case ${d##*/} in linux-* | zfs-dkms*) dpkg -x "$d" "$dir/build" ;; *) dpkg -x "$d" "$dir/root" ;; esac
done

# The headers name each other by absolute paths: they are put there in a mount namespace of the build's own.
unshare -m bash -exc '
  mount -t overlay -o "lowerdir=$1/build/usr/lib:/usr/lib" lib /usr/lib
  mount --bind "$1/build/usr/src" /usr/src
  cd /usr/src/zfs-*
  ./configure --with-config=kernel --with-linux="/usr/src/linux-headers-$3-common" --with-linux-obj="/usr/src/linux-headers-$2"
  make -j"$(nproc)"
' build "$dir" "$rel" "$base" >"$dir/log" 2>&1 || { tail -n 20 "$dir/log"; exit 1; }
extra=$VM_CACHE/kernel/lib/modules/$rel/extra
mkdir -p "$extra"
find "$dir/build/usr/src" -path '*/zfs-*' -name '*.ko' -exec cp {} "$extra/" \;
strip -g "$extra"/*.ko
depmod -b "$VM_CACHE/kernel" "$rel"
rm -rf "$dir/build" "$dir/debs" "$dir/cache" "$dir/lists"
echo "$rel" >"$dir/ready"
