# A cluster of one node in the machine, and a job with a VM that says when it is up and goes on when it is told.
set -e
apt-get -qq install --yes /srv/files/pcocc_*.deb /srv/files/pcocc-slurm-plugin_*.deb >/dev/null
useradd --create-home alice
chmod 755 /srv/files
cgroup=cgroup/v2
[[ ! -d /sys/fs/cgroup/memory ]] || cgroup=cgroup/v1
cat >/etc/slurm/slurm.conf <<EOF
ClusterName=one
SlurmctldHost=$(hostname)
MailProg=/bin/true
StateSaveLocation=/var/lib/slurm/slurmctld
SlurmdSpoolDir=/var/lib/slurm/slurmd
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup,task/affinity
TaskPluginParam=none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobSubmitPlugins=lua
SlurmdParameters=config_overrides
DefMemPerCPU=256
NodeName=$(hostname) CPUs=4 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES
EOF
printf '%s\n' CgroupPlugin=$cgroup ConstrainCores=yes ConstrainRAMSpace=yes IgnoreSystemd=yes >/etc/slurm/cgroup.conf
((${cgroup#cgroup/v} == 2)) || sed -i /IgnoreSystemd/d /etc/slurm/cgroup.conf
printf '%s\n' 'tiny: {image: /srv/files/tiny.qcow2, cpus: 1, memory: 512M}' >/etc/pcocc/templates.yaml
printf '%s\n' 'accel: tcg' 'boot-timeout: 900' >/etc/pcocc/pcocc.yaml
ln -s /usr/share/pcocc/lua/job_submit.lua /etc/slurm/
pcocc config policy >/dev/null
install -d -o munge -g munge -m 755 /run/munge
setpriv --reuid=munge --regid=munge --clear-groups munged
slurmctld
slurmd
until [[ $(sinfo --noheader --format=%T) == idle ]]; do sleep 0.2; done

as_alice() { (cd ~alice && runuser -u alice -- "$@"); }

start_job() { # NAME: a job whose VM is up when this returns
  as_alice mkfifo "said-$1" "tell-$1"
  as_alice tee "job-$1" >/dev/null <<EOF
#!/bin/sh
srun --pcocc-vm hostname >said-$1
read line <tell-$1
srun --pcocc-vm sh -c 'echo still \$(hostname)' >said-$1
EOF
  as_alice sbatch --quiet --pcocc-template=tiny --output="out-$1" "job-$1"
  echo "$1: $(cat ~alice/"said-$1")"
  sed 's/^/(said) /' ~alice/"out-$1" # why, when it is not up
}

end_job() { # NAME
  echo >~alice/"tell-$1"
  echo "$1: $(cat ~alice/"said-$1")"
}

show_left() { # what there is of ours: nothing of ours, after a moment that Slurm needs to end a step
  for _ in {1..600}; do
    left=$(ip netns; nft list tables; ip -brief link show type veth; pgrep -a 'qemu|dnsmasq' || true
           ls -A /run/pcocc /var/lib/pcocc/scratch 2>/dev/null | grep -v -e : -e '^$' -e '^.state$' -e accel.json -e abilities.json || true)
    [[ ${left:-table inet pcocc} != "table inet pcocc" ]] || break
    sleep 0.2
  done
  echo "left: $left"
}
