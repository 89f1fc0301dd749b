#!/bin/bash
# build-kernel.sh DIRECTORY: makes "vmlinuz", "vmlinux", "initrd" and "initrd-net" there, a guest for tests that needs no disk:
# Debian's kernel, the one with 9p, and busybox; and with initrd-net, what a node's networks need. Its serial console is a root
# shell; the power button has it write to its disks and power off. vmlinux is the kernel unpacked: SeaBIOS starts it, too, and
# an emulated CPU takes 5 seconds less to boot.
set -euo pipefail

(($# == 1)) || { echo "usage: build-kernel.sh DIRECTORY" >&2; exit 2; }
out=$(realpath -m "$1")
source "${BASH_SOURCE%/*}/packages.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

prepare_packages "$work/apt"
download_packages "$(find_kernel linux-image-amd64)" busybox-static
unpack_packages . packages
version=$(ls packages/lib/modules)
depmod -b packages "$version"

mkdir -p initrd/{bin,dev,etc,lib,mnt,proc,sys,tmp}
cp packages/bin/busybox initrd/bin/
mkdir -p net/{etc,lib}
add_modules() { # DIRECTORY NAME...: files, and their names in loading order
  local directory=$1 name file
  shift
  while read -r file; do
    cp "$file" "$directory/lib/"
    echo "${file##*/}" >>"$directory/etc/modules"
  done < <(for name; do modprobe -d packages -S "$version" --show-depends "$name"; done |
    awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
}
add_modules initrd virtio_pci virtio_blk virtio_scsi ahci ata_piix sd_mod sr_mod isofs 9pnet_virtio 9p virtiofs button evdev
add_modules net virtio_pci virtio_net 9pnet_virtio 9p overlay bridge veth tun nf_tables nft_ct nft_masq nft_nat nft_limit \
  nft_reject_inet nft_fib_inet nft_meta_bridge nft_reject_bridge vxlan
cat >initrd/init <<'EOF2'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/lib/$module"; done </etc/modules
echo 'root:x:0:0::/:/bin/sh' >/etc/passwd
(
  until button=$(grep -l 'Power Button' /sys/class/input/event*/device/name 2>/dev/null); do usleep 50000; done
  button=${button%/device/name}
  head -c 1 "/dev/input/${button##*/}" >/dev/null
  [ ! -e /etc/last ] || sh /etc/last
  sync
  poweroff -f
) &
stty -F /dev/ttyS0 -echo
exec setsid sh -c 'PS1="guest# " exec sh </dev/ttyS0 >/dev/ttyS0 2>&1'
EOF2
chmod 755 initrd/init
(cd initrd && find . | cpio --quiet -o -H newc | gzip -1) >initrd.gz
truncate --size=%4 initrd.gz # an archive that follows must begin at a multiple of four (init/initramfs.c)
(cd net && find . | cpio --quiet -o -H newc) | cat initrd.gz - >initrd-net
python3 - "packages/boot/vmlinuz-$version" vmlinux <<'EOF2'
import lzma, sys
from pathlib import Path

packed = Path(sys.argv[1]).read_bytes()
Path(sys.argv[2]).write_bytes(lzma.LZMADecompressor().decompress(packed[packed.index(b"\xfd7zXZ\0") :]))
EOF2
mkdir -p "$out"
cp "packages/boot/vmlinuz-$version" "$out/vmlinuz.new"
mv initrd.gz "$out/initrd.new"
mv vmlinux "$out/vmlinux"
mv "$out/vmlinuz.new" "$out/vmlinuz"
mv "$out/initrd.new" "$out/initrd"
mv initrd-net "$out/initrd-net"
