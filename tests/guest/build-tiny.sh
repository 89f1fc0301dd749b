#!/bin/bash
# build-tiny.sh OUT.qcow2: makes "tiny", a small bootable guest from Debian packages only, as a user would bring one.
#
# A disk with one ext4 partition and extlinux: Debian's cloud kernel, busybox, dropbear, qemu-guest-agent. Its init reads
# a NoCloud seed (meta-data, user-data scripts, and vendor-data in the flat shape of pcocc_runtime/guest/seed.py, whose bootcmd it runs
# at each boot), asks for an address by DHCP on every interface and lets the seed's users in by ssh. The serial console is a root shell: for tests.
# Run as root (loop mount, file owners) on a Debian host with cpio, kmod and what disk.sh needs.
set -euo pipefail

(($# == 1)) || { echo "usage: build-tiny.sh OUT.qcow2" >&2; exit 2; }
source "${BASH_SOURCE%/*}/disk.sh"
source "${BASH_SOURCE%/*}/packages.sh"
begin_disk "$1"

libraries=(libc6 libcrypt1 libtomcrypt1 libtommath1 libgmp10 zlib1g libudev1 libnuma1 liburing2 libglib2.0-0 libpcre2-8-0
  libproc2-0 libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblzma5 liblz4-1 libzstd1)
programs=(bin/busybox usr/sbin/dropbear usr/bin/dropbearkey usr/bin/dropbearconvert usr/bin/dbclient usr/sbin/qemu-ga usr/bin/pgrep)
boot_modules=(virtio_pci virtio_blk)
modules=(virtio_net virtio_console virtio-rng virtio_balloon virtio_mem virtio_scsi sd_mod sr_mod isofs virtiofs overlay
  qemu_fw_cfg pvpanic-pci pvpanic-mmio button evdev)
kernel_arguments="root=/dev/vda1 console=ttyS0 quiet mitigations=off nokaslr tsc=reliable no_timer_check lpj=4000000 init_on_alloc=0 panic=-1"

# --- packages, unpacked and not installed
mkdir debs packages root initrd
prepare_packages "$work/apt"
kernel=$(find_kernel linux-image-cloud-amd64)
(cd debs && download_packages busybox busybox-static dropbear-bin qemu-guest-agent procps "${libraries[@]}" "$kernel")
unpack_packages debs packages
dpkg -x debs/busybox-static_*.deb static
dpkg -x debs/busybox_*.deb packages
version=$(ls packages/lib/modules)
depmod -b packages "$version"

# --- programs, with one directory for all of them: dropbear's PATH for users is /usr/bin:/bin
mkdir -p root/{boot,dev,etc/dropbear,etc/udhcpc,home,mnt,proc,root,run,sys,tmp,usr/bin,usr/lib64,usr/lib/x86_64-linux-gnu,var/lib/cloud,var/log}
chmod 700 root/root
for name in bin sbin lib lib64; do ln -s "usr/$name" "root/$name"; done
ln -s bin root/usr/sbin
ln -s /run root/var/run
for applet in $(packages/bin/busybox --list); do [[ $applet == busybox ]] || ln -s busybox "root/usr/bin/$applet"; done
# the static one runs applets without looking for programs: fast at boot, but its shell can never reach a setuid ping.
# ping and su need privileges; what is allowed here is no secret: any user of a test guest may become root
install -m 4755 static/bin/busybox root/usr/bin/busybox-static
for applet in ping ping6 su; do ln -sf busybox-static "root/usr/bin/$applet"; done

copy_with_libraries() {
  local library
  cp -L "packages/$1" "$2"
  while read -r library; do
    [[ -e root/usr/lib/x86_64-linux-gnu/$library ]] ||
      copy_with_libraries "$(cd packages && find lib usr/lib -name "$library" | head -n 1)" root/usr/lib/x86_64-linux-gnu/
  done < <(objdump -p "packages/$1" | awk '$1 == "NEEDED" { print $2 }')
}
for program in "${programs[@]}"; do copy_with_libraries "$program" root/usr/bin/; done
ln -s pgrep root/usr/bin/pkill
ln -s ../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 root/usr/lib64/

# --- kernel modules, without signatures: checking them costs time under TCG
find_modules() { # names -> files, in loading order
  local name
  for name; do modprobe -d packages -S "$version" --show-depends "$name"; done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}
mkdir -p "root/lib/modules/$version"
cp "packages/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "root/lib/modules/$version/"
for file in $(find_modules "${boot_modules[@]}" "${modules[@]}"); do
  install -D -m 644 "$file" "root/lib/modules/${file#*/lib/modules/}"
done
find root/lib/modules -name '*.ko' -exec strip --strip-debug {} +
depmod -b root "$version"

# --- files of /etc
echo 'root:x:0:0:root:/root:/bin/sh
nobody:*:65534:65534::/:/bin/false' >root/etc/passwd
echo 'root:x:0:
tty:x:5:
nogroup:x:65534:' >root/etc/group
echo 'root::19000:0:99999:7:::' >root/etc/shadow
chmod 600 root/etc/shadow
echo /bin/sh >root/etc/shells
echo tiny >root/etc/hostname
echo '127.0.0.1 localhost' >root/etc/hosts
printf 'NAME="Tiny"\nID=tiny\nPRETTY_NAME="Tiny, a guest for tests"\n' >root/etc/os-release
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >root/etc/nsswitch.conf
echo 'export PATH=/usr/bin:/bin:/usr/sbin:/sbin' >root/etc/profile
echo 'proc /proc proc defaults 0 0
sys /sys sysfs defaults 0 0
devpts /dev/pts devpts gid=5,mode=620,ptmxmode=666 0 0
shm /dev/shm tmpfs mode=1777 0 0
run /run tmpfs mode=755 0 0
tmp /tmp tmpfs mode=1777 0 0' >root/etc/fstab
echo 'ttyS0::respawn:-/bin/sh
::ctrlaltdel:/sbin/reboot' >root/etc/inittab

# --- init
cat >root/etc/init <<'EOF'
#!/usr/bin/busybox-static sh
# process 1 until the guest is up, then busybox's init
export PATH=/usr/bin:/bin:/usr/sbin:/sbin HOME=/root
mount -a
modprobe -a virtio-rng virtio_net isofs 2>/dev/null
for path in /sys/class/net/*; do
  nic=${path##*/}
  ip link set "$nic" up
  [ "$nic" = lo ] || udhcpc -i "$nic" -s /etc/udhcpc/script -O search -O mtu -t 4 -T 1 -A 2 -b -p "/run/udhcpc.$nic" >/dev/null 2>&1 &
done

mkdir /run/seed
seed=$(findfs LABEL=cidata 2>/dev/null) && mount -o ro -t iso9660 "$seed" /run/seed || seed=
name= instance= known=
if [ -n "$seed" ]; then
  while read -r key value; do
    case $key in instance-id:) instance=$value ;; local-hostname:) name=$value ;; esac
  done </run/seed/meta-data
  [ ! -e /var/lib/cloud/instance-id ] || read -r known </var/lib/cloud/instance-id
  if [ "$instance" != "$known" ]; then
    [ ! -e /run/seed/vendor-data ] || eval "$(awk -f /etc/vendor-data.awk /run/seed/vendor-data)"
    echo "$instance" >/var/lib/cloud/instance-id
  fi
  [ ! -e /run/seed/vendor-data ] || eval "$(awk -f /etc/bootcmd.awk /run/seed/vendor-data)"
fi
if [ -n "$name" ]; then
  echo "$name" >/etc/hostname
  echo "127.0.0.1 localhost
127.0.1.1 $name" >/etc/hosts
fi
[ -s /etc/hostname ] && read -r name </etc/hostname
echo "$name" >/proc/sys/kernel/hostname
service sshd start || { dropbearkey -t ed25519 -f /run/dropbear_host_key >/dev/null 2>&1; dropbear -s -r /run/dropbear_host_key; }

modprobe -a virtio_console button evdev pvpanic-pci pvpanic-mmio qemu_fw_cfg virtio_balloon virtio_mem 2>/dev/null
ln -s /proc/self/fd /dev/fd
mkdir -p /dev/virtio-ports
for path in /sys/class/virtio-ports/*; do
  port=
  [ ! -e "$path/name" ] || read -r port <"$path/name"
  [ -z "$port" ] || ln -s "/dev/${path##*/}" "/dev/virtio-ports/$port"
  [ "$port" != org.qemu.guest_agent.0 ] || qemu-ga -d -m virtio-serial -p "/dev/${path##*/}" -f /run/qga.pid -t /run -l /run/qga.log
done
for path in /sys/class/input/event*; do
  read -r port <"$path/device/name"
  [ "$port" != "Power Button" ] || { dd bs=24 count=1 && /sbin/poweroff; } <"/dev/input/${path##*/}" >/dev/null 2>&1 &
done
if [ -n "$seed" ] && [ "$instance" != "$known" ]; then
  magic=
  read -r -n 2 magic </run/seed/user-data
  if [ "$magic" = '#!' ]; then
    cp /run/seed/user-data /var/lib/cloud/user-script
    chmod 700 /var/lib/cloud/user-script
    /var/lib/cloud/user-script </dev/null >/dev/console 2>&1 &
  fi
fi
read -r up rest </proc/uptime
echo "READY $name up=$up" >/dev/console
exec busybox-static init
EOF

# --- vendor-data, flat as pcocc_runtime/guest/seed.py writes it, to the shell commands that apply it
cat >root/etc/vendor-data.awk <<'EOF'
function quoted(text) { gsub(/'/, "'\\''", text); return "'" text "'" }
function scalar(line) { sub(/^[^:]*: */, "", line); if (line ~ /^".*"$/) line = substr(line, 2, length(line) - 2); return line }
function load(path, lines, name,    line) {
  while ((getline line < path) > 0) { name = line; sub(/:.*/, "", name); lines[name] = line; order[path, ++count[path]] = name }
  close(path)
}
function put(path, lines, name, line) { if (!(name in lines)) order[path, ++count[path]] = name; lines[name] = line }
function store(path, lines,    i) { for (i = 1; i <= count[path]; i++) print lines[order[path, i]] > path; close(path) }
function is_gid_known(gid,    name, field) { for (name in groups) { split(groups[name], field, ":"); if (field[3] == gid) return 1 } return 0 }
function end_user() {
  if (user == "") return
  if (user == "root") { home = "/root"; uid = gid = 0 }
  else if (uid == "" && user in passwd) { split(passwd[user], known, ":"); uid = known[3]; gid = known[4]; home = known[6] }
  else {
    if (uid == "") uid = gid = 1000 + ++made
    put("/etc/passwd", passwd, user, user ":*:" uid ":" gid ":" gecos ":" home ":/bin/sh")
    if (!is_gid_known(gid)) put("/etc/group", groups, user, user ":x:" gid ":")
    print "[ -d " home " ] || mkdir -p -m 755 " home
  }
  homes[home] = uid ":" gid
  print "[ -d " home "/.ssh ] || mkdir -m 700 " home "/.ssh"
  print "{ [ -e " home "/.ssh/authorized_keys ] && grep -qF " quoted(key) " " home "/.ssh/authorized_keys; } || printf '%s\\n' " quoted(key) " >>" home "/.ssh/authorized_keys"
  if (uid != 0) print "chown " uid ":" gid " " home " " home "/.ssh " home "/.ssh/authorized_keys"
  user = ""
}
function end_file(    directory, base, parents) {
  if (path == "") return
  directory = path; sub(/\/[^\/]*$/, "", directory)
  for (base in homes) if (index(path, base "/") == 1 && homes[base] != "0:0") {
    owner = homes[base]
    for (parents = directory; length(parents) > length(base); sub(/\/[^\/]*$/, "", parents)) owned = owned " " quoted(parents)
  }
  print "[ -d " quoted(directory) " ] || mkdir -p " quoted(directory)
  print "(umask 077; printf '%s' " quoted(text) " >" quoted(path) "); chmod " mode " " quoted(path)
  if (owner != "root:root") print "chown " owner " " quoted(path) owned
  path = text = owned = ""
}
BEGIN { load("/etc/passwd", passwd); load("/etc/group", groups) }
/^    / && block == "file" { text = text substr($0, 5) "\n"; next }
{ block = "" }
/^[^ -]/ { end_user(); end_file(); section = $1 }
section == "users:" && /^- name:/ { end_user(); user = scalar($0); uid = gid = gecos = key = ""; home = "/home/" user }
section == "users:" && /^  uid:/ { uid = scalar($0); if (gid == "") gid = uid }
section == "users:" && /^  (primary_group|x-gid): "?[0-9]+"?$/ { gid = scalar($0) }
section == "users:" && /^  gecos:/ { gecos = scalar($0); gsub(/:/, " ", gecos) }
section == "users:" && /^  homedir:/ { home = scalar($0) }
section == "users:" && /^  ssh_authorized_keys:/ { key = scalar($0); gsub(/^\[|\]$/, "", key) }
section == "mounts:" && /^- \[/ {
  line = substr($0, 4, length($0) - 4); gsub(/"/, "", line); split(line, field, ", "); sub(/,nofail$/, "", field[4])
  print "mkdir -p " field[2] "; echo " quoted(field[1] " " field[2] " " field[3] " " field[4] " 0 0") " >>/etc/fstab; mount " field[2]
}
section == "write_files:" && /^- path:/ { end_file(); path = scalar($0); mode = "644"; owner = "root:root" }
section == "write_files:" && /^  permissions:/ { mode = scalar($0) }
section == "write_files:" && /^  owner:/ { owner = scalar($0) }
section == "write_files:" && /^  content: \|/ { block = "file" }
END { end_user(); end_file(); store("/etc/passwd", passwd); store("/etc/group", groups) }
EOF

# --- its bootcmd, lists of quoted words, one a line, to shell commands
cat >root/etc/bootcmd.awk <<'EOF'
function quoted(text) { gsub(/'/, "'\\''", text); return "'" text "'" }
function plain(text) {
  gsub(/^"|"$/, "", text); gsub(/\\U00000022/, "\"", text); gsub(/\\U0000000a/, "\n", text); gsub(/\\U0000005c/, "\\\\", text)
  return text
}
/^[^ -]/ { section = $1 }
section == "bootcmd:" && /^- \[/ {
  rest = substr($0, 4); command = ""
  while (match(rest, /^("[^"]*"|[^],]+)/)) {
    command = command " " quoted(plain(substr(rest, 1, RLENGTH)))
    rest = substr(rest, RLENGTH + 1); sub(/^, */, "", rest)
  }
  print command " </dev/null >/dev/null 2>&1"
}
EOF

# --- what udhcpc runs; interfaces come up at the same time, hence one file each
cat >root/etc/udhcpc/script <<'EOF'
#!/usr/bin/busybox-static sh
case $1 in bound | renew) ;; *) exit 0 ;; esac
[ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
ip addr replace "$ip/${mask:-24}" dev "$interface"
for gateway in $router; do
  ip route replace default via "$gateway" dev "$interface" metric "$((100 + $(cat "/sys/class/net/$interface/ifindex")))"
  break
done
{
  [ -z "$search$domain" ] || echo "search ${search:-$domain}"
  for server in $dns; do echo "nameserver $server"; done
} >"/run/resolv.$interface"
sort -r -u /run/resolv.* >"/run/new.$interface"
cat "/run/new.$interface" >/etc/resolv.conf
EOF

# --- ssh, poweroff and company as other programs know them
cat >root/usr/bin/ssh <<'EOF'
#!/bin/sh
# OpenSSH's command line and files for dropbear's client, and never a question about host keys
set -f
key=$HOME/.ssh/id_ed25519 mine=/tmp/.id_dropbear.$(id -u) known=$HOME/.ssh/known_hosts system=/etc/ssh/ssh_known_hosts
options=
while [ $# -gt 0 ]; do
  case $1 in
    -t | -tt) options="$options -t" ;;
    -[lpi]) options="$options $1 $2"; shift ;;
    -[lpi]* | -[TNf]) options="$options $1" ;;
    -[oFeE]) shift ;;
    -*) ;; # dropbear's client is as quiet without
    *) break ;;
  esac
  shift
done
[ $# -gt 0 ] || { echo "usage: ssh [-l USER] [-p PORT] [-i KEY] [-t] [USER@]HOST [COMMAND]" >&2; exit 255; }
if [ -e "$key" ] && { [ ! -e "$mine" ] || [ "$key" -nt "$mine" ]; }; then
  dropbearconvert openssh dropbear "$key" "$mine.$$" >/dev/null 2>&1 && mv "$mine.$$" "$mine"
fi
[ ! -e "$mine" ] || options="$options -i $mine"
trust="-y -y"
if [ -e $system ]; then
  [ $system -nt "$known" ] && rm -f "$known" # another cluster's
  while read -r patterns type public rest; do
    for pattern in $(echo "$patterns" | tr , ' '); do
      case ${1#*@} in $pattern) ;; *) continue ;; esac
      line="${1#*@} $type $public" trust=
      grep -qsxF "$line" "$known" || { mkdir -p "${known%/*}" && echo "$line" >>"$known"; }
      break
    done
  done <$system
fi
exec dbclient $trust $options "$@"
EOF
cat >root/usr/bin/shutdown <<'EOF'
#!/bin/sh
# also the target of poweroff, reboot and halt: at once, nobody needs to be asked here
case ${0##*/}:$* in reboot* | *-r*) how=reboot ;; halt* | *-H*) how=halt ;; *) how=poweroff ;; esac
trap '' HUP PIPE TERM
killall dropbear 2>/dev/null # else the other end of a session hears nothing of its end
sync
mount -o remount,ro / 2>/dev/null
usleep 50000
exec busybox-static "$how" -f
EOF
cat >root/usr/bin/service <<'EOF'
#!/bin/sh
# service sshd start|reload: dropbear with the host key that the seed has brought; its sessions go on
[ "$1" = sshd ] && dropbearconvert openssh dropbear /run/pcocc-keys/host /run/dropbear_host_key >/dev/null 2>&1 || exit 1
[ "$2" = start ] || { read -r pid </run/dropbear.pid && kill "$pid"; while [ -d "/proc/$pid" ]; do usleep 10000; done; }
dropbear -s -r /run/dropbear_host_key
EOF
for name in poweroff reboot halt; do ln -sf shutdown "root/usr/bin/$name"; done
cat >root/usr/bin/sudo <<'EOF'
#!/bin/sh
[ "$1" != -n ] || shift
[ "$(id -u)" != 0 ] || exec "$@"
exec su -c 'exec "$0" "$@"' -- root "$@"
EOF
chmod 755 root/etc/init root/etc/udhcpc/script root/usr/bin/{ssh,shutdown,sudo,service}

# --- initial RAM disk: only what finds the root partition
mkdir -p initrd/{bin,dev,lib,root}
cp static/bin/busybox initrd/bin/
load=
for file in $(find_modules "${boot_modules[@]}"); do
  cp "root/lib/modules/${file#*/lib/modules/}" initrd/lib/
  load+="busybox insmod /lib/${file##*/}"$'\n'
done
cat >initrd/init <<EOF
#!/bin/busybox sh
export PATH=/bin
busybox mount -t devtmpfs dev /dev
$load
tries=0
while [ ! -b /dev/vda1 ] && [ \$tries -lt 200 ]; do busybox usleep 20000; tries=\$((tries + 1)); done
busybox mount -t ext4 -o noatime /dev/vda1 /root || exec busybox sh
busybox mkdir /dev/pts /dev/shm
busybox mount -o move /dev /root/dev
exec busybox switch_root /root /etc/init
EOF
chmod 755 initrd/init
(cd initrd && find . | cpio --quiet -o -H newc) >root/boot/initrd

cp "packages/boot/vmlinuz-$version" root/boot/vmlinuz
make_disk tiny 112 initrd "$kernel_arguments" ^metadata_csum,^64bit,^has_journal ""
