#!/usr/bin/env bash
# Test batches under a real Slurm: `make slurm-test`. Starts one for the purpose, on this machine
# alone, with two GPUs that are none, and ends it again. Where that cannot be, it prints SKIPPED
# and why. MAPS is the size of the array that is timed, ANGELO the program, LAUNCHER what is to go
# before angelo on nodes.
set -euo pipefail

angelo=${ANGELO:-.venv/bin/angelo}
maps=${MAPS:-10}
root=$(cd "$(dirname "$0")/.." && pwd)
#: Seconds that anything here may take.
PATIENCE=3600

skipped() { echo "SKIPPED: batches under Slurm: $*"; exit 0; }
for tool in munged slurmctld slurmd sbatch squeue scontrol scancel; do
    command -v "$tool" > /dev/null || skipped "no $tool here (Debian: slurm-wlm)"
done
[ "$(id -u)" = 0 ] || skipped "only root can start a Slurm for the test"
angelo=$(readlink -e "$angelo") || skipped "no angelo here (make demo makes .venv; or give ANGELO)"

work=$(mktemp -d "${TMPDIR:-/tmp}/angelo-slurm.XXXXXX")
export SLURM_CONF=$work/slurm.conf

say() { echo "ok: $*"; }
fail() {
    echo "FAILED: $*" >&2
    tail -n 20 "$work"/*.log "$work"/out/batch/slurm/*/*.out >&2 || true
    exit 1
}
end() {
    scancel --state=pending --state=running --user root > /dev/null 2>&1 || true
    for daemon in slurmd slurmctld munged; do
        pid=$(cat "$work/$daemon.pid" 2> /dev/null) || continue
        kill "$pid" 2> /dev/null || continue
        for _ in $(seq 100); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
        kill -KILL "$pid" 2> /dev/null || true
    done
    rm -rf "$work"
}
trap end EXIT

start_slurm() {
    mkdir "$work/state" "$work/spool"
    mknod "$work/nvidia0" c 1 3
    mknod "$work/nvidia1" c 1 3
    echo "NodeName=localhost Name=gpu File=$work/nvidia[0-1]" > "$work/gres.conf"
    cat > "$SLURM_CONF" << END
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# The second: how long a requeued task has to wait.
AuthInfo=socket=$work/munge.socket,cred_expire=5
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
ReturnToService=2
KillWait=5
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=2000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
    head -c 64 /dev/urandom > "$work/munge.key"
    chmod 400 "$work/munge.key"
    munged --force --key-file="$work/munge.key" --socket="$work/munge.socket" \
        --pid-file="$work/munged.pid" --log-file="$work/munged.log" --seed-file="$work/munged.seed"
    slurmctld -c -f "$SLURM_CONF"
    slurmd -N localhost -f "$SLURM_CONF"
    for _ in $(seq 100); do
        [ "$(sinfo -h -o %T 2> /dev/null)" != idle ] || return 0
        sleep 0.2
    done
    fail "Slurm did not start"
}

# batch MANIFEST OUT [OPTION ...]: submit; the number of the array, empty if there was nothing to do.
batch() {
    (set -x; "$angelo" batch "$@" ${LAUNCHER:+--launcher "$LAUNCHER"} --slurm --partition gpu \
        --gres gpu:1 --cpus 1 --time 1:00:00 --max-running 2) | tee "$work/answer"
    array=$(sed -n 's/^array \([0-9]*\) .*/\1/p' "$work/answer")
}
# until_there FILE: in the batch "out".
until_there() {
    for _ in $(seq $((PATIENCE * 5))); do
        [ ! -e "out/$1" ] || return 0
        sleep 0.2
    done
    fail "$1 did not come"
}
# processes N [WORD]: of task N of the array; those with a word in their command line.
processes() {
    job=$(squeue --noheader --jobs="${array}_$1" --format=%A)
    scontrol listpids "$job" | awk 'NR > 1 { print $1 }' | while read -r pid; do
        ! grep -qzx "${2:-.*}" "/proc/$pid/cmdline" 2> /dev/null || echo "$pid"
    done
}
until_empty() {
    for _ in $(seq "$PATIENCE"); do
        [ -n "$(squeue --noheader)" ] || return 0
        sleep 1
    done
    fail "tasks did not end"
}
# cell OUT ROW COLUMN: from the summary.
cell() {
    awk -F '\t' -v row="$2" -v column="$3" '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
        $1 == row { print $at[column] }' "$1/summary.tsv"
}
# expect OUT ROW COLUMN PATTERN
expect() {
    cell=$(cell "$1" "$2" "$3")
    [[ $cell =~ $4 ]] || fail "$2: $3 is '$cell', not '$4'"
}
# goes_on ROW: its last attempt did not begin anew.
goes_on() {
    grep -q 'hand: finished by an earlier run' "out/$1/angelo.log" || fail "$1 began anew"
}
# table OUT: the summary, in short.
table() { cut -f "$(head -1 "$1/summary.tsv" | tr '\t' '\n' |
    awk '/^(name|state|residues_built|seconds|attempts|message|job)$/ { printf "%s%d", s, NR; s = "," }')" \
    "$1/summary.tsv" | cut -c 1-150 | column -t -s $'\t'; }

cd "$work"
start_slurm
sinfo
cp "$root"/packaging/self_test/haemoglobin_alpha.{map.gz,fasta} .
cp "$root"/examples/emd_3488.map.gz "$root"/examples/5ni1.fasta .
zcat haemoglobin_alpha.map.gz > whole.mrc
head -c 9000 whole.mrc > cut.mrc
{
    printf 'name\tmap\tfasta\n'
    printf 'cut\tcut.mrc\thaemoglobin_alpha.fasta\n'
    printf '%s\temd_3488.map.gz\t5ni1.fasta\n' killed cancelled memory requeued
    printf 'small\thaemoglobin_alpha.map.gz\thaemoglobin_alpha.fasta\n'
} > maps.tsv

# A GPU that is asked for and does not work.
grep -E '^(name|small)' maps.tsv > small.tsv
batch small.tsv -o "no gpu"
until_empty
table "no gpu"
expect "no gpu" small state failed
expect "no gpu" small message CUDA
say "tasks whose GPU does not work fail, and do not crawl"

batch maps.tsv -o out --device cpu
until_there killed/stages/hand.npz
# All processes at once, as when a node is lost.
mapfile -t pids < <(processes 1)
(set -x; kill -KILL "${pids[@]}")
until_there cancelled/stages/hand.npz
(set -x; scancel "${array}_2")
until_there memory/stages/hand.npz
# The build alone, as the system does it when memory runs out.
mapfile -t pids < <(processes 3 build)
(set -x; kill -KILL "${pids[@]}")
until_there requeued/stages/hand.npz
(set -x; scontrol requeue "${array}_4"; squeue)
until_empty
table out
expect out cut state failed
expect out cut message "cut short"
expect out killed state stopped
expect out killed message "without a word"
expect out cancelled state stopped
expect out memory message SIGKILL
expect out requeued state built
expect out requeued attempts 2
goes_on requeued
expect out small state built
say "a failing map, killed tasks, a requeued one"

cp "$work"/haemoglobin_alpha.map.gz cut.map.gz
sed -i 's/cut.mrc/cut.map.gz/' maps.tsv
batch maps.tsv -o out --device cpu
until_empty
table out
for name in cut killed cancelled memory requeued small; do expect out "$name" state built; done
for name in killed cancelled memory; do goes_on $name; done
batch maps.tsv -o out --device cpu
[ -z "$array" ] || fail "there was nothing left to submit"
say "the same command submits what is missing"

{
    printf 'name\tmap\tfasta\n'
    for number in $(seq "$maps"); do
        printf 'map%03d\thaemoglobin_alpha.map.gz\thaemoglobin_alpha.fasta\n' "$number"
    done
} > many.tsv
begin=$SECONDS
batch many.tsv -o many --device cpu
until_empty
built=$(awk -F '\t' '$2 == "built"' many/summary.tsv | wc -l)
[ "$built" = "$maps" ] || fail "$built of $maps maps were built"
say "an array of $maps tiny maps in $((SECONDS - begin)) s"
