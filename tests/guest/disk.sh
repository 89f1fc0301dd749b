# Sourced by the scripts that build guests with a disk: one ext4 partition, whose kernel extlinux loads.
# Needs extlinux, syslinux-common, e2fsprogs, fdisk, qemu-utils, and root's right to mount.

out= work=

# Goes to a directory of its own, which is removed when the script ends, as is what is not finished then.
begin_disk() { # OUT.qcow2
  out=$(realpath -m "$1")
  work=$(mktemp -d)
  trap clean_up EXIT
  cd "$work"
}

clean_up() {
  rm -rf "$work" "$out.new"
}

# Makes the disk of the directory root, with its kernel and initial RAM disk in boot/: mke2fs fills the partition, extlinux wants
# it mounted once.
make_disk() { # NAME MEGABYTES INITRD KERNEL_ARGUMENTS FEATURES EXTENDED_OPTIONS: the last two of mke2fs(8)
  mkdir -p root/boot/extlinux
  printf 'DEFAULT %s\nPROMPT 0\nLABEL %s\n KERNEL /boot/vmlinuz\n INITRD /boot/%s\n APPEND %s\n' "$1" "$1" "$3" "$4" \
    >root/boot/extlinux/extlinux.conf
  truncate -s $(($2 + 1))M disk
  echo '2048,,L,*' | sfdisk -q --no-tell-kernel disk >/dev/null
  mke2fs -q -F -t ext4 -O "$5" -b 4096 -m 0 -L "$1" -E "offset=1048576,root_owner=0:0$6" -d root disk "$2M"
  mkdir mounted
  # in a mount namespace of its own: one that another process made meanwhile would have the mount, too, and keep it. The disk
  # would be taken with a journal to replay, whose block 0 is older than extlinux's boot sector.
  unshare --mount bash -ec 'mount -o loop,offset=1048576 disk mounted; extlinux --install mounted/boot/extlinux; umount mounted' \
    >extlinux.log 2>&1 || { cat extlinux.log >&2; exit 1; }
  if dumpe2fs -h "disk?offset=1048576" 2>/dev/null | grep -q needs_recovery; then
    echo "the file system of $1 was not unmounted whole" >&2
    exit 1
  fi
  dd if=/usr/lib/syslinux/mbr/mbr.bin of=disk bs=440 count=1 conv=notrunc status=none
  # not in place: virtual machines may have an older one open
  qemu-img convert -f raw -O qcow2 disk "$out.new"
  mv "$out.new" "$out"
}
