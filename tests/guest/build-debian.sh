#!/bin/bash
# build-debian.sh OUT.qcow2: makes "debian", a guest with systemd, cloud-init and OpenSSH, as a user would bring one.
#
# A disk with one ext4 partition and extlinux: Debian 12 minbase, the cloud kernel, qemu-guest-agent. It is trimmed for the
# slow emulated machines of the tests: cloud-init keeps only the modules that apply a seed, and the rest of the boot that
# nobody waits for is masked. Nothing of pcocc is in it.
# Run as root (loop mount, chroot) on a Debian host with mmdebstrap and what disk.sh needs.
set -euo pipefail

(($# == 1)) || { echo "usage: build-debian.sh OUT.qcow2" >&2; exit 2; }
source "${BASH_SOURCE%/*}/disk.sh"
begin_disk "$1"

release=bookworm
packages=(systemd-sysv systemd-resolved udev dbus cloud-init openssh-server qemu-guest-agent linux-image-cloud-amd64 initramfs-tools lz4
  iproute2 iputils-ping netbase python3 sudo procps kmod e2fsprogs)
masked=(apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer e2scrub_reap.service
  systemd-timesyncd.service systemd-networkd-wait-online.service systemd-binfmt.service
  proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount dev-mqueue.mount
  modprobe@drm.service modprobe@configfs.service systemd-pstore.service cloud-init-hotplugd.socket getty@tty1.service)
kernel_arguments="root=/dev/vda1 ro console=ttyS0 quiet mitigations=off nokaslr tsc=reliable no_timer_check lpj=4000000 audit=0
  net.ifnames=0 panic=-1 systemd.show_status=0 fsck.mode=skip"

# --- what goes in before the packages: an initial RAM disk of only what finds the root partition
cat >essential.sh <<'EOF'
set -e
mkdir -p "$1"/etc/initramfs-tools/conf.d "$1"/etc/initramfs-tools/hooks
printf 'MODULES=list\nCOMPRESS=lz4\nBUSYBOX=n\nFSTYPE=ext4\n' >"$1/etc/initramfs-tools/conf.d/guest"
cat >"$1/etc/initramfs-tools/hooks/guest" <<'HOOK'
#!/bin/sh
[ "$1" != prereqs ] || exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk virtio_scsi sd_mod ext4 crc32c_generic
HOOK
chmod 755 "$1/etc/initramfs-tools/hooks/guest"
EOF

# --- what is changed afterwards
cat >customize.sh <<'EOF'
set -e
cd "$1"
mkdir -p etc/systemd/network
cat >etc/cloud/cloud.cfg.d/90_guest.cfg <<'CFG'
datasource_list: [NoCloud, ConfigDrive, None]
ssh_genkeytypes: [ed25519]
manage_etc_hosts: true
CFG
# only the modules that apply a seed: each one costs time on an emulated CPU; deferred files as soon as their owners exist,
# for the user's key must be there when sshd starts
python3 - etc/cloud/cloud.cfg <<'PYTHON'
import sys
text = open(sys.argv[1]).read()
lists = {
    "cloud_init_modules": "bootcmd write-files mounts set_hostname update_hostname update_etc_hosts users-groups write-files-deferred ssh",
    "cloud_config_modules": "set-passwords runcmd",
    "cloud_final_modules": "scripts-vendor scripts-user final-message",
}
kept, skipping = [], False
for line in text.splitlines():
    if not line.startswith((" ", "#", "-")) and line:
        skipping = line.split(":")[0] in lists
    if not skipping:
        kept.append(line)
for name, modules in lists.items():
    kept += [f"{name}:", *(f"- {module}" for module in modules.split())]
open(sys.argv[1], "w").write("\n".join(kept) + "\n")
PYTHON
cat >etc/systemd/network/80-dhcp.network <<'CFG'
[Match]
Name=e*
[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
[DHCPv4]
ClientIdentifier=mac
UseMTU=yes
UseDomains=yes
CFG
echo 'policy: search,found=first,maybe=none,notfound=disabled' >etc/cloud/ds-identify.cfg
echo '/dev/vda1 / ext4 noatime 0 0' >etc/fstab
echo debian >etc/hostname
# already as a seed with `ssh_pwauth: false` wants it, else cloud-init restarts sshd when users are already logged in
mkdir -p etc/ssh/sshd_config.d
echo 'PasswordAuthentication no' >etc/ssh/sshd_config.d/50-cloud-init.conf
chmod 600 etc/ssh/sshd_config.d/50-cloud-init.conf
for unit in $MASKED; do ln -sf /dev/null "etc/systemd/system/$unit"; done
chroot . systemctl enable systemd-networkd systemd-resolved ssh >/dev/null 2>&1
# networkd itself writes no resolv.conf
ln -sf /run/systemd/resolve/resolv.conf etc/resolv.conf
ln -sf "$(basename boot/vmlinuz-*)" boot/vmlinuz
ln -sf "$(basename boot/initrd.img-*)" boot/initrd.img
# what must be each guest's own is made at its first boot
rm -f etc/ssh/ssh_host_* var/lib/dbus/machine-id
: >etc/machine-id
rm -rf usr/share/{doc,man,locale,info}/* var/cache/apt/* var/lib/apt/lists/*
EOF

export MASKED="${masked[*]}"
include=$(IFS=,; echo "${packages[*]}")
mmdebstrap --variant=minbase --quiet --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt=force-unsafe-io --include="$include" \
  --essential-hook="bash $work/essential.sh \"\$1\"" --customize-hook="bash $work/customize.sh \"\$1\"" "$release" root

make_disk debian 2048 initrd.img "${kernel_arguments//$'\n'/}" ^metadata_csum,^64bit ,lazy_itable_init=1
