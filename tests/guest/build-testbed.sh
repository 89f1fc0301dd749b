#!/bin/bash
# build-testbed.sh DIRECTORY: makes "testbed-vmlinuz" and "testbed-initrd" there, for tests of what the running kernel lacks: Debian's
# kernel on the root directory of this machine, exported over 9p and never written to. It runs the script that "run=" on the
# kernel's command line names, says "status N" on its serial console, and powers off.
set -euo pipefail

(($# == 1)) || { echo "usage: build-testbed.sh DIRECTORY" >&2; exit 2; }
out=$(realpath -m "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

kernel=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
apt-get -o APT::Sandbox::User=root -qq download "$kernel" busybox-static
for deb in *.deb; do dpkg -x "$deb" packages; done
version=$(ls packages/lib/modules)
depmod -b packages "$version"

mkdir -p initrd/{bin,dev,etc,host,lib,new,over,proc,sys}
cp packages/bin/busybox initrd/bin/
while read -r file; do
  cp "$file" initrd/lib/
  echo "${file##*/}" >>initrd/etc/modules
done < <(for name in virtio_pci 9pnet_virtio 9p overlay bridge br_netfilter veth tun vxlan nf_tables nft_chain_nat nft_ct nft_masq nft_nat \
  nft_fib_inet nft_reject_inet nft_meta_bridge nft_reject_bridge; do
  modprobe -d packages -S "$version" --show-depends "$name"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
cat >initrd/init <<'EOF2'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/lib/$module"; done </etc/modules
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro root /host
mount -t tmpfs over /over
mkdir /over/upper /over/work
mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work overlay /new
for name in proc sys dev; do mount --move "/$name" "/new/$name"; done
mount -t tmpfs run /new/run
ip link set lo up
cat >/new/run/testbed <<'EOF3'
/bin/sh "$(sed -n 's/.*run=\([^ ]*\).*/\1/p' /proc/cmdline)" </dev/null
echo "status $?"
echo o >/proc/sysrq-trigger
sleep 60
EOF3
exec switch_root -c /dev/console /new /bin/sh /run/testbed
EOF2
chmod 755 initrd/init
(cd initrd && find . | cpio --quiet -o -H newc | gzip -1) >initrd.gz
mkdir -p "$out"
cp "packages/boot/vmlinuz-$version" "$out/testbed-vmlinuz.new"
mv initrd.gz "$out/testbed-initrd.new"
mv "$out/testbed-vmlinuz.new" "$out/testbed-vmlinuz"
mv "$out/testbed-initrd.new" "$out/testbed-initrd"
