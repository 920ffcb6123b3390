#!/usr/bin/env bash
# A table over a real Slurm on one machine, as root on Debian or Ubuntu; nothing of it is left running.
#   apt-get install --no-install-recommends munge slurmctld slurmd slurm-client
#   tests/slurm_local.sh [FOLDER]      # FOLDER: of runs and results, made if it is not there
# It keeps no accounts, of whose absence submitit warns; a cluster's tell it of jobs that were killed.
# PYTHON is the interpreter that has mmbench[slurm].
set -euo pipefail
work=$(realpath -m "${1:-$(mktemp -d)}")
python=${PYTHON:-python}
host=$(hostname -s)
mkdir -p "$work"/{state,spool,munge,log} && chmod 700 "$work/munge"

head -c 1024 /dev/urandom > "$work/munge/key" && chmod 400 "$work/munge/key"
munged --force --foreground --num-threads=2 --key-file="$work/munge/key" --socket="$work/munge/socket" \
    --pid-file="$work/munge/pid" --seed-file="$work/munge/seed" --log-file="$work/munge/log" &
started=($!)
trap 'kill "${started[@]}" 2>/dev/null; wait' EXIT

cat > "$work/slurm.conf" <<END
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
CryptoType=crypto/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/log/slurmctld
SlurmdLogFile=$work/log/slurmd
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc --all) State=UNKNOWN
PartitionName=local Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$work/slurm.conf
slurmctld -D > "$work/log/controller" 2>&1 & started+=($!)
slurmd -D > "$work/log/node" 2>&1 & started+=($!)
for _ in $(seq 60); do sinfo --noheader --states=idle 2>/dev/null | grep -q local && break; sleep 1; done
sinfo

cd "$work"
"$python" -m mmbench reproduce experiment=demo data.source=toy method=identity,real data.toy_images=80 protocol.count=12 \
    trainer=cpu hydra/launcher=slurm hydra.launcher.partition=local hydra.launcher.cpus_per_task=1
"$python" -m mmbench status experiment=demo data.source=toy method=identity,real data.toy_images=80 protocol.count=12 \
    trainer=cpu
