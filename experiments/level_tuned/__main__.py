"""Run the experiments on all-memristive networks and print their table.

python -m experiments.level_tuned search run pictures
"""

import sys

from experiments import reporting
from experiments.level_tuned.experiment import SEEDS, experiment, search
from experiments.level_tuned.tasks import TASKS


@reporting.reported
@reporting.on_workers
def main(argv: list[str] | None = None) -> int:
    """Run from the command line; 0 if all went well."""
    parser = reporting.parser(
        "level_tuned",
        "Unsupervised learning with level-tuned neurons and with winner-takes-all.",
        ["search", "run", "pictures"],
        SEEDS,
    )
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS], default=[*TASKS])
    arguments = parser.parse_args(argv)
    for what in arguments.what:
        if what == "pictures":
            from experiments.level_tuned.pictures import draw

            draw(arguments.results, arguments.tasks)
            continue
        for name in arguments.tasks:
            if what == "search":
                search(name, arguments.results)
            else:
                experiment(name, arguments.results, arguments.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
