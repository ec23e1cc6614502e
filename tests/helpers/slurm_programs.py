"""Stand-ins for the programs of Slurm: they run a job at once, and keep the queue in a file."""

from __future__ import annotations

from pathlib import Path

SQUEUE = (
    '[ ! -e "{folder}/down" ] || { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }\n'
)
PROGRAMS = {
    "squeue": SQUEUE + 'cat "{folder}/queue"',
    # a job stays in the queue if there is a file 'held'; its batch script runs otherwise
    "sbatch": """
if [ -e "{folder}/refused" ]; then echo "sbatch: error: Batch job submission failed: Invalid account" >&2; exit 1; fi
number=$(($(wc -l < "{folder}/submitted") + 1))
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
echo "$number $name" | tee -a "{folder}/submitted" >> "{folder}/queue"
if [ ! -e "{folder}/held" ]; then
    (export SLURM_JOB_ID=$number; bash "$1"; sed -i "/^$number /d" "{folder}/queue") > "{folder}/$number.log" 2>&1 &
fi
echo "Submitted batch job $number"
""",
    "srun": """
while [ "${1#-}" != "$1" ]; do
    case $1 in --output | --error) shift ;; esac
    shift
done
exec "$@"
""",
}


class SlurmPrograms:
    """The programs in a folder of their own, with the files that they use.

    Args:
        folder (Path): Parent of that folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "slurm-programs"
        self.folder.mkdir()
        for name in ("queue", "submitted"):
            (self.folder / name).touch()
        for name, text in PROGRAMS.items():
            program = self.folder / name
            program.write_text("#!/bin/bash\n" + text.replace("{folder}", str(self.folder)) + "\n")
            program.chmod(0o755)

    def switch(self, name: str, on: bool = True) -> None:
        """Make the programs refuse jobs ('refused'), hold them ('held') or answer nothing ('down')."""
        file = self.folder / name
        file.touch() if on else file.unlink()

    def submitted(self) -> list[str]:
        """Return the names of all submitted jobs in their order, without the hashes of their folders."""
        lines = (self.folder / "submitted").read_text().splitlines()
        return [line.split()[1].rpartition("-")[0] for line in lines]

    def end_jobs(self) -> None:
        """Empty the queue."""
        (self.folder / "queue").write_text("")
